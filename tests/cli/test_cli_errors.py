"""Bad input ends with exit code 2 and one line that names the thing and the remedy."""

import dataclasses
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import shared_path

from fastpose.cli import build_parser, main
from fastpose.errors import OutputError
from fastpose.keypoints import COCO_17
from fastpose.models import create_model, save_weights
from fastpose.train.saving.run_lock import lock_run

TINY = [
    "data.input_size=[64, 64]",
    "data.figures.train_count=4",
    "data.figures.val_count=2",
    "train.batch_size=2",
]


def fails(capsys, argv, *words):
    assert main([str(word) for word in argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastpose: error: ")
    assert error.count("\n") == 1 or "\n  " in error
    for word in words:
        assert str(word) in error
    assert "Traceback" not in error


@pytest.fixture
def coco_copy(tmp_path):
    folder = tmp_path / "coco"
    shutil.copytree(shared_path("data", "coco_sample"), folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    return folder


def coco(folder, *more):
    names = [f"data.root={folder}", "data.train_split=val2017", f"run.dir={folder.parent / 'runs'}"]
    return ["train", "samples/coco_mini", *names, "data.val_split=val2017", "data.input_size=[64, 64]", *more]


def test_missing_configuration(capsys):
    fails(
        capsys,
        ["train", "coco/hrnet_w23_256x192"],
        "no configuration",
        "did you mean 'coco/hrnet_w32_256x192'",
    )


def test_unknown_key(capsys):
    fails(
        capsys, ["train", "samples/figures", "train.epoch=3"], "'train.epoch'", "did you mean 'train.epochs'"
    )


def test_unknown_model(capsys, tmp_path):
    fails(
        capsys,
        ["train", "samples/figures", *TINY, "model.name=hrnet_w23", f"run.dir={tmp_path}"],
        "hrnet_w32",
    )


def test_truncated_jpeg_stops_when_asked(capsys, coco_copy):
    photo = sorted((coco_copy / "images" / "val2017").iterdir())[0]
    photo.write_bytes(photo.read_bytes()[:2000])
    fails(capsys, coco(coco_copy, "data.on_bad=stop", "train.epochs=1", "train.batch_size=12"), photo.name)


def test_broken_json(capsys, coco_copy):
    file = coco_copy / "annotations" / "person_keypoints_val2017.json"
    file.write_text(file.read_text()[:1000])
    fails(capsys, coco(coco_copy), file.name, "json")


def test_zero_boxes(capsys, coco_copy):
    file = coco_copy / "annotations" / "person_keypoints_val2017.json"
    content = json.loads(file.read_text())
    for row in content["annotations"]:
        row["bbox"] = [0, 0, 0, 0]
    file.write_text(json.dumps(content))
    fails(capsys, coco(coco_copy), file.name)


def test_missing_data(capsys, tmp_path):
    fails(capsys, ["train", "coco/hrnet_w32_256x192", f"data.root={tmp_path}/gone"], "gone")


def test_wrong_number_of_joints(capsys, tmp_path):
    weights = tmp_path / "sixteen.safetensors"
    save_weights(create_model("hrnet_w18_small", 16), weights)
    argv = ["val", "samples/figures", *TINY, "--weights", weights]
    fails(capsys, argv, weights.name, "16", "17")


class Bomb:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors"])
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_pickle_that_runs_code(capsys, tmp_path, name, form):
    weights, canary = tmp_path / name, tmp_path / "canary"
    if form == "torch":
        torch.save({"state_dict": Bomb(canary)}, weights)
    else:
        weights.write_bytes(pickle.dumps(Bomb(canary)))
    fails(capsys, ["val", "samples/figures", *TINY, "--weights", weights], name)
    assert not canary.exists()


def test_training_state_that_runs_code(capsys, tmp_path):
    argv = ["train", "samples/figures", *TINY, f"run.dir={tmp_path}", "run.name=x", "train.epochs=1"]
    argv += ["--resume", "run.tensorboard=false"]
    assert main(argv) == 0
    state = next((tmp_path / "train" / "x" / "checkpoints").glob("state-*"))
    canary = tmp_path / "canary"
    torch.save({"optimizer": Bomb(canary)}, state / "training.pt")
    fails(capsys, argv, "damaged")
    assert not canary.exists()


def test_run_folder_without_permission(capsys, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    fails(capsys, ["train", "samples/figures", *TINY, f"run.dir={blocked}"], blocked)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_run_folder(capsys, tmp_path):
    tmp_path.chmod(0o555)
    fails(capsys, ["train", "samples/figures", *TINY, f"run.dir={tmp_path}"], "permission")


def test_run_folder_needs_resume(capsys, tmp_path):
    (tmp_path / "config.yaml").write_text("data: {format: figures}\n")
    fails(capsys, ["train", tmp_path], "--resume")


def test_predict_without_pictures(capsys, tmp_path):
    fails(capsys, ["predict", tmp_path / "w.safetensors", tmp_path], tmp_path)


def test_predict_pth_needs_the_network(capsys, tmp_path):
    photo = shared_path("data", "astronaut.png")
    (tmp_path / "w.pth").write_bytes(b"x")
    fails(capsys, ["predict", tmp_path / "w.pth", photo], "--config")


def test_predict_with_nothing_to_predict(capsys, tmp_path):
    weights = tmp_path / "w.safetensors"
    save_weights(create_model("hrnet_w18_small", keypoints=COCO_17), weights)
    photo = tmp_path / "cut.jpg"
    photo.write_bytes(shared_path("data", "mpii_sample", "images", "004645041.jpg").read_bytes()[:3000])
    fails(capsys, ["predict", weights, photo, "--out", tmp_path / "out"], "nobody to predict")


def test_predict_missing_weights(capsys, tmp_path):
    fails(
        capsys,
        ["predict", tmp_path / "gone.pth", shared_path("data", "astronaut.png")],
        "gone.pth",
        "no such file",
    )


def test_failed_resume_leaves_the_run_as_it_was(capsys, tmp_path):
    argv = ["train", "samples/figures", *TINY, f"run.dir={tmp_path}", "run.name=x", "run.tensorboard=false"]
    assert main([*argv, "train.epochs=1"]) == 0
    folder = tmp_path / "train" / "x"
    before = (folder / "config.yaml").read_bytes()
    for change in ("model.name=hrnet_w32", "train.batch_size=1", "run.seed=3"):
        fails(capsys, ["train", folder, "--resume", change], "cannot be resumed with", change)
    assert (folder / "config.yaml").read_bytes() == before
    assert main(["train", str(folder), "--resume", "train.epochs=2"]) == 0


def test_resume_without_states_does_not_start_over(capsys, tmp_path):
    argv = ["train", "samples/figures", *TINY, f"run.dir={tmp_path}", "run.name=x", "run.tensorboard=false"]
    assert main([*argv, "train.epochs=2"]) == 0
    folder = tmp_path / "train" / "x"
    before = (folder / "results.csv").read_text()
    shutil.rmtree(folder / "checkpoints")
    fails(capsys, ["train", folder, "--resume"], "no training state")
    assert (folder / "results.csv").read_text() == before


def test_two_trainings_in_one_folder(tmp_path):
    folder = tmp_path / "train" / "x"
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "fastpose", "train", "samples/figures", *TINY, "--resume"]
    with lock_run(folder):
        done = subprocess.run([*command, f"run.dir={tmp_path}", "run.name=x"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "another training uses this run folder" in done.stderr


KILLED_WITH_A_WORKER_LEFT = """
import os, pathlib, sys, time
from fastpose.train.saving.run_lock import lock_run
lock = lock_run(pathlib.Path(sys.argv[1]))
worker = os.fork()
if worker == 0:
    os.close(1)
    time.sleep(120)
else:
    os.write(1, str(worker).encode())
os._exit(0)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc, which tells open files")
def test_orphaned_workers_do_not_keep_the_run_folder(tmp_path):
    command = [sys.executable, "-c", KILLED_WITH_A_WORKER_LEFT, tmp_path]
    done = subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE)
    worker = int(done.stdout)
    try:
        held = {os.readlink(file) for file in Path(f"/proc/{worker}/fd").iterdir()}
        assert str(tmp_path / ".lock") in held, "the worker is alive and has the file that its parent locked"
        with lock_run(tmp_path), pytest.raises(OutputError, match="uses this run folder"):
            lock_run(tmp_path)
    finally:
        os.kill(worker, signal.SIGKILL)


def test_keypoints_of_training_and_validation_must_agree(capsys, coco_copy):
    root = shared_path("data", "crowdpose_sample")
    val = [
        f"data.val_annotations={root / 'annotations' / 'test_crowdpose.json'}",
        f"data.val_images={root / 'images'}",
    ]
    fails(capsys, coco(coco_copy, *val), "14", "17")


def test_weights_of_other_keypoints_are_not_scored(capsys, tmp_path):
    weights = tmp_path / "w.safetensors"
    renamed = dataclasses.replace(COCO_17, names=tuple(f"kp{k}" for k in range(17)))
    save_weights(create_model("hrnet_w18_small", keypoints=renamed), weights)
    fails(capsys, ["val", "samples/figures", *TINY, "--weights", weights], "kp0", "nose")


def test_full_standard_output(tmp_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "fastpose", "env"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_val_without_a_readable_picture(capsys, coco_copy, tmp_path):
    for photo in (coco_copy / "images" / "val2017").iterdir():
        photo.write_bytes(b"not a picture")
    weights = tmp_path / "w.safetensors"
    save_weights(create_model("hrnet_w18_small"), weights)
    argv = ["val", *coco(coco_copy)[1:], "--weights", weights]
    fails(capsys, argv, "none of 12 persons has a prediction")


def test_path_that_leaves_the_root(capsys, coco_copy):
    file = coco_copy / "annotations" / "person_keypoints_val2017.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "../../../etc/passwd"
    file.write_text(json.dumps(content))
    assert main(["check", str(coco_copy)]) == 2
    assert "../../../etc/passwd" in capsys.readouterr().out


def test_broken_zip_of_pictures(capsys, coco_copy):
    images = coco_copy / "images" / "val2017"
    with zipfile.ZipFile(coco_copy / "images" / "val2017.zip", "w") as archive:
        for photo in images.iterdir():
            archive.write(photo, photo.name)
    shutil.rmtree(images)
    archive_file = coco_copy / "images" / "val2017.zip"
    archive_file.write_bytes(archive_file.read_bytes()[:5000])
    fails(capsys, coco(coco_copy), "val2017.zip")


@pytest.mark.parametrize("verb", ["demo", "train", "val", "predict", "check", "figures", "env"])
def test_help_teaches(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([verb, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "fastpose" in text
    assert len(text.splitlines()) > 5
