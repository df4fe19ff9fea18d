"""The code blocks of the documents, and the folder and names that they find when they run as tests.

What a reader has and a test has not is made here, small: pictures are rendered figures, published weights
have fresh numbers, and a training keeps its command line but gets the settings of SHORTER behind its own: a
small network, small crops, two steps. A block that no test can run is preceded by `<!-- not run: REASON -->`,
which readers do not see.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import fastpose
from fastpose.cli import main
from fastpose.models import HRNet, HRNetConfig, ModelMeta, create_model

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"", "python", "yaml", "json", "text"}

SHORTER = [
    "data.input_size=[64, 64]",
    "data.figures.image_size=[96, 96]",
    "data.figures.train_count=4",
    "data.figures.val_count=2",
    "data.workers=0",
    "data.cache_mb=0",
    "train.epochs=1",
    "train.batch_size=2",
    "train.warmup_steps=0",
    "val.every=1",
    "val.batch_size=2",
    "run.threads=1",
    "run.tensorboard=false",
    "run.device=cpu",
]
SMALL = {"pose": "hrnet_w18_small", "segmentation": "hrnet_seg_w18_small_v1"}


@dataclass(frozen=True)
class Block:
    """`line` is that of the opening fence, from 1; `reason` why it cannot run, if it says so."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def id(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def find_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found, lines = [], page.read_text().splitlines()
    opened: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if opened is None:
            opened = number
            continue
        before = next((text for text in reversed(lines[:opened]) if text.strip()), "")
        reason = re.fullmatch(r"<!-- not run: (.+) -->", before)
        text = "\n".join(lines[opened + 1 : number])
        found.append(Block(page, opened + 1, lines[opened][3:].strip(), text, reason and reason[1]))
        opened = None
    if opened is not None:
        raise ValueError(f"{page}:{opened + 1}: a block that never ends")
    return found


def commands(text: str) -> list[list[str]]:
    """Words of each command; what stands two spaces behind one explains it, and is left out."""
    joined = re.sub(r" *\\\n\s*", " ", text)
    lines = [re.split(r"\s{2,}", line.removeprefix("$ ").strip())[0] for line in joined.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words for words in found if words]


def make_world(folder: Path) -> set[tuple[str, ...]]:
    """Everything that the documents name, in `folder`, which is the working folder.

    Returns the commands that have run, as they stand in the documents.
    """
    text = "\n".join(block.text for page in PAGES for block in find_blocks(page))
    for split in ("train2017", "val2017"):
        _run("figures", "data/coco", "--count", "2", "--split", split, "--size", "96", "128")
    for name in ("data/figures", "FOLDER"):
        shutil.copytree("data/coco", name)
    for split in ("train", "val"):
        _run("figures", "VOCdevkit", "--parts", "--count", "2", "--split", split, "--size", "96", "96")
    _pictures(folder)
    _film(folder)
    _publish(folder, sorted(set(re.findall(r"[\w.-]+\.pth(?:\.tar)?\b", text))))
    runs = sorted(set(re.findall(r"runs/train/(\w+)", text)) | {"demo"})
    for task, config in (("pose", "samples/figures"), ("segmentation", "samples/figures_segmentation")):
        _run("train", config, f"model.name={SMALL[task]}", *SHORTER, "run.name=short")
        for name in runs:
            if ("seg" in name) == (task == "segmentation"):
                shutil.copytree("runs/train/short", f"runs/train/{name}")
        shutil.rmtree("runs/train/short")
    for name in ("best.safetensors", "last.safetensors"):
        shutil.copy(f"runs/train/demo/{name}", name)
    if importlib.util.find_spec("onnxruntime") is not None:
        _export(folder / "pose.onnx")
    return {("train", "samples/figures"), ("train", "samples/figures_segmentation")}


def names_in_use() -> dict[str, Any]:
    """What python blocks may take as given: a network, batches for training and for a graph, all small."""
    model = create_model("hrnet_w18_small")
    model.reset_parameters("kaiming")
    images, targets = torch.rand(2, 3, 64, 64), torch.rand(2, 17, 16, 16)
    return {
        "fastpose": fastpose,
        "torch": torch,
        "model": model,
        "images": images,
        "targets": targets,
        "crops": np.zeros((2, 64, 64, 3), np.uint8),
        "center": np.full((2, 2), 32, np.float32),
        "scale": np.full((2, 2), 0.3, np.float32),
        "loader": [(images, targets)] * 2,
        "loss_fn": torch.nn.functional.mse_loss,
        "optimizer": torch.optim.AdamW(model.parameters(), lr=1e-3),
    }


def _run(*words: str) -> None:
    code = main(list(words))
    if code:
        raise RuntimeError(f"fastpose {' '.join(words)} ended with {code}")


def _pictures(folder: Path) -> None:
    """photo.jpg, folders of pictures and the boxes of everybody in them."""
    annotations = json.loads((folder / "data/coco/annotations/person_keypoints_val2017.json").read_text())
    names = {image["id"]: image["file_name"] for image in annotations["images"]}
    rows = [
        {"image_id": person["image_id"], "category_id": 1, "bbox": person["bbox"], "score": 0.9}
        for person in annotations["annotations"]
    ]
    (folder / "COCO_val2017_detections_AP_H_56_person.json").write_text(json.dumps(rows))
    named = [{"file_name": names[row["image_id"]], **row} for row in rows]
    for place in ("photos", "folder", "crops"):
        shutil.copytree(folder / "data/coco/images/val2017", folder / place)
    first = named[0]["file_name"]
    photo = cv2.resize(cv2.imread(str(folder / "photos" / first)), (480, 640))
    cv2.imwrite(str(folder / "photo.jpg"), photo)
    (folder / "more").mkdir()
    cv2.imwrite(str(folder / "more" / "photo.png"), photo)
    named += [{**row, "file_name": "photo.jpg"} for row in named if row["file_name"] == first]
    for name in ("boxes.json", "detections.json"):
        (folder / name).write_text(json.dumps(named))


def _film(folder: Path) -> None:
    """film.mp4, and its frames as files."""
    (folder / "frames").mkdir()
    video = cv2.VideoWriter(str(folder / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, (96, 128))
    for number, path in enumerate(sorted((folder / "photos").glob("*.jpg"))):
        picture = cv2.imread(str(path))
        video.write(picture)
        cv2.imwrite(str(folder / "frames" / f"{number:06d}.png"), picture)
    video.release()


def _publish(folder: Path, names: list[str]) -> None:
    """Files with the tensors of the networks that their names tell of, as of official checkpoints."""
    made: dict[str, Path] = {}
    for name in names:
        found = re.search(
            r"(pose_resnet|simcc_resnet|simcc_hrnet_w|hrnet_w|hrnetv2_w)_?(\d+)", name.replace("-w", "_w")
        )
        if found is None:
            raise ValueError(f"{name}: of which network are these weights?")
        kind, width = found.groups()
        model = f"{kind.replace('hrnetv2', 'hrnet_seg')}{width}"
        if model not in made:
            made[model] = folder / name
            torch.save(create_model(model).state_dict(), folder / name)
        else:
            os.link(made[model], folder / name)


def _export(path: Path) -> None:
    """A graph of a network with two channels, which takes seconds where others take many."""
    from fastpose.infer.export.run import export_model

    meta = ModelMeta("hrnet_w18_small", 17, input_size=(64, 64))
    model = HRNet(HRNetConfig(width=2, layer1_blocks=1, blocks=1, modules=(1, 1, 1)), meta)
    export_model(model, path, flip_test=True, decode="image")
