"""Exported graphs: what they compute, for any batch, and what they say of themselves."""

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import shared_path
from export_stubs import SIZE, Bins, Classes, Given, Heatmaps, Queries, boxes, crops

from fastpose.infer.engines import open_graph
from fastpose.infer.export import run
from fastpose.infer.export.check import compare
from fastpose.infer.export.check_crops import check_crops
from fastpose.infer.export.run import export_model
from fastpose.infer.export.spec import KEY, spec_from_json, spec_of
from fastpose.infer.forward import ForwardOptions, forward_crops
from fastpose.infer.predictor import Predictor
from fastpose.nn.normalize import normalize_crops
from fastpose.ops import decode_heatmaps
from fastpose.reference.decode import flip_average


def session(path, *inputs):
    """Outputs of ONNX Runtime alone, by name."""
    run = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [node.name for node in run.get_inputs()]
    fed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    return {
        node.name: torch.from_numpy(x) for node, x in zip(run.get_outputs(), run.run(None, fed), strict=True)
    }


def expected(model, count, spec):
    """What `fastpose predict` would find."""
    options = ForwardOptions(
        torch.device("cpu"), spec.flip_index, spec.flip_test, spec.shift, spec.refine, spec.blur_kernel,
        cell_offset=spec.cell_offset, mean=spec.meta.mean, std=spec.meta.std,
    )  # fmt: skip
    return forward_crops(model, crops(count), *boxes(count), options)


DECODED = {
    "flip, quarter": (Heatmaps, {"flip_test": True}),
    "images, flip without shift, dark": (
        Heatmaps,
        {"takes": "images", "flip_test": True, "shift": False, "refine": "dark"},
    ),
    "udp": (lambda: Heatmaps("udp"), {"flip_test": True}),
    "half a cell on": (Heatmaps, {"cell_offset": 0.5}),
    "udp, half a cell on": (lambda: Heatmaps("udp"), {"cell_offset": 0.5, "refine": "none"}),
    "simcc": (Bins, {"flip_test": True}),
}


@pytest.mark.parametrize("case", DECODED)
def test_keypoints_in_the_image_are_those_of_prediction(case, tmp_path):
    make, options = DECODED[case]
    model = make()
    exported = export_model(model, tmp_path / "a.onnx", decode="image", **options)
    assert exported.agreement.joints > 40
    assert exported.agreement.moved == 0
    for count in (1, 5):
        pictures = crops(count)
        if exported.spec.takes == "images":
            pictures = normalize_crops(pictures, model.meta.mean, model.meta.std).contiguous()
        found = session(exported.path, pictures, *boxes(count))
        keypoints, score, valid = expected(model, count, exported.spec)
        assert list(found) == ["keypoints", "score", "valid"]
        torch.testing.assert_close(found["score"], score, rtol=1e-4, atol=1e-5)
        assert torch.equal(found["valid"], valid)
        near = (found["keypoints"] - keypoints).norm(dim=-1) < 0.01
        assert near.float().mean() > 0.95, "all but those on which rounding decides"


@pytest.mark.parametrize(
    ("codec", "offset", "strides"),
    [("msra", 0.0, (4, 4)), ("udp", 0.0, (47 / 11, 63 / 15)), ("msra", 0.5, (4, 4))],
    ids=["msra", "udp", "half a cell on"],
)
def test_keypoints_in_the_crop_are_cells_times_their_stride(codec, offset, strides, tmp_path):
    model = Heatmaps(codec)
    options = {"decode": "crop", "refine": "none", "cell_offset": offset}
    graph = open_graph(export_model(model, tmp_path / "a.pt2", **options).path)
    with torch.no_grad():
        maps = model(normalize_crops(crops(4), model.meta.mean, model.meta.std))[:, 1]
    cell = maps.flatten(2).argmax(-1)
    wanted = (torch.stack((cell % 12, cell // 12), -1) + offset) * torch.tensor(strides)
    near = (graph(crops(4))["keypoints"] - wanted).norm(dim=-1) < 1e-3
    assert near.float().mean() > 0.95, "all but those on which rounding decides"


def test_heatmaps_are_the_last_ones_averaged(tmp_path):
    model = Heatmaps()
    graph = open_graph(export_model(model, tmp_path / "a.pt2", flip_test=True).path)
    images = normalize_crops(crops(3), model.meta.mean, model.meta.std)
    with torch.no_grad():
        straight, mirrored = model(images)[:, 1], model(images.flip(3))[:, 1]
    order = torch.tensor(model.meta.keypoints.flip_index)
    found = graph(crops(3))
    assert list(found) == ["heatmaps"]
    torch.testing.assert_close(
        found["heatmaps"], flip_average(straight, mirrored, order), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("make", "names"),
    [(Queries, ["pred_logits", "pred_coords"]), (Bins, ["x", "y"]), (Classes, ["logits"])],
    ids=["queries", "bins", "classes"],
)
def test_other_outputs_have_their_own_names(make, names, tmp_path):
    model = make()
    graph = open_graph(export_model(model, tmp_path / "a.pt2", takes="images").path)
    images = torch.randn(3, 3, SIZE[1], SIZE[0])
    with torch.no_grad():
        wanted = model(images)
    wanted = [wanted[name] for name in names] if isinstance(wanted, dict) else wanted
    wanted = wanted if isinstance(wanted, list | tuple) else [wanted]
    found = graph(images)
    assert list(found) == names
    for name, want in zip(names, wanted, strict=True):
        torch.testing.assert_close(found[name], want, rtol=1e-4, atol=1e-5)


def awkward_maps():
    """Ties, borders, slopes of 0, no positive value, NaN and infinities, (8, 3, 9, 7)."""
    draw = torch.Generator().manual_seed(2)
    maps = torch.randint(0, 4, (8, 3, 9, 7), generator=draw).float()
    maps[1, 0] = 0
    maps[1, 1] = -1 - torch.rand(9, 7, generator=draw)
    maps[2, 0] = torch.nan
    maps[2, 1, 4, 3] = torch.inf
    maps[2, 2] = -torch.inf
    maps[3, 0, 3:6, 2:5] = torch.tensor([[0, torch.nan, 1], [5, 9, 6], [3, torch.inf, 2]])
    maps[3, 1, 0, 0] = maps[3, 2, 8, 6] = 7
    maps[4:6, :, 4, 3] = 8
    maps[6, :, 1, 4] = maps[7, :, 5, 1] = 8
    return maps


def test_decoding_inside_is_the_operation_bit_by_bit(tmp_path, monkeypatch):
    # The network's own check feeds pictures; here the maps are given.
    monkeypatch.setattr(run, "compare", lambda model, graph, batches: None)
    monkeypatch.setattr(run, "check_crops", lambda spec, pictures: [])
    maps = awkward_maps()
    path = export_model(Given(7, 9), tmp_path / "a.onnx", takes="images", decode="image").path
    center, scale = boxes(8)
    found = session(path, maps, center, scale)
    wanted = decode_heatmaps(maps, center, scale)
    assert torch.equal(found["valid"], wanted.valid)
    assert torch.equal(found["score"], wanted.score)
    assert torch.equal(found["keypoints"], wanted.keypoints)
    assert not wanted.valid.all()


def test_an_onnx_file_is_standard_and_says_what_it_is(tmp_path):
    model = Heatmaps()
    exported = export_model(model, tmp_path / "a.onnx", decode="image", flip_test=True)
    proto = onnx.load(exported.path)
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} == {""}
    assert not proto.functions
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]
    free = [
        value.type.tensor_type.shape.dim[0].dim_param for value in (*proto.graph.input, *proto.graph.output)
    ]
    assert free == ["batch"] * 6
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    record = {entry.key: entry.value for entry in proto.metadata_props}[KEY]
    spec = spec_from_json(record, "a.onnx")
    assert spec == spec_of(model, decode="image", flip_test=True)
    assert spec.meta == model.meta


def test_a_program_of_torch_is_read_back_with_its_record(tmp_path):
    model = Heatmaps()
    exported = export_model(model, tmp_path / "a.pt2", decode="crop", flip_test=True)
    graph = open_graph(exported.path)
    assert graph.engine == exported.engine == "torch.export"
    assert graph.spec == exported.spec == spec_of(model, decode="crop", flip_test=True)
    assert graph(crops(1))["keypoints"].shape == (1, 17, 2)
    assert compare(model, graph) == exported.agreement


@pytest.fixture
def photographs(tmp_path):
    """Twelve pictures of other sizes than the network's, blue at the left and red at the right."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(12):
        picture = np.zeros((60 + number, 90, 3), np.uint8)
        picture[:, :45, 0], picture[:, 45:, 2] = 200, 100 + number
        cv2.imwrite(str(folder / f"{number:02d}.png"), picture)
    return folder


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_pictures_are_cut_as_prediction_cuts_them(photographs, order):
    """Each as one person from edge to edge, in the network's channel order, spread over all of the folder."""
    model = Heatmaps(channel_order=order)
    (*ours, found) = check_crops(spec_of(model), photographs)
    assert [len(batch) for batch in ours] == [2, 3]
    assert found.shape == (8, 64, 48, 3)
    seen = []
    handle = model.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    Predictor(model, device="cpu", detector="whole", flip_test=False)(photographs)
    handle.remove()
    normal = normalize_crops(found, model.meta.mean, model.meta.std)
    assert torch.equal(normal[0], seen[0][0])
    assert torch.equal(normal[-1], seen[0][-1])
    red = found[:, 32, 40, 0 if order == "rgb" else 2]
    assert red.tolist() == sorted(set(red.tolist())), "another picture each"


def test_a_file_is_compared_on_pictures_too(photographs, tmp_path):
    model = Heatmaps()
    exported = export_model(model, tmp_path / "a.pt2", decode="crop", check_on=photographs)
    plain = export_model(model, tmp_path / "b.pt2", decode="crop").agreement
    assert (exported.agreement.pictures, exported.agreement.given) == (5, 8)
    assert exported.agreement.joints > plain.joints
    assert str(exported.agreement).endswith("over 5 random and rendered crops and 8 of pictures")
    assert str(plain).endswith("over 5 random and rendered crops")


def test_a_file_agrees_on_photographs(tmp_path):
    files = sorted(shared_path("data", "coco_sample", "images").rglob("*.jpg"))
    exported = export_model(
        Heatmaps(), tmp_path / "a.onnx", decode="image", flip_test=True, check_on=files
    ).agreement
    assert exported.given == min(len(files), 8) > 2
    assert exported.moved == 0 < exported.joints


@pytest.mark.slow  # a C++ compiler at work
def test_a_compiled_package_computes_the_same(tmp_path):
    model = Heatmaps()
    exported = export_model(model, tmp_path / "a.pt2", "compiled", decode="crop")
    graph = open_graph(exported.path)
    assert graph.engine == "AOTInductor"
    assert graph.spec == exported.spec
    for count in (1, 5):
        assert graph(crops(count))["keypoints"].shape == (count, 17, 2)
    assert compare(model, graph).moved == 0
