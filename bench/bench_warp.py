"""Warping a batch: on a CPU cv2 and what a worker does either way, on a GPU the kernel against PyTorch."""

from __future__ import annotations

from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import default_collate

from bench.checks import check_close
from bench.rows import Case, Limit, Rows
from fastpose.backend import use_backend
from fastpose.data.affine import box_to_center_scale, get_affine_transform, warp_crop
from fastpose.data.region import Cutter, whole_picture
from fastpose.data.warp_batch import WarpFeed, collate_parts, cut_part
from fastpose.nn.normalize import MEAN, STD, normalize_crops
from fastpose.ops import warp_crops
from fastpose.reference.warp import warp_crops as reference

PICTURE = (640, 480)
SIZES = {"256x192": (192, 256), "384x288": (288, 384)}
Batch = dict[str, Tensor]
Person = tuple[np.ndarray, np.ndarray, bool]
rows = Rows("warp")


def draw_persons(batch: int, size: str, draw: torch.Generator) -> list[Person]:
    """Soft noise of 640 x 480, the matrix of a person's crop as in training, and whether it is mirrored.

    Heights are log-normal with a median of 130 pixels, as a stand-in for COCO's.
    """
    seed = int(torch.randint(2**31, (1,), generator=draw, device=draw.device))
    rng = np.random.default_rng(seed)
    width, height = SIZES[size]
    persons = []
    for _ in range(batch):
        picture = cv2.GaussianBlur(rng.integers(0, 256, (*PICTURE[::-1], 3), np.uint8), (5, 5), 0)
        tall = float(np.clip(rng.lognormal(np.log(130), 0.9), 20, 470))
        wide = tall * rng.uniform(0.3, 0.8)
        corner = rng.uniform(0, 1, 2) * [PICTURE[0] - wide, PICTURE[1] - tall]
        center, scale = box_to_center_scale(np.array([*corner, wide, tall]), width / height)
        scale = scale * np.float32(np.clip(1 + 0.35 * rng.standard_normal(), 0.65, 1.35))
        turn = float(np.clip(45 * rng.standard_normal(), -90, 90)) if rng.random() < 0.6 else 0.0
        matrix = get_affine_transform(center, scale, turn, (width, height))
        persons.append((picture, matrix, bool(rng.random() < 0.5)))
    return persons


def crops_of(size: str, persons: list[Person]) -> Batch:
    """What a worker does where the crops are cut on the CPU."""
    crops = []
    for picture, matrix, flipped in persons:
        crop = warp_crop(cv2.flip(picture, 1) if flipped else picture, matrix, SIZES[size])
        crops.append({"crop": cv2.cvtColor(crop, cv2.COLOR_BGR2RGB, crop)})
    return default_collate(crops)


def parts_of(size: str, persons: list[Person]) -> Batch:
    """What it does where the GPU cuts them."""
    cutter = Cutter()
    return collate_parts(
        [
            cut_part(whole_picture(picture), matrix, SIZES[size], cutter=cutter, flipped=flipped)
            for picture, matrix, flipped in persons
        ]
    )


def options(size: str, dtype: torch.dtype) -> dict[str, Any]:
    normalised = {"mean": MEAN, "std": STD} if dtype != torch.uint8 else {}
    return {"output_size": SIZES[size], "dtype": dtype, "reverse_channels": True, **normalised}


def limit(batch: int, size: str, dtype: torch.dtype) -> Limit:
    """As many bytes read as a crop of equal scale has, and the crop written; 8 operations for each value."""
    values = batch * 3 * SIZES[size][0] * SIZES[size][1]
    return Limit(values * (1 + dtype.itemsize), flops=8 * values)


def worker_case(batch: int, size: str) -> Case:
    def check(*persons: Person) -> None:
        feed = WarpFeed(SIZES[size], device=torch.device("cpu"))
        got, expected = feed(parts_of(size, list(persons)))["crop"], crops_of(size, list(persons))["crop"]
        assert torch.equal(got, expected), "crop: the parts do not give the bytes of cv2"

    return Case(
        candidate=lambda *persons: parts_of(size, list(persons)),
        rivals={"cv2 crops": lambda *persons: crops_of(size, list(persons))},
        check=check,
        inputs=lambda draw: tuple(draw_persons(batch, size, draw)),
        name="parts for the GPU",
        items=batch,
        unit="images",
    )


def cpu_case(batch: int, size: str) -> Case:
    """The reference is a specification, and this its price beside OpenCV's code."""

    def warped(images: Tensor, matrices: Tensor) -> Tensor:
        return warp_crops(images, matrices, output_size=SIZES[size], dtype=torch.uint8)

    def with_cv2(images: Tensor, matrices: Tensor) -> Tensor:
        pairs = zip(images.numpy(), matrices.numpy(), strict=True)
        return torch.from_numpy(np.stack([warp_crop(image, matrix, SIZES[size]) for image, matrix in pairs]))

    def check(images: Tensor, matrices: Tensor) -> None:
        assert torch.equal(warped(images, matrices), with_cv2(images, matrices)), "crop: not the bytes of cv2"

    return Case(
        candidate=warped,
        rivals={"cv2": with_cv2},
        check=check,
        inputs=partial(draw_padded, batch, size),
        limit=limit(batch, size, torch.uint8),
        name="PyTorch reference",
        items=batch,
        unit="images",
    )


def draw_padded(batch: int, size: str, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    persons = draw_persons(batch, size, draw)
    images = torch.from_numpy(np.stack([picture for picture, _, _ in persons]))
    matrices = torch.from_numpy(np.stack([matrix for _, matrix, _ in persons]))
    return images.to(draw.device), matrices.to(draw.device)


def draw_parts(batch: int, size: str, draw: torch.Generator) -> tuple[Batch]:
    parts = parts_of(size, draw_persons(batch, size, draw))
    return ({name: tensor.to(draw.device) for name, tensor in parts.items()},)


def with_grid_sample(size: str, images: Tensor, matrices: Tensor) -> Tensor:
    """What PyTorch offers for a padded batch: bilinear in float32."""
    width, height = SIZES[size]
    bottom = matrices.new_tensor([0.0, 0.0, 1.0]).expand(len(matrices), 1, 3)
    inverse = torch.linalg.inv(torch.cat([matrices, bottom], 1))[:, :2]
    across, down = (torch.arange(n, device=images.device, dtype=torch.float64) for n in (width, height))
    y, x = torch.meshgrid(down, across, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1) @ inverse[:, None].mT
    sides = points.new_tensor(images.shape[2:0:-1])
    grid = ((2 * points + 1) / sides - 1).float()
    pictures = images.flip(-1).permute(0, 3, 1, 2).float()
    crops = functional.grid_sample(pictures, grid, padding_mode="zeros", align_corners=False)
    mean, std = (crops.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    crops = (crops / 255 - mean) / std
    return crops.to(torch.bfloat16, memory_format=torch.channels_last)


def cuda_case(batch: int, size: str) -> Case:
    """Parts of pictures to a bfloat16 input."""
    chosen = options(size, torch.bfloat16)

    def run(warp: Any, parts: Batch) -> Tensor:
        others = {name: parts[name] for name in ("sizes", "offsets", "origins", "flip")}
        return warp(parts["pixels"], parts["matrices"], **others, **chosen)

    def candidate(parts: Batch) -> Tensor:
        with use_backend("triton"):
            return run(warp_crops, parts)

    compiled = torch.compile(partial(run, reference), fullgraph=True, dynamic=False)

    def check(parts: Batch) -> None:
        expected = run(reference, parts)
        assert torch.equal(candidate(parts), expected), "crops: not the bits of the reference"
        check_close("torch.compile", compiled(parts), expected)

    return Case(
        candidate=candidate,
        rivals={"eager": partial(run, reference), "torch.compile": compiled},
        check=check,
        inputs=partial(draw_parts, batch, size),
        limit=limit(batch, size, torch.bfloat16),
        name="Triton",
        items=batch,
        unit="images",
    )


def padded_case(batch: int, size: str) -> Case:
    """A padded batch in mode bilinear, which grid_sample can do."""
    chosen = options(size, torch.bfloat16) | {"mode": "bilinear"}

    def candidate(images: Tensor, matrices: Tensor) -> Tensor:
        with use_backend("triton"):
            return warp_crops(images, matrices, **chosen)

    rival = partial(with_grid_sample, size)

    def check(images: Tensor, matrices: Tensor) -> None:
        expected = reference(images, matrices, **chosen)
        for name, side in (("Triton", candidate), ("grid_sample", rival)):
            check_close(name, side(images, matrices), expected)

    return Case(
        candidate=candidate,
        rivals={"grid_sample": rival},
        check=check,
        inputs=partial(draw_padded, batch, size),
        limit=limit(batch, size, torch.bfloat16),
        name="Triton",
        items=batch,
        unit="images",
    )


def feed_case(batch: int, size: str) -> Case:
    """From pinned memory to a float32 input: parts against crops; the workers' share is in the CPU's row."""
    feed = WarpFeed(SIZES[size], device=torch.device("cuda"))

    def with_parts(parts: Batch, crops: Batch) -> Tensor:
        return normalize_crops(feed(parts)["crop"])

    def with_crops(parts: Batch, crops: Batch) -> Tensor:
        return normalize_crops(crops["crop"].to("cuda", non_blocking=True))

    def draw_both(draw: torch.Generator) -> tuple[Batch, Batch]:
        persons = draw_persons(batch, size, draw)
        parts, crops = parts_of(size, persons), crops_of(size, persons)
        parts, crops = ({name: x.pin_memory() for name, x in made.items()} for made in (parts, crops))
        return parts, crops

    def check(parts: Batch, crops: Batch) -> None:
        check_close("normalised crops", with_parts(parts, crops), with_crops(parts, crops))

    return Case(
        candidate=with_parts,
        rivals={"crops of the CPU": with_crops},
        check=check,
        inputs=draw_both,
        method="events",
        items=batch,
        unit="images",
    )


for _size in SIZES:
    rows(f"b8-{_size}", group="micro", device="cpu", what=f"8 crops of {_size} out of 640x480, uint8")(
        partial(cpu_case, 8, _size)
    )
    rows(
        f"worker-{_size}",
        group="feed",
        device="cpu",
        what=f"a worker's share of 64 crops of {_size} out of 640x480",
    )(partial(worker_case, 64, _size))
for _size, _batch in (("256x192", 64), ("256x192", 128), ("384x288", 64)):
    _what = f"{_batch} crops of {_size} out of 640x480"
    rows(f"b{_batch}-{_size}", group="micro", device="cuda", what=f"{_what}, bfloat16")(
        partial(cuda_case, _batch, _size)
    )
    rows(f"padded-b{_batch}-{_size}", group="micro", device="cuda", what=f"{_what}, bilinear, bfloat16")(
        partial(padded_case, _batch, _size)
    )
    rows(f"feed-b{_batch}-{_size}", group="feed", device="cuda", what=f"{_what}, from the host's memory")(
        partial(feed_case, _batch, _size)
    )


@pytest.mark.parametrize("row", rows, ids=str)
def bench_warp(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
