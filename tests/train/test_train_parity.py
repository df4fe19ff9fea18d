"""What `fastpose parity` says of a checkpoint."""

import pytest
import torch

from fastpose.classes import BODY_PARTS
from fastpose.cli import main
from fastpose.models import create_model, load_weights, save_weights
from fastpose.train import parity
from fastpose.train.parity import compare_forward, compare_names

CPU = torch.device("cpu")
SMALL = {"hrnet_w18_small": (64, 64), "hrnet_seg_w18_small_v1": (64, 64)}


@pytest.fixture(autouse=True)
def _one_crop(monkeypatch):
    monkeypatch.setattr(parity.figure_crops, "__defaults__", (1,))


def made(name, tmp_path, **extra):
    model = create_model(name, input_size=SMALL[name])
    model.reset_parameters("kaiming")
    path = tmp_path / "official.pth"
    torch.save(model.state_dict() | extra, path)
    return model, path


@pytest.mark.parametrize("name", SMALL)
def test_own_checkpoint_fits_and_computes_what_plain_pytorch_does(name, tmp_path):
    model, path = made(name, tmp_path)
    load_weights(model, path)
    names = compare_names(model, path)
    assert names.matched == names.file_tensors == len(model.state_dict())
    assert names.parameters == sum(p.numel() for p in model.parameters())
    rows = {row.way: row for row in compare_forward(model, CPU)}
    assert rows["float32, plain PyTorch"].relative < 1e-5
    assert rows["float32, channels_last and kernels"].relative < 1e-5
    assert rows["float32, pixels fed as BGR"].relative > 1e-2


def test_classes_are_compared_place_by_place():
    truth = torch.zeros(1, 3, 2, 2)
    truth[0, 1] = 1.0
    got = truth.clone()
    got[0, 2, 0, 0] = 2.0  # another class at one of four places, and one of three maps has another peak
    assert parity._difference("", got, truth, True).moved == 0.25
    got = truth + torch.tensor([0.0, 0.5, 0.0, 0.0]).reshape(1, 1, 2, 2)
    assert parity._difference("", got, truth, True).moved == 0.0
    assert parity._difference("", got, truth, False).moved == 1.0


def test_a_changed_weight_shows(tmp_path):
    model, _ = made("hrnet_w18_small", tmp_path)
    before = parity._run(model.eval(), torch.ones(1, 3, 64, 64))
    with torch.no_grad():
        model.layer1[0].conv1.weight[0] += 0.5
    assert parity._difference("", parity._run(model, torch.ones(1, 3, 64, 64)), before, False).relative > 1e-3


def test_verb_prints_names_feeding_and_differences(tmp_path, capsys):
    _, path = made("hrnet_seg_w18_small_v1", tmp_path)
    assert main(["parity", "hrnet_seg_w18_small_v1", str(path)]) == 0
    text = capsys.readouterr().out
    assert "hrnet_seg_w18_small_v1 with 19 classes" in text
    assert "435 of 435 tensors fit in name and shape" in text
    assert "classes moved" in text


def test_verb_scores_in_every_convention(tmp_path, capsys):
    model = create_model("hrnet_seg_w18_small_v1", BODY_PARTS.num_classes)
    path = tmp_path / "weights.pth"
    torch.save(model.state_dict(), path)
    settings = ["data.figures.val_count=1", "data.figures.image_size=[64, 64]", "data.workers=0"]
    assert main(["parity", "samples/figures_segmentation", str(path), "--data", *settings]) == 0
    _, scores = capsys.readouterr().out.split("in every convention:")
    titles = [line.split(": 1 picture")[0] for line in scores.splitlines() if ": 1 picture" in line]
    assert titles == [
        "as configured", "align_corners true", "one scale with flip test", "several scales without flip test",
        "several scales with flip test", "pixels fed as BGR",
    ]  # fmt: skip
    official = "scales 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, mean of exp(logits), amp none, with flip test"
    assert official in scores
    assert scores.count("mIoU") == len(titles)


@pytest.mark.parametrize(
    ("model", "made_for", "suffix", "message"),
    [
        ("hrnet_w18_small", "hrnet_seg_w18_small_v1", "pth", "does not fit hrnet_w18_small with 17 joints"),
        ("hrnet_w18_small", "hrnet_seg_w18_small_v1", "safetensors", "not hrnet_w18_small with 17 joints"),
        ("hrnet_seg_w18_small_v1", "hrnet_w18_small", "pth", "does not fit hrnet_seg_w18_small_v1 with 19"),
        ("hrnet_seg_w18_small_v1", "hrnet_w18_small", "safetensors", "not hrnet_seg_w18_small_v1 with 19"),
    ],
)
def test_verb_refuses_weights_of_another_task(model, made_for, suffix, message, tmp_path, capsys):
    path = tmp_path / f"weights.{suffix}"
    network = create_model(made_for)
    if suffix == "pth":
        torch.save(network.state_dict(), path)
    else:
        save_weights(network, path)
    assert main(["parity", model, str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert message in error


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["hrnet_w32", "FILE"], "does not fit hrnet_w32"),
        (["hrnet_w18_small", "no_such.pth"], "no_such.pth: no such file"),
        (["hrnet_w18_small", __file__], "not a readable PyTorch file"),
        (["hrnet_w18_small", "FILE", "data.root=x"], "is a network: name a configuration"),
        (["hrnet_w99", "FILE"], "no configuration 'hrnet_w99'"),
    ],
)
def test_verb_refuses(argv, message, tmp_path, capsys):
    _, path = made("hrnet_w18_small", tmp_path)
    assert main(["parity", *(str(path) if word == "FILE" else word for word in argv)]) == 2
    assert message in capsys.readouterr().err


def test_help_says_where_the_names_of_networks_and_configurations_are(capsys):
    with pytest.raises(SystemExit):
        main(["parity", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "a network of `fastpose models`, or a configuration of `fastpose train --list`" in said
