"""Saving behind the training's back: nothing torn, nothing silent, nothing left undone."""

import json
import logging
import threading

import pytest
import torch
from tiny_state import fill, numbers, trained

from fastpose.errors import ConfigError, OutputError
from fastpose.files import sha256
from fastpose.models.safetensors_file import read_safetensors
from fastpose.train.engine.ema import Ema
from fastpose.train.saving import async_save
from fastpose.train.saving.async_save import StateSaver
from fastpose.train.saving.checkpoint import Progress, damaged_file, list_states, load_state
from fastpose.train.saving.retention import Retention
from fastpose.train.saving.snapshot import WeightsFile

BOTH = pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])


@pytest.fixture
def held(monkeypatch):
    """Writes begin only when `go` is set."""
    go, begun, write = threading.Event(), threading.Event(), async_save.write_state

    def wait_and_write(*args):
        begun.set()
        assert go.wait(20)
        return write(*args)

    monkeypatch.setattr(async_save, "write_state", wait_and_write)
    go.begun = begun
    yield go
    go.set()


@pytest.fixture
def failing(monkeypatch):
    """Writes fail while `now` is set."""
    now, write = threading.Event(), async_save.write_state
    now.error = OutputError("state: the training state cannot be saved: Disk quota exceeded")

    def write_or_fail(*args):
        if now.is_set():
            raise now.error
        return write(*args)

    monkeypatch.setattr(async_save, "write_state", write_or_fail)
    now.set()
    return now


@BOTH
def test_state_is_the_same_as_one_saved_at_once(tmp_path, background):
    model, optimizer = trained()
    progress = Progress(epoch=2, history=[{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}], best=0.5)
    with StateSaver(tmp_path, background=background) as saver:
        saver.save(model, optimizer, None, progress, extra={"count": torch.tensor(4.0)})
    assert (saver.saved, saver.failed) == (1, 0)
    other, other_optimizer, count = *trained(steps=1), torch.tensor(0.0)
    assert load_state(tmp_path, other, other_optimizer, None, extra={"count": count}) == progress
    assert all(
        torch.equal(a, b)
        for a, b in zip(numbers(model, optimizer), numbers(other, other_optimizer), strict=True)
    )
    assert count.item() == 4


def test_what_the_next_steps_change_is_not_in_the_state(tmp_path, held):
    model, optimizer = trained()
    fill(model, optimizer, 1.0)
    progress = Progress(epoch=1, sums=[1.0])
    ema = Ema(model, 0.5)
    with StateSaver(tmp_path) as saver:
        saver.save(model, optimizer, None, progress, extra={"ema": ema})
        assert held.begun.wait(20)
        fill(model, optimizer, 2.0)
        ema.update()
        progress.epoch, progress.sums[0] = 7, 7.0
        torch.rand(100)
        assert not list_states(tmp_path), "nothing is written yet"
        held.set()
    found, found_optimizer = trained()
    average = Ema(found, 0.5)
    assert load_state(tmp_path, found, found_optimizer, None, extra={"ema": average}) == Progress(
        1, sums=[1.0]
    )
    assert {value for tensor in numbers(found, found_optimizer) for value in tensor.flatten().tolist()} == {
        1.0
    }
    assert average.module.layer.weight.unique().tolist() == [1.0]


def test_one_save_at_a_time_and_none_left_out(tmp_path, held):
    model, optimizer = trained()
    with StateSaver(tmp_path, Retention(9)) as saver:
        saver.save(model, optimizer, None, Progress(epoch=1))
        assert held.begun.wait(20)
        saver.check()  # does not wait
        second = threading.Thread(target=saver.save, args=(model, optimizer, None, Progress(epoch=2)))
        second.start()
        second.join(0.2)
        assert second.is_alive(), "it waits for the first"
        assert sum(thread.name == "fastpose-save" for thread in threading.enumerate()) == 1
        held.set()
        second.join(20)
    assert saver.waited > 0.1
    assert [path.name for path in list_states(tmp_path)] == ["state-00001-0000000", "state-00002-0000000"]


def test_a_long_wait_is_told_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(async_save, "LONG_WAIT_S", 0.0)
    model, optimizer = trained()
    with StateSaver(tmp_path) as saver:
        for epoch in range(4):
            saver.save(model, optimizer, None, Progress(epoch=epoch))
    assert sum("the training waited" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("where", ["check", "wait", "save", "exit"])
def test_an_error_of_the_thread_is_raised(tmp_path, failing, where):
    model, optimizer = trained()
    saver = StateSaver(tmp_path)
    saver.save(model, optimizer, None, Progress(epoch=1))
    for thread in threading.enumerate():
        if thread.name == "fastpose-save":
            thread.join(20)
    calls = {
        "check": saver.check,
        "wait": saver.wait,
        "save": lambda: saver.save(model, optimizer, None, Progress(epoch=2)),
        "exit": lambda: saver.__exit__(None, None, None),
    }
    with pytest.raises(OutputError, match="quota exceeded"):
        calls[where]()
    failing.clear()
    saver.wait()
    assert list_states(tmp_path) == []


@BOTH
def test_training_goes_on_when_it_is_told_to(tmp_path, failing, background, caplog):
    model, optimizer = trained()
    failing.clear()
    with StateSaver(tmp_path, background=background, on_error="continue") as saver:
        for epoch in range(1, 6):
            saver.wait()
            failing.set() if epoch in (3, 4) else failing.clear()
            saver.save(model, optimizer, None, Progress(epoch=epoch))
    assert (saver.saved, saver.failed) == (3, 2)
    assert sum("quota exceeded" in record.message for record in caplog.records) == 2
    assert "2 outputs of this run could not be written" in caplog.text
    assert [path.name[:11] for path in list_states(tmp_path)] == ["state-00002", "state-00005"]


def test_a_bug_is_not_taken_for_a_full_disk(tmp_path, failing):
    failing.error = AttributeError("a bug")
    saver = StateSaver(tmp_path, on_error="continue")
    saver.save(*trained(), None, Progress())
    with pytest.raises(AttributeError, match="a bug"):
        saver.wait()


def test_other_outputs_go_by_the_same_rule(tmp_path):
    def fail():
        raise OutputError("results.csv: cannot be written")

    with pytest.raises(OutputError, match=r"results\.csv"):
        StateSaver(tmp_path).attempt(fail)
    saver = StateSaver(tmp_path, on_error="continue")
    saver.attempt(fail)
    assert saver.failed == 1


def save_and_raise(folder, error):
    with StateSaver(folder) as saver:
        saver.save(*trained(), None, Progress(epoch=1))
        raise error


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_leaving_by_an_error_waits_for_the_save(tmp_path, held, stop):
    threading.Timer(0.2, held.set).start()
    with pytest.raises(stop):
        save_and_raise(tmp_path, stop)
    assert damaged_file(list_states(tmp_path)[0]) is None
    assert not [thread for thread in threading.enumerate() if thread.name == "fastpose-save"]


def test_the_error_that_ended_the_run_is_not_hidden_by_one_of_the_save(tmp_path, failing, caplog):
    with pytest.raises(ZeroDivisionError):
        save_and_raise(tmp_path, ZeroDivisionError)
    assert "quota exceeded" in caplog.text


@BOTH
def test_weights_are_published_from_the_same_moment(tmp_path, background):
    model, optimizer = trained()
    ema = Ema(model, 0.5)
    fill(model, optimizer, 1.0)
    ema.update()
    files = [
        WeightsFile(tmp_path / "last", {"epoch": 3}),
        WeightsFile(tmp_path / "best", {"epoch": 3, "score": 0.5}, of="ema"),
    ]
    with StateSaver(tmp_path / "checkpoints", background=background) as saver:
        saver.save(model, optimizer, None, Progress(epoch=3), extra={"ema": ema}, publish=files)
        fill(model, optimizer, 2.0)
    last, meta = read_safetensors(tmp_path / "last.safetensors")
    best, _ = read_safetensors(tmp_path / "best.safetensors")
    assert meta == model.meta
    assert last["layer.weight"].unique().tolist() == [1.0]
    assert torch.equal(best["layer.weight"], ema.module.layer.weight)
    note = json.loads((tmp_path / "best.json").read_text())
    assert note == {"epoch": 3, "score": 0.5, "sha256": sha256(tmp_path / "best.safetensors")}


def test_a_weights_file_that_cannot_be_written_does_not_cost_the_state(tmp_path):
    model, optimizer = trained()
    gone = WeightsFile(tmp_path / "nowhere" / "best", {})
    with StateSaver(tmp_path, on_error="continue") as saver:
        saver.save(model, optimizer, None, Progress(epoch=1), publish=[gone])
    assert (saver.saved, saver.failed) == (1, 1)


def test_size_is_told_once(tmp_path, caplog):
    model, optimizer = trained()
    with caplog.at_level(logging.INFO), StateSaver(tmp_path, Retention(2, 5)) as saver:
        for epoch in range(3):
            saver.save(model, optimizer, None, Progress(epoch=epoch))
    told = [record.message for record in caplog.records if "a training state takes" in record.message]
    assert len(told) == 1
    assert "the last 2, the best and one every 5 epochs are kept" in told[0]


def test_unknown_policy_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.on_save_error=ignore: must be stop or continue"):
        StateSaver(tmp_path, on_error="ignore")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_state_is_saved_while_the_device_works(tmp_path):
    device = torch.device("cuda")
    model, optimizer = trained(width=100_000)
    model.to(device)
    saved = []
    with StateSaver(tmp_path, Retention(9)) as saver:
        for epoch in range(1, 6):
            torch.cuda._sleep(20_000_000)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.fill_(epoch)
            saver.save(model, optimizer, None, Progress(epoch=epoch))
            saved.append(epoch)
    for path, epoch in zip(list_states(tmp_path), saved, strict=True):
        weights, _ = read_safetensors(path / "weights.safetensors")
        assert damaged_file(path) is None
        assert {value for tensor in weights.values() for value in tensor.unique().tolist()} == {float(epoch)}
