"""What keeps a wrong file from being written, and exports that are refused."""

import dataclasses
import sys

import cv2
import numpy as np
import onnx
import pytest
import torch
from export_stubs import Classes, Given, Heatmaps, Queries

from fastpose.errors import ConfigError, ExportError, ImageError
from fastpose.infer.engines import open_graph
from fastpose.infer.export.check import compare
from fastpose.infer.export.run import export_model


class Impostor(Heatmaps):
    """Heatmaps that are a little larger than they should be once they are traced."""

    by = 1.0 + 4e-3

    def forward(self, x):
        return super().forward(x) * (self.by if torch.compiler.is_compiling() else 1)


class Doubled(Impostor):
    """The same joints, of twice the score."""

    by = 2.0


class Inverted(Impostor):
    by = -1.0


class Sick(Impostor):
    by = float("nan")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (Impostor, {}), (Doubled, {"decode": "image"}), (Inverted, {"decode": "crop"}), (Sick, {}),
        (Sick, {"decode": "crop"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value.get("decode")),
)  # fmt: skip
def test_a_file_that_computes_something_else_is_not_written(model, options, tmp_path):
    path = tmp_path / "a.pt2"
    path.write_bytes(b"the file before")
    with pytest.raises(ExportError, match="does not compute the same"):
        export_model(model(), path, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt2"]
    assert path.read_bytes() == b"the file before"


def test_moved_joints_are_seen(tmp_path):
    """The same scores in other places."""
    model = Heatmaps()
    exported = export_model(model, tmp_path / "a.pt2", decode="crop", refine="none")
    graph = open_graph(exported.path)

    def elsewhere(inputs):
        keypoints, score, valid = graph.run(inputs)
        return keypoints + 4, score, valid

    with pytest.raises(ExportError, match=r"[1-9]\d* of \d+ joints moved"):
        compare(model, dataclasses.replace(graph, run=elsewhere))


def test_a_failed_check_of_onnx_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise onnx.checker.ValidationError("no such operator")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(ExportError, match="no such operator"):
        export_model(Heatmaps(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_remedy(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"{package} is not installed; pip install 'fastpose\[export\]'"):
        export_model(Heatmaps(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


BAD = {
    "suffix": ("a.bin", None, {}, "name the file .onnx or .pt2"),
    "other suffix": ("a.onnx", "program", {}, "suffix .pt2"),
    "format": ("a.onnx", "tflite", {}, "expected one of onnx, program, compiled"),
    "takes": ("a.onnx", None, {"takes": "bytes"}, "takes: expected 'crops' or 'images'"),
    "decode": ("a.onnx", None, {"decode": "world"}, "decode: expected 'crop', 'image' or None"),
    "refine": ("a.onnx", None, {"refine": "half"}, "refine: expected one of"),
    "blur_kernel": ("a.onnx", None, {"refine": "dark", "blur_kernel": 4}, "blur_kernel"),
    "flip_test": ("a.onnx", None, {"flip_test": 1}, "flip_test: expected true or false"),
}


@pytest.mark.parametrize("case", BAD)
def test_arguments_that_cannot_be(case, tmp_path):
    name, format, options, message = BAD[case]
    with pytest.raises(ConfigError, match=message):
        export_model(Heatmaps(), tmp_path / name, format, **options)


@pytest.mark.parametrize("options", [{"flip_test": True}, {"decode": "crop"}], ids=str)
@pytest.mark.parametrize("make", [Queries, Classes])
def test_what_makes_no_sense_inside_a_graph_is_refused(make, options, tmp_path):
    with pytest.raises(ConfigError, match=r"export (them )?without"):
        export_model(make(), tmp_path / "a.onnx", **options)


def test_unknown_sides_of_joints_stop_a_flip_test(tmp_path):
    with pytest.raises(ConfigError, match="do not say which of their 3 joints are left and right"):
        export_model(Given(8, 8), tmp_path / "a.onnx", flip_test=True)


def test_a_network_that_cannot_be_traced_is_an_error_of_the_export(tmp_path):
    class Shy(Heatmaps):
        def forward(self, x):
            return super().forward(x) if x.sum().item() > 0 else super().forward(x) * 2

    with pytest.raises(ExportError, match=r"torch\.export cannot trace it"):
        export_model(Shy(), tmp_path / "a.onnx")


def test_the_network_is_left_as_it_was(tmp_path):
    model = Heatmaps().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_model(model, tmp_path / "a.pt2")
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert np.all([p.requires_grad for p in model.parameters()])


class DarkAware(Heatmaps):
    """Another thing once it is traced, but only for crops that are black at the left, as no usual one is."""

    def forward(self, x):
        heatmaps = super().forward(x)
        black = (x[:, :, :, :8].amax(dim=(1, 2, 3)) < -1).to(x.dtype)[:, None, None, None, None]
        return heatmaps + black * (5.0 if torch.compiler.is_compiling() else 0.0)


def test_what_only_a_picture_shows_is_refused(tmp_path):
    picture = tmp_path / "dark.png"
    cv2.imwrite(str(picture), np.zeros((64, 48, 3), np.uint8))
    export_model(DarkAware(), tmp_path / "a.pt2")
    with pytest.raises(ExportError, match="does not compute the same"):
        export_model(DarkAware(), tmp_path / "b.pt2", check_on=picture)
    assert not (tmp_path / "b.pt2").exists()


@pytest.mark.parametrize("given", ["nowhere", "broken.png", "notes.txt"])
def test_pictures_that_cannot_be_read_are_named_before_any_work(given, tmp_path, monkeypatch):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    (tmp_path / "notes.txt").write_text("nothing")
    monkeypatch.setattr("fastpose.infer.export.run.trace", None)
    with pytest.raises(ImageError, match=given):
        export_model(Heatmaps(), tmp_path / "out" / "a.pt2", check_on=tmp_path / given)
    assert not (tmp_path / "out").exists()
