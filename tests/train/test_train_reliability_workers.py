"""Data workers that are killed, fail, hang or lack memory: soon a typed error, and no process left behind."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from processes import context

from fastpose.data import CropDataset, EpochSampler, make_loader, worker_places
from fastpose.errors import DataError, ImageError
from fastpose.train.config_io import load_config
from fastpose.train.tasks.pose_data import train_table

LIMIT_S = 10.0
BAD = 5
"""The sample that goes wrong."""


class Trouble(CropDataset):
    what = "nothing"

    def __getitem__(self, key):
        if key[1] == BAD:
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "hang":
                time.sleep(60)
            if self.what == "fail":
                raise ImageError(f"sample {BAD} is unreadable")
        if self.what == "size":
            return {"crop": np.zeros((512, 512, 3), np.uint8)}
        return super().__getitem__(key)


def loader_of(what, workers, **options):
    table = train_table(load_config("samples/figures", tiny_run.SETTINGS))
    dataset = Trouble(table, input_size=(32, 32))
    dataset.what = what
    return make_loader(dataset, EpochSampler(8, 2, shuffle=False), workers=workers, **options)


def children():
    return {process.pid for process in multiprocessing.active_children()}


def gone(pids, seconds):
    """Whether all these processes end, or are ended and wait for their parent, within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("kill", DataError, rf"a data worker stopped: DataLoader worker .*, at sample {BAD}"),
        ("fail", ImageError, f"sample {BAD} is unreadable"),
        ("hang", DataError, rf"a data worker stopped: timed out: sample {BAD} takes longer than 3 s"),
    ],
    ids=["killed", "failed", "hung"],
)
def test_trouble_is_told_soon_and_leaves_no_process(monkeypatch, what, kind, message, workers):
    monkeypatch.setattr(worker_places, "SAMPLE_TIMEOUT_S", 3.0)
    before = children()
    loader = loader_of(what, workers)
    started = time.monotonic()
    with pytest.raises(kind, match=message):
        list(loader)
    assert time.monotonic() - started < LIMIT_S
    ours = children() - before
    del loader
    assert gone(ours, LIMIT_S)


def test_slow_is_not_stuck(monkeypatch):
    monkeypatch.setattr(worker_places, "SAMPLE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(Trouble, "__getitem__", slowly)
    assert len(list(loader_of("nothing", 1))) == 4


def slowly(self, key):
    time.sleep(0.6)
    return CropDataset.__getitem__(self, key)


def load_and_tell(what, connection):
    multiprocessing.set_start_method("fork", force=True)  # a helper of the test would outlive the training
    iterator = iter(loader_of(what, 2))
    next(iterator)
    connection.send(children())
    time.sleep(60)


def test_workers_end_with_a_killed_training():
    mine, theirs = context().Pipe()
    process = context().Process(target=load_and_tell, args=("nothing", theirs), daemon=False)
    process.start()
    workers = mine.recv()
    assert len(workers) == 2
    process.kill()
    process.join(20)
    assert gone(workers, LIMIT_S)


def load_with_little_memory(connection, fill):
    """In a process with mounts of its own: /dev/shm holds less than one batch, or nothing at all."""
    if ctypes.CDLL(None).unshare(0x00020000):  # CLONE_NEWNS
        connection.send("no mounts of its own")
        return
    subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "small", "/dev/shm"]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        connection.send("no tmpfs")
        return
    if fill:
        Path("/dev/shm/other").write_bytes(bytes(256 << 10))
    multiprocessing.set_start_method("fork", force=True)
    try:
        loader = loader_of("size", 1)
        shapes = [tuple(batch["crop"].shape) for batch in loader]
        connection.send((shapes, loader.warned, os.listdir("/dev/shm")))
    except Exception as error:
        connection.send((type(error).__name__, str(error), None))


@pytest.mark.parametrize("fill", [False, True], ids=["little", "none"])
def test_little_shared_memory(fill):
    assert torch.multiprocessing.get_sharing_strategy() == "file_descriptor"
    mine, theirs = context().Pipe()
    process = context().Process(target=load_with_little_memory, args=(theirs, fill))
    process.start()
    found = mine.recv()
    process.join(20)
    if isinstance(found, str):
        pytest.skip(f"a small /dev/shm cannot be made here: {found}")
    first, second, left = found
    if fill:
        assert first == "DataError", second
        assert "/dev/shm is full" in second
        assert "--shm-size" in second
    else:
        assert first == [(2, 512, 512, 3)] * 4
        assert second, "nobody was told"
        assert left == []


def lose_batches(key):
    def fail(tensor):
        raise OSError("no way to send this")

    ForkingPickler.register(torch.Tensor, fail)


def test_a_lost_batch_is_told(monkeypatch):
    monkeypatch.setattr(worker_places, "BATCH_TIMEOUT_S", 1.0)
    monkeypatch.setattr(Trouble, "__getitem__", lambda self, key: (lose_batches(key), {"x": np.zeros(3)})[1])
    started = time.monotonic()
    with pytest.raises(DataError, match="a batch was lost on its way"):
        list(loader_of("nothing", 1))
    assert time.monotonic() - started < LIMIT_S
