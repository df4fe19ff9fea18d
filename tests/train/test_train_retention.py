"""Which states stay, what they are called, and where another number of processes goes on."""

import os
from pathlib import Path

import pytest
from tiny_state import trained

from fastpose.errors import ConfigError
from fastpose.train.saving.checkpoint import Progress, list_states, load_state, save_state
from fastpose.train.saving.progress import state_name, state_place
from fastpose.train.saving.retention import Retention

PLACES = [(1, 0), (2, 0), (2, 64), (3, 0), (4, 0), (4, 64), (5, 0), (5, 64)]


@pytest.mark.parametrize(
    ("last", "every", "best", "kept"),
    [
        (1, 0, None, [(5, 64)]),
        (2, 0, None, [(5, 0), (5, 64)]),
        (20, 0, None, PLACES),
        (1, 0, 3, [(3, 0), (5, 64)]),
        (1, 2, None, [(2, 0), (4, 0), (5, 64)]),
        (2, 3, 1, [(1, 0), (3, 0), (5, 0), (5, 64)]),
        (1, 0, 9, [(5, 64)]),
    ],
    ids=["last", "two", "all", "best", "every-2", "best-every-3", "best-gone"],
)
def test_what_is_kept(last, every, best, kept):
    states = [Path(state_name(place)) for place in PLACES]
    gone = Retention(last, every).superseded(states, best)
    assert [state_place(path) for path in states if path not in gone] == kept


def test_last_best_and_every_so_many_are_on_the_disk(tmp_path):
    model, optimizer = trained()
    for epoch in range(1, 8):
        best = min(epoch, 2)
        save_state(
            tmp_path,
            model,
            optimizer,
            None,
            Progress(epoch=epoch, best_epoch=best),
            keep=1,
            keep_every=3,
        )
    assert [state_place(path)[0] for path in list_states(tmp_path)] == [2, 3, 6, 7]
    assert load_state(tmp_path, model, optimizer, None).epoch == 7


@pytest.mark.parametrize(("last", "every"), [(0, 0), (-1, 0), (1, -1)])
def test_impossible_retention_is_refused(last, every):
    with pytest.raises(ConfigError, match=r"train\.keep"):
        Retention(last, every)


def test_what_cannot_be_deleted_is_told_and_does_not_stop_the_run(tmp_path, monkeypatch, caplog):
    model, optimizer = trained()
    save_state(tmp_path, model, optimizer, None, Progress(epoch=1), keep=1)
    rename = os.rename

    def refuse(source, target):
        if Path(source).name.startswith("state-00001"):
            raise PermissionError(1, "Operation not permitted")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    save_state(tmp_path, model, optimizer, None, Progress(epoch=2), keep=1)
    assert len(list_states(tmp_path)) == 2
    assert "an old training state cannot be deleted" in caplog.text


def test_size_is_told(tmp_path, monkeypatch):
    import shutil

    path = save_state(tmp_path, *trained(), None, Progress())
    size = sum(file.stat().st_size for file in path.iterdir())
    room = shutil.disk_usage(path)._replace(free=10 * size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    text = Retention(2, 10).describe(path)
    assert text.startswith(
        "a training state takes 0.0 MB; the last 2, the best and one every 10 epochs are kept"
    )
    assert "make room" not in text
    assert "too little for that, make room" in Retention(10).describe(path)


@pytest.mark.parametrize("place", [(0, 0), (3, 1200), (123_456, 12_345_678)])
def test_names_say_the_place(place):
    assert state_place(Path(state_name(place))) == place


@pytest.mark.parametrize("name", ["state-1-2", "state-00001-0000000.bak", ".state-00001-0000000.7.tmp", "x"])
def test_other_names_are_no_states(tmp_path, name):
    (tmp_path / name).mkdir()
    assert list_states(tmp_path) == []


def test_states_are_ordered_by_number(tmp_path):
    for place in ((100_000, 0), (99_999, 0), (99_999, 10_000_000), (99_999, 9_999_999)):
        (tmp_path / state_name(place)).mkdir()
    found = [state_place(path) for path in list_states(tmp_path)]
    assert found == [(99_999, 0), (99_999, 9_999_999), (99_999, 10_000_000), (100_000, 0)]


def test_steps_of_another_size_go_on_at_the_same_sample(caplog):
    progress = Progress(epoch=2, batch=12, step_samples=64)
    progress.in_steps_of(128)
    assert (progress.batch, progress.samples, progress.step_samples) == (6, 768, 128)
    progress.in_steps_of(32)
    assert (progress.batch, progress.samples) == (24, 768)
    assert not caplog.records


def test_samples_seen_twice_are_told(caplog):
    progress = Progress(epoch=2, batch=3, step_samples=100)
    progress.in_steps_of(128)
    assert (progress.batch, progress.samples) == (2, 256)
    assert "epoch 3 goes on in steps of 128 samples instead of 100: 44 samples are seen twice" in caplog.text


def test_larger_steps_do_not_make_a_later_state_look_older(tmp_path):
    model, optimizer = trained()
    progress = Progress(epoch=1, batch=100, step_samples=64)
    save_state(tmp_path, model, optimizer, None, progress)
    progress.in_steps_of(128)
    progress.batch += 10
    save_state(tmp_path, model, optimizer, None, progress)
    assert load_state(tmp_path, model, optimizer, None) == progress
