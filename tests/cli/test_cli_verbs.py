"""The verbs on small real and rendered data: what they write and what they say."""

import json

import cv2
import numpy as np
import pytest
import torch
from conftest import shared_path

from fastpose.cli import main
from fastpose.models import create_model, save_weights

TINY = ["data.input_size=[64, 64]", "data.figures.train_count=6", "data.figures.val_count=3", "run.threads=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    argv = ["train", "samples/figures", *TINY, f"run.dir={folder}", "run.name=t", "train.epochs=2"]
    assert main([*argv, "train.batch_size=4", "run.pictures_every=1", "val.every=1"]) == 0
    return folder / "train" / "t"


def test_train_leaves_a_complete_run_folder(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "results.csv", "curves.png", "pictures", "checkpoints"} <= names
    assert {"best.safetensors", "best.json", "last.safetensors", "last.json"} <= names
    assert any(name.startswith("events.") for name in names), "TensorBoard"
    assert not [name for name in names if name.endswith(".tmp")]
    header, first, second = (trained / "results.csv").read_text().splitlines()
    assert {"epoch", "lr", "loss", "accuracy", "AP", "images_per_second"} <= set(header.split(","))
    assert first.startswith("1,")
    assert second.startswith("2,")
    assert sorted(path.name for path in (trained / "pictures").iterdir()) == [
        "epoch_0001.png",
        "epoch_0002.png",
    ]
    assert cv2.imread(str(trained / "curves.png")).std() > 0


def test_a_second_run_does_not_overwrite_the_first(trained):
    argv = [
        "train",
        "samples/figures",
        *TINY,
        f"run.dir={trained.parents[1]}",
        "run.name=t",
        "train.epochs=1",
    ]
    before = (trained / "last.safetensors").read_bytes()
    assert main([*argv, "train.batch_size=4", "run.tensorboard=false"]) == 0
    assert (trained.parent / "t-2" / "last.safetensors").is_file()
    assert (trained / "last.safetensors").read_bytes() == before


def test_val_of_a_run_repeats_its_best_score(trained, capsys):
    assert main(["val", str(trained)]) == 0
    output = capsys.readouterr().out
    assert "5 annotated boxes, crops 64x64 rgb, amp none, with flip test, refine quarter" in output
    best = json.loads((trained / "best.json").read_text())
    assert f"{best['score']:.3f}" in output.splitlines()[-1].split()[0]


def test_val_on_detector_boxes_end_to_end(tmp_path, capsys):
    root = shared_path("data", "coco_sample")
    torch.manual_seed(0)
    weights, out = tmp_path / "w.safetensors", tmp_path / "results.json"
    save_weights(create_model("hrnet_w18_small"), weights)
    argv = ["val", "samples/coco_sample", f"data.root={root}", "--weights", weights, "--out", out]
    argv += ["val.boxes=detector", "data.input_size=[64, 96]"]
    assert main([str(word) for word in argv]) == 0
    assert "118 detector boxes from person_detection_results/COCO_val2017" in capsys.readouterr().out
    rows = json.loads(out.read_text())
    assert 0 < len(rows) <= 118, "OKS-NMS may drop some"
    assert {row["image_id"] for row in rows} == {785, 40083, 196141, 197388}


@pytest.mark.parametrize("head", ["whole", "backbone"])
def test_val_takes_an_official_pth_and_refuses_a_backbone(tmp_path, capsys, head):
    state = create_model("hrnet_w18_small").state_dict()
    if head == "backbone":
        state = {name: value for name, value in state.items() if not name.startswith("final_layer")}
    weights = tmp_path / "official.pth"
    torch.save({f"module.{name}": value for name, value in state.items()}, weights)
    code = main(["val", "samples/figures", *TINY, "--weights", str(weights)])
    assert code == (0 if head == "whole" else 2)
    captured = capsys.readouterr()
    assert "AP" in captured.out if head == "whole" else "backbone" in captured.err


def test_predict_writes_json_and_pictures(trained, tmp_path, capsys):
    photo = shared_path("data", "astronaut.png")
    copy = tmp_path / "in" / "astronaut.png"
    copy.parent.mkdir()
    copy.write_bytes(photo.read_bytes())
    boxes = tmp_path / "boxes.json"
    rows = [[100, 20, 250, 480], [0, 0, 0, 0], [5000, 5000, 10, 10]]
    boxes.write_text(json.dumps([{"file_name": "astronaut.png", "bbox": box, "score": 0.9} for box in rows]))
    out = tmp_path / "out"
    assert main(["predict", str(trained), str(copy), "--boxes", str(boxes), "--out", str(out)]) == 0
    (row,) = json.loads((out / "predictions.json").read_text())
    assert row["file_name"].endswith("astronaut.png")
    assert len(row["keypoints"]) == 51
    assert row["bbox"] == [100, 20, 250, 480]
    assert cv2.imread(str(out / "astronaut.png")).shape == (512, 512, 3)
    output = capsys.readouterr().out
    assert "1 person in 1 picture, 2 skipped" in output
    assert "outside the picture" in output
    assert "less than one pixel" in output


def test_val_and_predict_refine_as_asked(trained, tmp_path, capsys):
    assert main(["val", str(trained), "val.refine=dark"]) == 0
    assert "with flip test, refine dark" in capsys.readouterr().out
    picture = tmp_path / "p.png"
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 255, (90, 80, 3), np.uint8))
    found = []
    for options in (["none"], ["dark"], ["dark", "--blur-kernel", "17"]):
        out = tmp_path / "-".join(options)
        assert main(["predict", str(trained), str(picture), "--out", str(out), "--refine", *options]) == 0
        found.append(json.loads((out / "predictions.json").read_text())[0]["keypoints"])
    assert found[0] != found[1] != found[2]


def test_predict_never_overwrites_its_input(trained, tmp_path):
    picture = tmp_path / "p.png"
    cv2.imwrite(str(picture), np.full((50, 40, 3), 90, np.uint8))
    before = picture.read_bytes()
    assert main(["predict", str(trained), str(picture), "--out", str(tmp_path)]) == 0
    assert picture.read_bytes() == before
    assert (tmp_path / "p-2.png").is_file()


def test_predict_goes_on_after_an_unreadable_picture(trained, tmp_path, capsys):
    good, bad = tmp_path / "a.png", tmp_path / "b.png"
    cv2.imwrite(str(good), np.full((50, 40, 3), 90, np.uint8))
    bad.write_bytes(good.read_bytes()[:60])
    assert main(["predict", str(trained), str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "1 person in 2 pictures, 1 skipped" in output
    assert "b.png" in output


def test_figures_can_be_checked_and_trained_on(tmp_path, capsys):
    data = tmp_path / "figures"
    for split, seed in (("train2017", 1), ("val2017", 2)):
        argv = [
            "figures",
            str(data),
            "--count",
            "4",
            "--seed",
            str(seed),
            "--split",
            split,
            "--size",
            "128",
            "128",
        ]
        assert main(argv) == 0
    assert main(["check", str(data), "--decode"]) == 0
    assert "0 problems" in capsys.readouterr().out
    argv = ["train", "samples/figures", *TINY, "data.format=coco", f"data.root={data}", "train.epochs=1"]
    assert main([*argv, "train.batch_size=4", f"run.dir={tmp_path / 'runs'}", "run.tensorboard=false"]) == 0


@pytest.mark.parametrize(
    ("sample", "headline"),
    [("coco_sample", "AP"), ("mpii_sample", "PCK@0.2"), ("crowdpose_sample", "AP"), ("coco_mini", "AP")],
)
def test_training_on_the_samples(tmp_path, sample, headline):
    root = shared_path("data", sample)
    argv = ["train", f"samples/{sample}", f"data.root={root}", "data.input_size=[64, 64]", "train.epochs=1"]
    assert main([*argv, f"run.dir={tmp_path}", "run.tensorboard=false"]) == 0
    note = json.loads((tmp_path / "train" / sample / "best.json").read_text())
    assert note["metric"] == headline


def test_scores_without_pckh_say_why(tmp_path, capsys, caplog):
    root = shared_path("data", "mpii_sample")
    weights = tmp_path / "w.pth"
    torch.save(create_model("hrnet_w18_small", 16).state_dict(), weights)
    settings = [
        f"data.root={root}",
        "data.input_size=[64, 64]",
        "data.workers=0",
        "model.name=hrnet_w18_small",
    ]
    assert main(["val", "samples/mpii_sample", "--weights", str(weights), *settings]) == 0
    assert "no PCKh: that takes the head sizes of MPII's gt_valid.mat" in capsys.readouterr().out
    settings[-1] = "val.flip_test=false"
    assert (
        main(
            ["parity", "samples/mpii_sample", str(weights), "--data", *settings, "model.name=hrnet_w18_small"]
        )
        == 0
    )
    assert "no PCKh" in capsys.readouterr().out
    assert sum("tensors loaded" in record.getMessage() for record in caplog.records) == 2, "once by each verb"


def test_env_names_versions_and_backends(capsys):
    assert main(["env"]) == 0
    output = capsys.readouterr().out
    assert f"torch {torch.__version__}" in output
    for backend in ("reference", "cpp", "triton"):
        assert f"backend {backend}: " in output


@pytest.mark.parametrize("option", ["--list", "--config"])
def test_list_of_configurations(capsys, option):
    assert main(["train", option]) == 0
    assert "coco/hrnet_w48_384x288" in capsys.readouterr().out.splitlines()


def test_configuration_may_be_named_by_option(tmp_path, capsys):
    argv = [
        "train",
        *TINY,
        f"run.dir={tmp_path}",
        "train.epochs=1",
        "run.name=by_option",
        "run.tensorboard=false",
    ]
    assert main([*argv, "--config", "samples/figures"]) == 0
    assert (tmp_path / "train" / "by_option" / "best.safetensors").exists()
    assert main(["train", "--config", "samples/figures", "no.such=1"]) == 2
    assert "no.such" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [1, 4], ids=["one-bad-picture", "nothing-readable"])
def test_training_skips_and_counts_unreadable_pictures(tmp_path, capsys, bad):
    data, runs = tmp_path / "data", tmp_path / "runs"
    for split in ("train2017", "val2017"):
        assert main(["figures", str(data), "--count", "4", "--split", split, "--size", "128", "128"]) == 0
    for photo in sorted((data / "images" / "train2017").iterdir())[:bad]:
        photo.write_bytes(photo.read_bytes()[:300])
    argv = ["train", "samples/figures", *TINY, "data.format=coco", f"data.root={data}", f"run.dir={runs}"]
    code = main([*argv, "train.batch_size=1", "train.epochs=1", "run.name=skip", "run.tensorboard=false"])
    if bad == 4:
        assert code == 2
        assert "not one picture" in capsys.readouterr().err
        return
    assert code == 0
    header, row = (runs / "train" / "skip" / "results.csv").read_text().splitlines()
    unusable = dict(zip(header.split(","), row.split(","), strict=True))["unusable"]
    annotations = json.loads((data / "annotations" / "person_keypoints_train2017.json").read_text())
    first = min(image["id"] for image in annotations["images"])
    persons = [a for a in annotations["annotations"] if a["image_id"] == first and a["num_keypoints"]]
    assert int(unusable) == len(persons)
