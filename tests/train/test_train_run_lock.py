"""One training in one folder: within a process too, and until the last byte is written."""

import errno
import fcntl
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from tiny_state import trained

from fastpose.errors import OutputError
from fastpose.train.config_io import load_config
from fastpose.train.parallel.distributed import World
from fastpose.train.saving import async_save
from fastpose.train.saving.async_save import StateSaver
from fastpose.train.saving.checkpoint import damaged_file, list_states
from fastpose.train.saving.progress import Progress
from fastpose.train.saving.run_lock import lock_run
from fastpose.train.saving.run_states import RunStates

TAKE = """
import pathlib, sys
from fastpose.errors import OutputError
from fastpose.train.saving.run_lock import lock_run
try:
    lock_run(pathlib.Path(sys.argv[1]))
except OutputError as error:
    sys.exit(str(error))
"""


def taken_by_another(folder) -> bool:
    """Whether another process is refused."""
    done = subprocess.run([sys.executable, "-c", TAKE, folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 or "another training uses this run folder" in done.stderr
    return done.returncode != 0


def test_the_same_process_is_refused_and_does_not_lose_the_lock(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "run")
    (tmp_path / "run").mkdir()
    with lock_run(tmp_path / "run") as lock:
        for name in ("run", "link"):
            with pytest.raises(OutputError, match=r"a training of this process.* uses this run folder"):
                lock_run(tmp_path / name)
        assert taken_by_another(tmp_path / "run")
    lock.close()
    lock_run(link).close()
    assert not taken_by_another(tmp_path / "run")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.EACCES, "another training uses this run folder; choose another run.name"),
        (errno.EAGAIN, "another training uses this run folder; choose another run.name"),
        (errno.ENOLCK, "its file system takes no locks .*choose another run.dir"),
        (errno.EOPNOTSUPP, "its file system takes no locks .*choose another run.dir"),
    ],
    ids=["locked-EACCES", "locked-EAGAIN", "no-locks-ENOLCK", "no-locks-EOPNOTSUPP"],
)
def test_a_folder_that_is_taken_and_one_without_locks_are_told_apart(tmp_path, monkeypatch, code, message):
    def refuse(*_):
        raise OSError(code, "said the system")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "lockf", refuse)
        with pytest.raises(OutputError, match=message):
            lock_run(tmp_path)
    lock_run(tmp_path).close()


def test_a_folder_that_is_gone_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        lock_run(tmp_path / "nowhere")


@pytest.fixture
def held(monkeypatch):
    """Writes begin only when `go` is set."""
    go, write = threading.Event(), async_save.write_state

    def wait_and_write(*args):
        assert go.wait(20)
        return write(*args)

    monkeypatch.setattr(async_save, "write_state", wait_and_write)
    yield go
    go.set()


def states_in(folder) -> RunStates:
    model, optimizer = trained()
    step = SimpleNamespace(optimizer=optimizer, scaler=None)
    return RunStates(load_config("samples/figures"), folder, World(torch.device("cpu")), model, step, None)


def end_of_saving() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("fastpose-save"):
            thread.join(20)


def save_and_press_ctrl_c_twice(states, monkeypatch) -> None:
    def second_ctrl_c(self):
        raise KeyboardInterrupt

    with states:
        states.save(Progress(epoch=1))
        monkeypatch.setattr(StateSaver, "wait", second_ctrl_c)
        raise KeyboardInterrupt


def test_a_second_ctrl_c_leaves_the_folder_locked_until_all_is_written(tmp_path, held, monkeypatch):
    states = states_in(tmp_path)
    states.open(1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        save_and_press_ctrl_c_twice(states, patch)
    assert list_states(tmp_path / "checkpoints") == []
    with pytest.raises(OutputError, match="its last save"):
        states_in(tmp_path).open(1)
    assert taken_by_another(tmp_path)
    held.set()
    end_of_saving()
    assert [damaged_file(path) for path in list_states(tmp_path / "checkpoints")] == [None]
    again = states_in(tmp_path)
    assert again.open(1)[0].epoch == 1
    with again:
        pass
    assert not taken_by_another(tmp_path)
