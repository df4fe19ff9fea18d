"""A disk that is full, read-only, over its quota or broken: a typed error, and the states before intact."""

import contextlib
import ctypes
import errno
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from processes import context
from tiny_state import FULL, trained

from fastpose.errors import OutputError
from fastpose.files import remove_leftovers
from fastpose.train.saving.async_save import StateSaver
from fastpose.train.saving.checkpoint import Progress, damaged_file, list_states, load_state, save_state
from fastpose.train.saving.retention import Retention
from fastpose.train.saving.snapshot import WeightsFile

KINDS = {name: getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EIO", "EROFS")}


class Faults:
    """Counts what is asked of the disk, and refuses call number `at`."""

    def __init__(self, monkeypatch, code):
        self.code, self.calls, self.at = code, [], -1
        for owner, name in ((os, "mkdir"), (os, "fsync"), (os, "rename"), (os, "replace"), (Path, "open")):
            monkeypatch.setattr(owner, name, self.watch(name, getattr(owner, name)))

    def count(self, name):
        self.calls.append(name)
        if len(self.calls) - 1 == self.at:
            raise OSError(self.code, os.strerror(self.code))

    def watch(self, name, call):
        def watched(*args, **kwargs):
            mode = next((arg for arg in (*args[1:], *kwargs.values()) if isinstance(arg, str)), "")
            if name != "open" or set(mode) & {"w", "x"}:
                self.count(name)
            made = call(*args, **kwargs)
            return Watched(made, self) if name == "open" and "b" in mode and "r" not in mode else made

        return watched

    def refuse(self, at):
        self.calls, self.at = [], at


class Watched:
    def __init__(self, file, faults):
        self.file, self.faults = file, faults

    def write(self, data):
        self.faults.count("write")
        return self.file.write(data)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self.file, name)


def said(call, *args):
    """The message of an OutputError, or None."""
    try:
        call(*args)
    except OutputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("code", KINDS.values(), ids=KINDS)
def test_refusal_of_any_call_leaves_a_state_to_go_on_from(tmp_path, monkeypatch, code):
    model, optimizer = trained()
    faults = Faults(monkeypatch, code)
    save_state(tmp_path, model, optimizer, None, Progress(epoch=1))
    calls = faults.calls
    assert {"mkdir", "open", "write", "fsync", "rename"} <= set(calls)
    refused = 0
    # The two calls that delete the state before last may be refused too. Writes in a row are alike.
    alike = {at for at in range(1, len(calls)) if not FULL and calls[at - 1 : at + 2] == ["write"] * 3}
    for at in sorted(set(range(len(calls) + 2)) - alike):
        shutil.rmtree(tmp_path)
        faults.refuse(-1)
        for epoch in (1, 2):
            save_state(tmp_path, model, optimizer, None, Progress(epoch=epoch))
        faults.refuse(at)
        message = said(save_state, tmp_path, model, optimizer, None, Progress(epoch=3))
        if message:
            refused += 1
            assert os.strerror(code) in message
            assert len(list_states(tmp_path)) >= 2, "nothing is deleted before the state is complete"
        assert not list(tmp_path.glob(".*.new.tmp")), "no half state stays"
        faults.refuse(-1)
        assert all(damaged_file(path) is None for path in list_states(tmp_path))
        assert load_state(tmp_path, model, optimizer, None).epoch >= 2
        save_state(tmp_path, model, optimizer, None, Progress(epoch=4))
        assert load_state(tmp_path, model, optimizer, None).epoch == 4
    assert refused >= 12


@contextlib.contextmanager
def largest_file(size):
    """Writes beyond `size` bytes of a file fail with EFBIG, in all threads."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
@pytest.mark.parametrize("size", [5_000, 100_000], ids=["weights", "training"])
def test_a_file_cut_short_is_an_error_and_no_state(tmp_path, size, background):
    """One layer too large for `size` already as weights, or only with the two moments of Adam."""
    model, optimizer = trained(width=6_000)
    save_state(tmp_path, model, optimizer, None, Progress(epoch=1))
    parts = {file.name: file.stat().st_size for file in list_states(tmp_path)[0].iterdir()}
    assert parts["weights.safetensors"] < 100_000 < parts["training.pt"]
    with StateSaver(tmp_path, Retention(1), background=background, on_error="continue") as saver:
        with largest_file(size):
            saver.save(model, optimizer, None, Progress(epoch=2))
            saver.wait()
        assert (saver.saved, saver.failed) == (0, 1)
        assert [path.name for path in tmp_path.iterdir()] == ["state-00001-0000000"]
        saver.save(model, optimizer, None, Progress(epoch=3))
    assert load_state(tmp_path, model, optimizer, None).epoch == 3


def on_a_small_disk(folder, connection):
    """In a process with mounts of its own: fills a disk of 1 MB with states."""
    if ctypes.CDLL(None).unshare(0x00020000):  # CLONE_NEWNS
        connection.send("no mounts of its own")
        return
    subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "small", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        connection.send("no tmpfs")
        return
    model, optimizer = trained(width=10_000)  # 370 kB a state
    with StateSaver(folder / "states", Retention(9), on_error="continue") as saver:
        for epoch in range(1, 6):
            file = WeightsFile(folder / "last", {"epoch": epoch})
            saver.save(model, optimizer, None, Progress(epoch=epoch), publish=[file])
    figures = [saver.saved, saver.failed, load_state(folder / "states", model, optimizer, None).epoch]
    readonly = ["mount", "-o", "remount,ro", str(folder)]
    subprocess.run(readonly, check=True, capture_output=True)
    message = said(save_state, folder / "states", model, optimizer, None, Progress(epoch=9))
    connection.send([*figures, message, load_state(folder / "states", model, optimizer, None).epoch])


def test_full_and_read_only_disk(tmp_path):
    mine, theirs = context().Pipe()
    process = context().Process(target=on_a_small_disk, args=(tmp_path, theirs))
    process.start()
    theirs.close()
    found = mine.recv()
    process.join(20)
    if isinstance(found, str):
        pytest.skip(f"a small disk cannot be made here: {found}")
    saved, failed, epoch, error, after = found
    assert saved == epoch == after == 2
    assert failed >= 3
    assert "Read-only file system" in error or "no permission to write here" in error


def test_no_permission_is_an_error(tmp_path, monkeypatch):
    model, optimizer = trained()
    save_state(tmp_path, model, optimizer, None, Progress(epoch=1))
    monkeypatch.setattr(os, "access", lambda *_args: False)  # root may write anywhere
    with pytest.raises(OutputError, match="no permission to write here"):
        save_state(tmp_path, model, optimizer, None, Progress(epoch=2))
    assert load_state(tmp_path, model, optimizer, None).epoch == 1


def test_leftovers_of_a_kill_are_removed(tmp_path):
    model, optimizer = trained()
    save_state(tmp_path, model, optimizer, None, Progress(epoch=1))
    for name in (".state-00002-0000000.77.new.tmp", ".state-00001-0000000.77.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training.pt").write_bytes(b"half")
    assert load_state(tmp_path, model, optimizer, None).epoch == 1
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["state-00001-0000000"]
