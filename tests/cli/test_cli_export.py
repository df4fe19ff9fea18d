"""`fastpose export`: what it writes and says, what predict does with the file, and how it ends on errors."""

import json

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from fastpose.cli import main
from fastpose.infer.engines import open_graph
from fastpose.keypoints import COCO_17
from fastpose.models import ModelMeta, PoseModel, create_model, load_weights, registry, save_weights
from fastpose.models.sizes import check_images


class Small(PoseModel):
    """A network that is exported in a second."""

    def __init__(self, meta):
        super().__init__(meta)
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.final_layer = nn.Conv2d(8, meta.num_joints, 3, padding=1)

    def forward(self, x):
        check_images("Small", x, 8)
        return self.final_layer(self.trunk(x))


def small(num_joints=17, *, weights=None, **options):
    model = Small(ModelMeta("small", num_joints).with_options(options))
    if weights is not None:
        load_weights(model, weights)
    return model


@pytest.fixture(scope="module", autouse=True)
def _registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._factories, "small", small)
        patch.setitem(registry._tasks, "small", ModelMeta.task)
        yield


@pytest.fixture(scope="module")
def weights(_registered, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    save_weights(small(input_size=(32, 32), keypoints=COCO_17), folder / "best.safetensors")
    return folder


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "pose.onnx"
    assert main(["export", str(weights), "--out", str(path)]) == 0
    return path


def test_it_says_what_the_file_takes_and_how_near_it_is(weights, tmp_path, capsys):
    path = tmp_path / "new" / "pose.pt2"
    assert main(["export", str(weights), "--out", str(path), "--decode", "image", "--flip-test"]) == 0
    said = capsys.readouterr().out
    assert "takes crops, center, scale (32x32, rgb), gives keypoints, score, valid" in said
    assert "torch.export against the network: largest difference" in said
    assert "0 of " in said
    assert f"wrote {path}" in said
    spec = open_graph(path).spec
    assert (spec.decode, spec.flip_test, spec.refine, spec.shift) == ("image", True, "quarter", True)


def test_the_options_reach_the_graph(weights, tmp_path):
    path = tmp_path / "pose.pt2"
    words = ["--input", "images", "--input-size", "64x32", "--decode", "crop", "--refine", "dark"]
    words += ["--blur-kernel", "17", "--flip-test", "--no-shift"]
    assert main(["export", str(weights), "--out", str(path), *words]) == 0
    spec = open_graph(path).spec
    assert (spec.takes, spec.decode, spec.refine, spec.blur_kernel) == ("images", "crop", "dark", 17)
    assert (spec.meta.input_size, spec.flip_test, spec.shift) == ((64, 32), True, False)


def test_an_official_checkpoint_is_exported_by_its_configuration(tmp_path):
    network = create_model("hrnet_seg_w18_small_v1", 5)
    network.reset_parameters("kaiming")
    path = tmp_path / "official.pth"
    torch.save(network.state_dict(), path)
    config = "cityscapes/hrnet_seg_w18_small_v1_1024x512"
    words = ["--config", config, "--input-size", "40x32", "--out", str(tmp_path / "seg.pt2")]
    assert main(["export", str(path), *words]) == 0
    graph = open_graph(tmp_path / "seg.pt2")
    assert (graph.spec.meta.num_classes, graph.spec.outputs) == (5, ("logits",))
    assert graph(torch.zeros(2, 32, 40, 3, dtype=torch.uint8))["logits"].shape == (2, 5, 8, 10)


def test_predict_takes_the_file_in_the_place_of_weights(weights, exported, tmp_path, capsys):
    picture = np.random.default_rng(0).integers(0, 255, (60, 50, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    rows = {}
    for name, source in (("network", weights), ("onnx", exported)):
        argv = ["predict", str(source), str(tmp_path / "a.png"), "--out", str(tmp_path / name)]
        assert main([*argv, "--device", "cpu"]) == 0
        rows[name] = json.loads((tmp_path / name / "predictions.json").read_text())
    assert "small, crops 32x32 rgb, ONNX Runtime" in capsys.readouterr().out
    one, other = (np.array(rows[name][0]["keypoints"]).reshape(-1, 3) for name in ("network", "onnx"))
    assert len(rows["onnx"]) == len(rows["network"]) == 1
    near = np.linalg.norm(one[:, :2] - other[:, :2], axis=1) < 0.1
    assert near.mean() > 0.9, "all but those on which rounding decides"
    np.testing.assert_allclose(one[:, 2], other[:, 2], rtol=1e-3)


def test_engine_chooses_who_runs_the_file(exported, weights, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 40, 3), np.uint8))
    words = [str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--engine"]
    assert main(["predict", str(exported), *words, "torch"]) == 2
    assert "engine torch does not run .onnx files" in capsys.readouterr().err
    assert main(["predict", str(weights), *words, "onnx"]) == 2
    assert "fastpose export" in capsys.readouterr().err
    assert main(["predict", str(exported), *words, "onnx"]) == 0


ERRORS = {
    "suffix": (["--out", "pose.bin"], "name the file .onnx or .pt2"),
    "suffix of another format": (["--out", "pose.onnx", "--format", "compiled"], "has the suffix .pt2"),
    "size": (["--out", "pose.pt2", "--input-size", "33x32"], "multiple of 8"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_end_with_exit_code_2_and_no_file(case, weights, tmp_path, monkeypatch, capsys):
    words, message = ERRORS[case]
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(weights), *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_there_or_do_not_say(tmp_path, capsys):
    assert main(["export", str(tmp_path / "no.safetensors")]) == 2
    assert "no such file" in capsys.readouterr().err
    torch.save({}, tmp_path / "w.pth")
    assert main(["export", str(tmp_path / "w.pth")]) == 2
    assert "--config" in capsys.readouterr().err
    (tmp_path / "w.onnx").write_bytes(b"not read")
    assert main(["export", str(tmp_path / "w.onnx")]) == 2
    assert "w.onnx: is exported already" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["export", "w", "--input-size", "12by3"])
    assert stopped.value.code == 2
    assert "expected WIDTHxHEIGHT" in capsys.readouterr().err


def test_a_failed_export_leaves_the_file_that_was_there(weights, exported, tmp_path, monkeypatch, capsys):
    path = tmp_path / "pose.onnx"
    path.write_bytes(b"before")

    def refuse(*args, **kwargs):
        raise onnx.checker.ValidationError("no such operator")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    assert main(["export", str(weights), "--out", str(path)]) == 2
    assert "no such operator" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["pose.onnx"]
    assert path.read_bytes() == b"before"


def test_pictures_for_the_check(weights, tmp_path, capsys):
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((40, 50, 3), 90, np.uint8))
    path = tmp_path / "pose.pt2"
    words = ["export", str(weights), "--out", str(path), "--check-on"]
    assert main([*words, str(tmp_path / "a.png"), str(tmp_path / "b.png")]) == 0
    assert "over 5 random and rendered crops and 2 of pictures" in capsys.readouterr().out
    assert main([*words, str(tmp_path / "none.png")]) == 2
    assert "none.png: no such file or folder" in capsys.readouterr().err
