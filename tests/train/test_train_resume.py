"""A run that was killed and resumed ends with the bits of one that was not."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastpose.train.config_io import load_config
from fastpose.train.loop import Trainer
from fastpose.train.saving.checkpoint import list_states

SETTINGS = [
    "data.input_size=[64, 64]",
    "data.figures.train_count=16",
    "data.figures.val_count=4",
    "train.epochs=3",
    "train.batch_size=4",
    "train.milestones=[1, 2]",
    "train.schedule=step",
    "run.threads=1",
    "run.tensorboard=false",
]


def settings(folder: Path, *more: str) -> list[str]:
    return [*SETTINGS, f"run.dir={folder}", "run.name=tiny", *more]


def run(folder: Path, *more: str) -> Path:
    config = load_config("samples/figures", settings(folder, *more))
    Trainer(config, folder / "train" / "tiny").fit()
    return folder / "train" / "tiny"


def same_weights(a: Path, b: Path) -> bool:
    return all(
        (a / name).read_bytes() == (b / name).read_bytes()
        for name in ("last.safetensors", "best.safetensors")
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_stopping_in_the_middle_of_an_epoch_changes_nothing(uninterrupted, tmp_path, monkeypatch, workers):
    more = ("train.save_steps=3", f"data.workers={workers}")
    calls = 0
    finish = Trainer._save_within

    def stop_at_third_save(self):
        nonlocal calls
        finish(self)
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_within", stop_at_third_save)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, *more)
    state = list_states(tmp_path / "train" / "tiny" / "checkpoints")[-1]
    assert not state.name.endswith("-0000000"), "stopped in the middle of an epoch"
    folder = run(tmp_path, *more)
    assert same_weights(folder, uninterrupted)
    columns = [line.split(",")[:4] for line in (folder / "results.csv").read_text().splitlines()]
    expected = [line.split(",")[:4] for line in (uninterrupted / "results.csv").read_text().splitlines()]
    assert columns == expected, "epoch, lr, loss and accuracy agree to the last digit, each epoch once"


@pytest.mark.slow
def test_sigkill_at_any_moment(uninterrupted, tmp_path):
    """Also while it starts, and resumed both by the configuration's name and from the run folder."""
    folder = tmp_path / "train" / "tiny"
    by_name = ["samples/figures", *settings(tmp_path, "train.save_steps=2")]
    moment = random.Random(5)
    kills = 0
    for attempt in range(30):
        again = attempt % 2 and (folder / "config.yaml").exists()
        command = [
            sys.executable,
            "-m",
            "fastpose",
            "train",
            *([str(folder)] if again else by_name),
            "--resume",
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        if attempt < 6:
            if attempt < 4:
                process.stdout.readline()  # the line that says training starts
            time.sleep(moment.uniform(0.0, 1.5))
            process.send_signal(signal.SIGKILL)
        output = process.communicate()[0]
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, output
        kills += 1
    assert kills >= 2
    assert same_weights(folder, uninterrupted)


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(uninterrupted):
    before = (uninterrupted / "last.safetensors").read_bytes()
    config = load_config(uninterrupted / "config.yaml")
    assert Trainer(config, uninterrupted).fit() is None
    assert (uninterrupted / "last.safetensors").read_bytes() == before
