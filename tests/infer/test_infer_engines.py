"""Exported files in the place of networks: each way through them finds what the network finds."""

import importlib.util
import sys

import onnx
import pytest
import torch
from export_stubs import SIZE, Bins, Classes, Heatmaps, Queries, boxes, crops

from fastpose.errors import CheckpointError, ConfigError, ExportError
from fastpose.infer import network_in, predictor_options
from fastpose.infer.engines import load_engine, open_graph
from fastpose.infer.export.run import export_model
from fastpose.infer.export.spec import KEY
from fastpose.infer.forward import ForwardOptions, forward_crops
from fastpose.infer.predictor import Predictor

FORMS = {
    "heatmaps": (Heatmaps, {}),
    "images": (Heatmaps, {"takes": "images"}),
    "flip inside": (Heatmaps, {"flip_test": True}),
    "crop": (Heatmaps, {"flip_test": True, "decode": "crop"}),
    "crop, udp": (lambda: Heatmaps("udp"), {"flip_test": True, "decode": "crop"}),
    "image": (Heatmaps, {"flip_test": True, "decode": "image"}),
    "queries": (Queries, {}),
    "bins": (Bins, {}),
    "bins, crop": (Bins, {"flip_test": True, "decode": "crop"}),
}


def options(spec, **more) -> ForwardOptions:
    given = {"shift": spec.shift, "refine": spec.refine, "mean": spec.meta.mean, "std": spec.meta.std, **more}
    return ForwardOptions(torch.device("cpu"), spec.meta.keypoints.flip_index, **given)


@pytest.mark.parametrize("form", FORMS)
def test_an_engine_finds_what_the_network_finds(form, tmp_path):
    make, inside = FORMS[form]
    model = make()
    engine = load_engine(export_model(model, tmp_path / "a.pt2", **inside).path)
    assert engine.meta == model.meta
    assert engine.output == model.output
    how = options(engine.spec)
    found = forward_crops(engine, crops(5), *boxes(5), how)
    wanted = forward_crops(model, crops(5), *boxes(5), how)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-4, atol=1e-5)
    near = (found[0] - wanted[0]).norm(dim=-1) < 0.01
    assert near.float().mean() > 0.95, "all but those on which rounding decides"
    assert torch.equal(found[2], wanted[2])


@pytest.fixture(scope="module")
def decoding(tmp_path_factory):
    path = tmp_path_factory.mktemp("engines") / "decoding.onnx"
    return export_model(Heatmaps(), path, flip_test=True, decode="image").path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return export_model(Heatmaps(), tmp_path_factory.mktemp("engines") / "plain.onnx").path


@pytest.mark.parametrize(
    "wrong", [{"flip_test": False}, {"shift": False}, {"refine": "dark"}, {"cell_offset": 0.5}], ids=str
)
def test_what_the_graph_does_cannot_be_had_otherwise(wrong, decoding):
    engine = load_engine(decoding)
    (name, value), *_ = wrong.items()
    with pytest.raises(ConfigError, match=f"exported with {name}=.* inside, which is not {value}"):
        forward_crops(engine, crops(1), *boxes(1), options(engine.spec, **wrong))
    with pytest.raises(ConfigError, match="finds keypoints itself"):
        engine(crops(1))


def test_a_predictor_takes_a_file_and_needs_no_other(plain, decoding, monkeypatch):
    picture = crops(1)[0].numpy()
    model = Predictor(Heatmaps(), device="cpu", detector="whole")(picture)[0]
    for path in (plain, decoding):
        engine = Predictor(path, device="cpu", detector="whole")
        assert engine.meta.input_size == SIZE
        found = engine(picture)[0]
        near = abs(found.keypoints.xy - model.keypoints.xy).max(-1) < 0.01
        assert near.mean() > 0.9, "all but those on which rounding decides"
        with pytest.raises(ConfigError, match="blur_kernel=17: belongs to dark"):
            Predictor(path, device="cpu", blur_kernel=17)
    for module in (network_in, predictor_options):  # as if there were a GPU
        monkeypatch.setattr(module, "pick_device", torch.device)
    with pytest.raises(ConfigError, match="runs on the CPU; give device='cpu'"):
        Predictor(plain, device="cuda")
    with pytest.raises(ConfigError, match="was exported with flip_test=True inside"):
        Predictor(decoding, device="cpu", flip_test=False)


def foreign(folder):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [value], [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "a.onnx")
    return folder / "a.onnx"


def spoilt_record(folder):
    path = foreign(folder)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {KEY: '{"meta": {"task": "pose"}, "network": "heatmaps"}'})
    onnx.save(model, path)
    return path


def written(name, data):
    def write(folder):
        (folder / name).write_bytes(data)
        return folder / name

    return write


FILES = {
    "nothing there": (lambda folder: folder / "a.onnx", "no such file"),
    "another suffix": (written("a.bin", b"x"), "end with .onnx or .pt2"),
    "no onnx": (written("a.onnx", b"not a protobuf"), "cannot be opened"),
    "no zip": (written("a.pt2", b"not a zip"), "not a .pt2 file"),
    "of somebody else": (foreign, "was not written by `fastpose export`"),
    "spoilt record": (spoilt_record, "its record cannot be read"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_cannot_be_used(case, tmp_path):
    make, message = FILES[case]
    with pytest.raises(CheckpointError, match=message):
        open_graph(make(tmp_path))


def test_a_zip_of_somebody_else(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(CheckpointError, match="cannot be opened"):
        open_graph(tmp_path / "a.pt2")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"engine": "tensorrt"}, "expected one of onnx, openvino, torch"),
        ({"engine": "torch"}, "engine torch does not run .onnx files"),
        ({"precision": "bfloat16"}, "onnx runs float32"),
        ({"engine": "openvino", "precision": "int8"}, "got 'int8'"),
    ],
    ids=str,
)
def test_engines_that_cannot_be(more, message, plain):
    with pytest.raises(ConfigError, match=message):
        open_graph(plain, **more)


def test_a_segmentation_graph_opens_but_finds_no_poses(tmp_path):
    path = export_model(Classes(), tmp_path / "a.pt2").path
    assert open_graph(path)(crops(2))["logits"].shape == (2, 5, 16, 12)
    with pytest.raises(CheckpointError, match="a segmentation network, not one for poses"):
        load_engine(path)


def test_a_missing_engine_is_named_with_its_remedy(plain, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExportError, match="openvino is not installed; pip install openvino"):
        open_graph(plain, "openvino")


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 3e-2)])
def test_openvino_runs_the_same_file(precision, tolerance, plain, decoding):
    for path, inputs in ((plain, ()), (decoding, boxes(3))):
        found = open_graph(path, "openvino", precision)(crops(3), *inputs)
        wanted = open_graph(path)(crops(3), *inputs)
        name = "score" if inputs else "heatmaps"
        apart = (found[name] - wanted[name]).abs().max() / wanted[name].abs().max()
        assert apart < tolerance
