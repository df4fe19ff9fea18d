"""Training states: complete or absent, damage noticed, kills survived."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from fastpose.errors import CheckpointError, OutputError
from fastpose.models import ModelMeta, PoseModel
from fastpose.train.checkpoint import Progress, list_states, load_state, save_state


class Tiny(PoseModel):
    def __init__(self, width: int = 3) -> None:
        super().__init__(ModelMeta(model="tiny", num_joints=1))
        self.layer = torch.nn.Linear(2, width)


def trained(steps: int = 3, width: int = 3):
    torch.manual_seed(steps)
    model = Tiny(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model.layer(torch.randn(5, 2)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def test_everything_comes_back(tmp_path):
    model, optimizer = trained()
    progress = Progress(epoch=2, batch=5, sums=[0.1, 0.2], history=[{"epoch": 1, "AP": None}], best=0.25)
    save_state(tmp_path, model, optimizer, None, progress)
    expected = torch.rand(3)
    other, other_optimizer = trained(steps=1)
    assert load_state(tmp_path, other, other_optimizer, None) == progress
    assert torch.equal(torch.rand(3), expected), "the random generator is restored"
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    for a, b in zip(optimizer.state.values(), other_optimizer.state.values(), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


def test_only_the_newest_are_kept(tmp_path):
    model, optimizer = trained()
    for epoch in range(5):
        save_state(tmp_path, model, optimizer, None, Progress(epoch=epoch), keep=2)
    assert [path.name for path in list_states(tmp_path)] == ["state-00003-0000000", "state-00004-0000000"]


@pytest.mark.parametrize("name", ["weights.safetensors", "training.pt", "manifest.json"])
def test_one_flipped_bit_sends_it_to_the_older_state(tmp_path, name, caplog):
    model, optimizer = trained()
    for epoch in (1, 2):
        save_state(tmp_path, model, optimizer, None, Progress(epoch=epoch))
    file = list_states(tmp_path)[-1] / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert load_state(tmp_path, model, optimizer, None).epoch == 1
    assert "damaged" in caplog.text


def test_all_damaged_is_an_error_and_none_is_a_fresh_start(tmp_path):
    model, optimizer = trained()
    assert load_state(tmp_path, model, optimizer, None) is None
    path = save_state(tmp_path, model, optimizer, None, Progress())
    (path / "training.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="all 1 training states are damaged"):
        load_state(tmp_path, model, optimizer, None)


def test_state_of_another_network_is_refused(tmp_path):
    save_state(tmp_path, *trained(), None, Progress())
    with pytest.raises(CheckpointError, match="does not fit this run"):
        load_state(tmp_path, *trained(width=4), None)


def test_state_without_manifest_is_damaged(tmp_path):
    model, optimizer = trained()
    for epoch in (1, 2):
        path = save_state(tmp_path, model, optimizer, None, Progress(epoch=epoch))
    (path / "manifest.json").unlink()
    assert load_state(tmp_path, model, optimizer, None).epoch == 1


def test_equal_weights_are_equal_files(tmp_path):
    model, optimizer = trained()
    digests = {
        (
            save_state(tmp_path / str(i), model, optimizer, None, Progress()) / "weights.safetensors"
        ).read_bytes()
        for i in range(6)
    }
    assert len(digests) == 1


def test_full_disk_keeps_the_previous_state(tmp_path, monkeypatch):
    model, optimizer = trained()
    save_state(tmp_path, model, optimizer, None, Progress(epoch=1))

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        save_state(tmp_path, model, optimizer, None, Progress(epoch=2))
    assert load_state(tmp_path, model, optimizer, None).epoch == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state-00001-0000000"]


SAVER = """
import itertools, pathlib, sys
sys.path.insert(0, sys.argv[2])
from test_train_checkpoint import trained, save_state, Progress
model, optimizer = trained(width=20_000)
for epoch in itertools.count():
    save_state(pathlib.Path(sys.argv[1]), model, optimizer, None, Progress(epoch=epoch))
    print(epoch, flush=True)
"""


@pytest.mark.slow
def test_kill_while_saving_loses_at_most_one_state(tmp_path):
    command = [sys.executable, "-c", SAVER, str(tmp_path), os.path.dirname(__file__)]
    for kill in range(4):
        saver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert saver.stdout is not None
        for _ in range(2):
            saver.stdout.readline()
        time.sleep(0.0037 * kill)
        saver.send_signal(signal.SIGKILL)
        told = [int(line) for line in saver.stdout.read().split()]
        saver.wait()
        progress = load_state(tmp_path, *trained(width=20_000), None)
        assert progress.epoch >= max([1, *told])
