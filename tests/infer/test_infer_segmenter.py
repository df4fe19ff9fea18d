"""One line from a source to label maps: pixels, order, windows, files, and what is refused."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from segmentation_stubs import PAINTS, Paints, painted, paints, registered_paints, some_labels
from torch import nn

import fastpose
from fastpose.classes import CITYSCAPES_19, VOC_21, ClassSet
from fastpose.data.segmentation_png import decode_labels
from fastpose.errors import CheckpointError, ConfigError, DataError, ImageError, OutputError
from fastpose.infer import segmentation_forward
from fastpose.infer.predictor import Predictor
from fastpose.infer.segmentation_forward import class_probabilities, window_size
from fastpose.infer.segmentation_predictor import Segmenter
from fastpose.models import create_model, save_weights

__all__ = ["registered_paints"]

CPU = torch.device("cpu")


def segmenter(**more) -> Segmenter:
    return Segmenter(paints(classes=PAINTS), **{"device": "cpu", "flip_test": False, **more})


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), painted(some_labels()))
    return path


@pytest.mark.parametrize("flip", [False, True], ids=["straight", "flip"])
def test_every_pixel_gets_the_class_that_it_shows(photo, flip):
    wanted = some_labels()
    (result,) = segmenter(flip_test=flip)(photo)
    np.testing.assert_array_equal(result.labels, wanted)
    assert result.labels.dtype == np.uint8
    assert (result.name, result.path, result.index, result.error) == (str(photo), photo, 0, None)
    assert result.orig_shape == wanted.shape
    assert result.names == PAINTS.names
    assert result.probabilities is None
    assert set(result.speed) == {"read", "forward"}


def test_channels_go_in_in_the_order_of_the_weights():
    model = paints(classes=PAINTS, channel_order="bgr")
    (result,) = Segmenter(model, device="cpu")(painted(some_labels()))
    swapped = np.array([0, 3, 2, 1], np.uint8)  # it calls the first channel red
    np.testing.assert_array_equal(result.labels, swapped[some_labels()])


class Sloped(Paints):
    """Sees more red to the right of its input, so that mirror images and windows matter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        slope = torch.linspace(0, 4, x.shape[3])
        return super().forward(x) + slope * torch.tensor([0.0, 1, 0, 0])[:, None, None]


PASSES = {
    "flip_test": {"flip_test": True},
    "scales": {"scales": (0.5, 1.0)},
    "window": {"window": (16, 12)},
    "stride_rate": {"window": (16, 12), "stride_rate": 0.5},
    "average": {"window": (16, 12), "average": "exp"},
}


@pytest.mark.parametrize("asked", PASSES)
def test_probabilities_are_those_of_the_asked_passes(asked):
    network = Sloped(paints(classes=PAINTS).meta)
    image = np.random.default_rng(1).integers(0, 255, (30, 41, 3), np.uint8)
    rgb = torch.from_numpy(image[..., ::-1].copy())[None]

    def probabilities(flip_test: bool = False, **options: object) -> np.ndarray:
        return class_probabilities(network, rgb, device=CPU, flip=flip_test, **options)[0].numpy()

    options = {"flip_test": False, **PASSES[asked]}
    (result,) = Segmenter(network, device="cpu", probabilities=True, **options)(image)
    np.testing.assert_array_equal(result.probabilities, probabilities(**options))
    np.testing.assert_array_equal(result.labels, result.probabilities.argmax(0))
    without = {key: value for key, value in options.items() if key != asked}
    assert abs(result.probabilities - probabilities(**without)).max() > 0.01


@pytest.mark.parametrize("workers", [0, 3])
def test_many_pictures_come_in_order_with_the_reason_for_those_that_are_broken(tmp_path, workers):
    labels = [some_labels(20 + i, 30 - i, i) for i in range(9)]
    paths = []
    for i, each in enumerate(labels):
        paths.append(tmp_path / f"{i}.png")
        cv2.imwrite(str(paths[-1]), painted(each))
    paths[4].write_bytes(b"no picture")
    for stream in (False, True):
        results = list(segmenter(workers=workers)(paths, stream=stream))
        assert [result.index for result in results] == list(range(9))
        assert isinstance(results[4].error, ImageError)
        assert results[4].labels.shape == (0, 0)
        for i in (0, 1, 2, 3, 5, 6, 7, 8):
            np.testing.assert_array_equal(results[i].labels, labels[i])
            np.testing.assert_array_equal(results[i].image, painted(labels[i]))
    with pytest.raises(ImageError, match=r"4\.png: not an image"):
        results[4].plot()
    with pytest.raises(ImageError, match=r"4\.png: not an image"):
        results[4].save_labels(tmp_path / "never.png")


def test_a_generator_may_use_its_array_again():
    def frames():
        frame = np.empty((30, 40, 3), np.uint8)
        for seed in range(4):
            frame[:] = painted(some_labels(seed=seed))
            yield frame

    for seed, result in enumerate(segmenter(workers=2)(frames(), stream=True)):
        np.testing.assert_array_equal(result.labels, some_labels(seed=seed))


def test_pictures_stand_upright_unless_told_otherwise(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    image = Image.fromarray(painted(some_labels())[..., ::-1])
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    (up,) = segmenter()(tmp_path / "turned.png")
    np.testing.assert_array_equal(up.labels, np.rot90(some_labels(), -1))
    (stored,) = segmenter(upright=False)(tmp_path / "turned.png")
    np.testing.assert_array_equal(stored.labels, some_labels())


def test_a_picture_alone_raises_its_error(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        segmenter()(tmp_path / "broken.jpg")
    with pytest.raises(DataError, match="expected a path"):
        segmenter()({"photo.jpg": 1})
    with pytest.raises(DataError, match="camera 0 never ends"):
        segmenter()(0)


@pytest.mark.parametrize(
    ("picture", "window"),
    [((2048, 1024), (2048, 1024)), ((2049, 1024), (1024, 1024)), ((9000, 500), (1024, 500))],
    ids=["just whole", "in windows", "a strip"],
)
def test_window_of_large_pictures(picture, window):
    assert window_size("auto", picture) == window
    assert window_size(None, picture) == picture
    assert window_size((4000, 300), picture) == (min(4000, picture[0]), 300)


def test_window_is_not_smaller_than_a_training_crop():
    assert window_size("auto", (4000, 3000), (1536, 768)) == (1536, 1024)


def test_large_pictures_go_through_in_windows_and_others_whole(monkeypatch):
    monkeypatch.setattr(segmentation_forward, "WHOLE_PIXELS", 1200)
    monkeypatch.setattr(segmentation_forward, "WINDOW_SIDE", 16)
    monkeypatch.setattr(segmentation_forward, "PASS_PIXELS", 600)
    network = paints(classes=PAINTS, input_size=(8, 20))
    predict = Segmenter(network, device="cpu", flip_test=False)
    large = some_labels(90, 70)
    whole, windows = predict([painted(some_labels(40, 30)), painted(large)])
    assert network.sizes[0] == (1, 3, 30, 40)
    assert {size[2:] for size in network.sizes[1:]} == {(20, 16)}
    assert max(size[0] for size in network.sizes) == 1  # two of them are more than a pass
    np.testing.assert_array_equal(windows.labels, large)
    np.testing.assert_array_equal(whole.labels, some_labels(40, 30))


def test_summary_counts_pixels(photo):
    (result,) = segmenter()(photo)
    labels, counts = np.unique(some_labels(), return_counts=True)
    wanted = sorted(zip(labels.tolist(), counts.tolist(), strict=True), key=lambda row: -row[1])
    rows = result.summary()
    assert [(row["label"], row["pixels"]) for row in rows] == wanted
    assert [row["name"] for row in rows] == [PAINTS.names[label] for label, _ in wanted]
    assert [row["share"] for row in rows] == [count / 1200 for _, count in wanted]
    record = json.loads(result.to_json())
    assert (record["width"], record["height"], record["classes"], record["error"]) == (40, 30, rows, None)


def test_plot_has_a_legend_of_what_occurs_below_the_picture():
    labels = np.zeros((60, 80), np.uint8)
    labels[10:30, 10:40] = 2
    (result,) = segmenter()(painted(labels))
    drawn, bare = result.plot(), result.plot(legend=False)
    assert bare.shape == (60, 80, 3)
    np.testing.assert_array_equal(drawn[:60], bare)
    legend = drawn[60:].reshape(-1, 3).tolist()
    assert [0, 255, 0] in legend
    assert [0, 0, 255] not in legend
    (empty,) = segmenter()(np.zeros((20, 20, 3), np.uint8))
    np.testing.assert_array_equal(empty.plot(), np.zeros((20, 20, 3)))
    grey = result.plot(np.full((60, 80, 3), 128, np.uint8), alpha=1.0, legend=False)
    assert grey[20, 25].tolist() == [0, 255, 0]
    assert grey[50, 70].tolist() == [128, 128, 128]


def test_files_of_a_result(photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (result,) = segmenter()(photo)
    assert (str(result.save()), str(result.save_labels())) == ("photo_classes.png", "photo_labels.png")
    np.testing.assert_array_equal(cv2.imread("photo_classes.png"), result.plot())
    data = (tmp_path / "photo_labels.png").read_bytes()
    np.testing.assert_array_equal(decode_labels(data, "labels", PAINTS), some_labels())
    np.testing.assert_array_equal(cv2.imread("photo_labels.png"), painted(some_labels()))  # the palette
    for path, message in (
        (photo, "is the picture that was read"),
        ("labels.jpg", r"labels\.jpg: labels are"),
    ):
        with pytest.raises(OutputError, match=message):
            result.save_labels(path)
    with pytest.raises(OutputError, match="is the picture that was read"):
        result.save(photo)


def test_a_file_names_its_network_and_classes(registered_paints, photo, tmp_path):
    save_weights(paints(classes=PAINTS), tmp_path / "best.safetensors")
    for model in (tmp_path, tmp_path / "best.safetensors"):
        predict = Segmenter(model, device="cpu")
        assert predict.classes == PAINTS
        np.testing.assert_array_equal(predict(photo)[0].labels, some_labels())
    named = Segmenter("paints", weights=tmp_path, device="cpu", channel_order="bgr")
    assert (named.classes, named.meta.channel_order) == (PAINTS, "bgr")


@pytest.mark.parametrize(
    ("count", "names"),
    [(19, CITYSCAPES_19.names), (21, VOC_21.names), (5, tuple(f"class {i}" for i in range(5)))],
    ids=["cityscapes", "voc", "numbered"],
)
def test_a_file_without_names_has_the_classes_of_its_number(
    registered_paints, tmp_path, count, names, caplog
):
    torch.save(paints(count).state_dict(), tmp_path / "official.pth")
    with caplog.at_level("INFO", logger="fastpose"):
        predict = Segmenter("paints", weights=tmp_path / "official.pth", device="cpu")
    assert predict.classes.names == names
    assert f"paints: {count} classes without names" in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": VOC_21}, CheckpointError, "official.pth: has 19 classes, and the set 'voc21' names 21"),
        ({"num_classes": 19}, ConfigError, "num_classes: the weights have their own number; leave it out"),
        ({"classes": 19}, ConfigError, "classes: expected a fastpose.classes.ClassSet, got int"),
    ],
    ids=["other classes", "their number", "no classes"],
)
def test_classes_that_the_file_does_not_have(registered_paints, tmp_path, options, error, message):
    torch.save(paints(19).state_dict(), tmp_path / "official.pth")
    with pytest.raises(error) as caught:
        Segmenter("paints", weights=tmp_path / "official.pth", **options)
    assert message in str(caught.value)
    fitting = ClassSet("own", tuple(f"kind {i}" for i in range(19)), CITYSCAPES_19.colors)
    for remedy, names in (({}, CITYSCAPES_19.names), ({"classes": fitting}, fitting.names)):
        assert Segmenter("paints", weights=tmp_path / "official.pth", **remedy).classes.names == names


def test_the_folded_copy_computes_the_same(tmp_path):
    model = create_model("hrnet_seg_w18_small_v1", 4, classes=PAINTS)
    model.reset_parameters("kaiming")
    draw = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5, generator=draw)
            module.running_var.uniform_(0.5, 2.0, generator=draw)
    nn.init.normal_(model.last_layer[-1].weight, std=0.01, generator=draw)
    save_weights(model, tmp_path / "best.safetensors")
    image = np.random.default_rng(0).integers(0, 255, (48, 70, 3), np.uint8)
    options = {"device": "cpu", "probabilities": True}
    (given,) = Segmenter(model, **options)(image)
    read = Segmenter(tmp_path, **options)
    assert not [module for module in read.model.modules() if isinstance(module, nn.BatchNorm2d)]
    (folded,) = read(image)
    np.testing.assert_allclose(folded.probabilities, given.probabilities, atol=2e-5)
    assert 0.2 < given.probabilities.max(0).mean() < 0.9, "neither all alike nor all sure"
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    (half,) = Segmenter(tmp_path, amp="bf16", **options)(image)
    assert half.probabilities.dtype == np.float32
    assert 0 < abs(half.probabilities - given.probabilities).max() < 0.1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"model": "hrnet_w32", "weights": "x"},
            ConfigError,
            "a pose network, which fastpose.Predictor runs",
        ),
        ({"model": "hrnet_seg_w48"}, ConfigError, "hrnet_seg_w48: an untrained network finds nothing"),
        ({"model": "hrnet_sag_w48", "weights": "x"}, ConfigError, "did you mean 'hrnet_seg_w48'"),
        ({"model": "gone.safetensors"}, CheckpointError, "gone.safetensors: no such file"),
        ({"model": "net.onnx"}, ConfigError, "net.onnx: an exported network"),
        ({"model": "hrnet_seg_w48", "weights": "net.pt2"}, ConfigError, "net.pt2: an exported network"),
        ({"average": "mean"}, ConfigError, "average must be 'softmax' or 'exp', got 'mean'"),
        ({"model": nn.Linear(1, 1)}, ConfigError, "expected a segmentation network of fastpose.models"),
        ({"classes": PAINTS}, ConfigError, "classes: only with the name of a model"),
        ({"flip_test": "no"}, ConfigError, "flip_test: expected True or False, got 'no'"),
        ({"probabilities": 1}, ConfigError, "probabilities: expected True or False, got 1"),
        ({"scales": []}, ConfigError, "scales must be one or more numbers"),
        ({"window": (0, 8)}, ConfigError, "window must be (width, height)"),
        ({"stride_rate": 0}, ConfigError, "stride_rate must be above 0"),
        ({"device": "tpu"}, ConfigError, "device 'tpu'"),
        ({"device": None}, ConfigError, "device: expected auto"),
        ({"amp": "fp8"}, ConfigError, "amp='fp8'"),
        ({"workers": -1}, ConfigError, "workers: expected 'auto' or a whole number"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_refusals(arguments, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        Segmenter(**{"model": paints(), **arguments})
    assert message in str(caught.value)


def test_a_checkpoint_that_says_nothing_is_to_be_named(tmp_path):
    torch.save({}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"name it, as in Segmenter\('hrnet_seg_w48', weights="):
        Segmenter(tmp_path / "w.pth")


def test_each_kind_of_network_names_the_class_that_runs_it(registered_paints, tmp_path):
    save_weights(paints(), tmp_path / "best.safetensors")
    for arguments in ((paints(),), (tmp_path,)):
        with pytest.raises(ConfigError, match=r"paints, for segmentation, which fastpose\.Segmenter runs"):
            Predictor(*arguments)
    with pytest.raises(ConfigError, match=r"a segmentation network, which fastpose\.Segmenter runs"):
        Predictor("paints", weights=tmp_path)
    with pytest.raises(ConfigError, match=r"hrnet_w18_small, for pose, which fastpose\.Predictor runs"):
        Segmenter(create_model("hrnet_w18_small"))


def test_it_is_at_the_top_of_the_package():
    assert fastpose.Segmenter is Segmenter
    assert fastpose.SegmentationResult.__module__ == "fastpose.infer.segmentation_result"
