"""What a resume takes up, besides weights: the best score of weights that exist, counts, the crop cache."""

import dataclasses
import json
import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_run
import torch
from tiny_state import fill, trained

from fastpose.data.crop_cache import FORMAT, INDEX, MANIFEST, ROW
from fastpose.data.digest import table_digest
from fastpose.data.figures import read_figure_parts, read_figures
from fastpose.errors import ConfigError, DataError, OutputError
from fastpose.files import sha256
from fastpose.models.registry import _factories, _tasks
from fastpose.models.safetensors_file import read_safetensors
from fastpose.train.config_io import load_config
from fastpose.train.parallel.distributed import World
from fastpose.train.saving import snapshot
from fastpose.train.saving.checkpoint import load_state, save_state
from fastpose.train.saving.progress import Progress
from fastpose.train.saving.run_states import RunStates

CPU = torch.device("cpu")


def states_in(folder, *settings: str) -> RunStates:
    model, optimizer = trained()
    config = load_config("samples/figures", [*settings, "train.async_save=false"])
    step = SimpleNamespace(optimizer=optimizer, scaler=None)
    return RunStates(config, folder, World(CPU), model, step, None)


def resumed(folder, *settings: str) -> Progress:
    states = states_in(folder, *settings)
    with states:
        return states.open(1)[0]


def progress_of(epoch: int, best: float, best_epoch: int) -> Progress:
    return Progress(epoch=epoch, best=best, best_epoch=best_epoch)


def note(epoch: int, score: float) -> dict:
    return {"epoch": epoch, "metric": "AP", "score": score}


@pytest.fixture
def full_disk(monkeypatch):
    """best.safetensors cannot be written while `now` holds True."""
    write, now = snapshot.write_atomic, SimpleNamespace(full=False)

    def write_or_fail(path, fill_file):
        if now.full and path.name == "best.safetensors":
            raise OutputError(f"{path}: cannot be written: No space left on device")
        return write(path, fill_file)

    monkeypatch.setattr(snapshot, "write_atomic", write_or_fail)
    return now


def weights(folder) -> set[float]:
    return set(read_safetensors(folder / "best.safetensors")[0]["layer.weight"].unique().tolist())


@pytest.mark.parametrize("when", ["next-save", "end"])
def test_best_weights_that_failed_are_tried_again(tmp_path, full_disk, when):
    states = states_in(tmp_path, "train.on_save_error=continue")
    states.open(1)
    with states:
        fill(states.model, states.step.optimizer, 1.0)
        states.save(progress_of(1, 0.1, 1), note=note(1, 0.1), best=True)
        full_disk.full = True
        fill(states.model, states.step.optimizer, 2.0)
        states.save(progress_of(2, 0.2, 2), note=note(2, 0.2), best=True)
        assert weights(tmp_path) == {1.0}
        fill(states.model, states.step.optimizer, 3.0)
        states.save(progress_of(3, 0.2, 2), note=note(3, 0.15))
        full_disk.full = False
        if when == "next-save":
            states.save(progress_of(4, 0.2, 2), note=note(4, 0.12))
            assert weights(tmp_path) == {2.0}
    assert weights(tmp_path) == {2.0}
    said = json.loads((tmp_path / "best.json").read_text())
    assert said == {**note(2, 0.2), "sha256": sha256(tmp_path / "best.safetensors")}
    assert states.saver.failed == 2


def test_later_best_weights_take_the_place_of_those_that_failed(tmp_path, full_disk):
    states = states_in(tmp_path, "train.on_save_error=continue")
    states.open(1)
    with states:
        full_disk.full = True
        fill(states.model, states.step.optimizer, 2.0)
        states.save(progress_of(1, 0.2, 1), note=note(1, 0.2), best=True)
        full_disk.full = False
        fill(states.model, states.step.optimizer, 3.0)
        states.save(progress_of(2, 0.3, 2), note=note(2, 0.3), best=True)
    assert weights(tmp_path) == {3.0}
    assert json.loads((tmp_path / "best.json").read_text())["epoch"] == 2


def test_a_run_killed_before_they_were_written_does_not_boast(tmp_path, full_disk, caplog):
    states = states_in(tmp_path, "train.on_save_error=continue")
    states.open(1)
    states.save(progress_of(1, 0.1, 1), note=note(1, 0.1), best=True)
    full_disk.full = True
    states.save(progress_of(2, 0.2, 2), note=note(2, 0.2), best=True)
    states.lock.close()  # as a kill does
    found = resumed(tmp_path, "train.on_save_error=continue")
    assert (found.epoch, found.best, found.best_epoch) == (2, 0.1, 1)
    assert "has the score 0.1, and the run has seen 0.2" in caplog.text


@pytest.mark.parametrize("content", [None, "{", "[]", '{"epoch": 1, "score": null}'])
def test_best_weights_that_are_gone_are_best_no_more(tmp_path, content):
    states = states_in(tmp_path)
    states.open(1)
    with states:
        states.save(progress_of(1, 0.1, 1), note=note(1, 0.1), best=True)
    (tmp_path / "best.json").unlink() if content is None else (tmp_path / "best.json").write_text(content)
    found = resumed(tmp_path)
    assert (found.epoch, found.best, found.best_epoch) == (1, None, None)


def test_best_weights_ahead_of_the_state_keep_the_score_of_the_state(tmp_path):
    """As a kill between the two leaves them: the epoch is done again, and they are written again."""
    states = states_in(tmp_path)
    states.open(1)
    with states:
        states.save(progress_of(1, 0.1, 1), note=note(2, 0.2), best=True)
    found = resumed(tmp_path)
    assert (found.best, found.best_epoch) == (0.1, 1)


def test_counts_of_the_epoch_are_part_of_a_state_and_may_be_missing(tmp_path):
    model, optimizer = trained()
    progress = Progress(epoch=1, batch=3, unusable=4, skipped=2)
    path = save_state(tmp_path, model, optimizer, None, progress)
    assert load_state(tmp_path, model, optimizer, None) == progress
    training = torch.load(path / "training.pt", weights_only=True)
    del training["progress"]["unusable"], training["progress"]["skipped"]
    torch.save(training, path / "training.pt")
    digests = json.loads((path / "manifest.json").read_text())
    digests["training.pt"] = sha256(path / "training.pt")
    (path / "manifest.json").write_text(json.dumps(digests))
    old = dataclasses.replace(progress, unusable=0, skipped=0)
    assert load_state(tmp_path, model, optimizer, None) == old


def make_cache(folder, quality: int = 95, unreadable: str = "gone") -> str:
    """A finished cache of one person, as far as a manifest tells."""
    folder.mkdir(parents=True)
    np.save(folder / INDEX, np.zeros(1, ROW))
    manifest = {
        "format": FORMAT,
        "recipe": {"persons": 1, "quality": quality},
        "index_sha256": sha256(folder / INDEX),
        "unreadable": {"0": unreadable},
        "shards": [],
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return str(folder)


@pytest.fixture
def begun(tmp_path):
    """A run on the cache in 'here'."""
    states = states_in(tmp_path / "run", f"data.crop_cache={make_cache(tmp_path / 'here')}")
    states.open(1)
    with states:
        states.save(Progress(epoch=1))
    return tmp_path / "run"


def test_a_crop_cache_may_move(tmp_path, begun, caplog):
    shutil.move(tmp_path / "here", tmp_path / "there")
    with caplog.at_level(logging.INFO, logger="fastpose"):
        assert resumed(begun, f"data.crop_cache={tmp_path / 'there'}").epoch == 1
    assert "data.crop_cache was" in caplog.text
    again = make_cache(tmp_path / "prepared again", unreadable="gone from elsewhere")
    assert resumed(begun, f"data.crop_cache={again}").epoch == 1


@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_another_crop_cache_is_refused(tmp_path, begun, place):
    shutil.rmtree(tmp_path / "here")
    other = make_cache(tmp_path / place, quality=50)
    with pytest.raises(ConfigError, match=r"not the cache that .* was begun with"):
        resumed(begun, f"data.crop_cache={other}")
    shutil.rmtree(other)
    with pytest.raises(DataError, match="no finished crop cache here"):
        resumed(begun, f"data.crop_cache={other}")


def test_a_run_does_not_change_between_a_cache_and_pictures(tmp_path, begun):
    with pytest.raises(ConfigError, match=r"data\.crop_cache=None"):
        resumed(begun)
    states = states_in(tmp_path / "plain")
    states.open(1)
    with states:
        states.save(Progress(epoch=1))
    with pytest.raises(ConfigError, match=r"cannot be resumed with data\.crop_cache="):
        resumed(tmp_path / "plain", f"data.crop_cache={tmp_path / 'here'}")


def test_a_run_from_before_caches_were_noted_is_compared_by_path(tmp_path, begun):
    (begun / "crop_cache.sha256").unlink()
    moved = make_cache(tmp_path / "there")
    with pytest.raises(ConfigError, match=r"cannot be resumed with data\.crop_cache="):
        resumed(begun, f"data.crop_cache={moved}")
    assert resumed(begun, f"data.crop_cache={tmp_path / 'here'}").epoch == 1


def test_the_backbone_gets_no_rate_of_its_own_in_the_middle(tmp_path):
    """The optimiser would have other groups of parameters than its saved state."""
    for before, other in (("null", "1e-5"), ("1e-5", "null")):
        folder = tmp_path / before
        states = states_in(folder, f"train.backbone_lr={before}")
        states.open(1)
        with states:
            states.save(Progress(epoch=1))
        with pytest.raises(ConfigError, match=r"cannot be resumed with train\.backbone_lr="):
            resumed(folder, f"train.backbone_lr={other}")
        assert resumed(folder, f"train.backbone_lr={'2e-5' if before == '1e-5' else before}").epoch == 1


def test_options_of_the_optimizer_are_those_of_the_run_that_goes_on(tmp_path):
    """weight_decay may be changed on a resume, and torch would take the old one from the state."""
    model, optimizer = trained()
    optimizer.param_groups[0].update(weight_decay=0.5, lr=0.25)
    save_state(tmp_path, model, optimizer, None, Progress(epoch=1))
    other, other_optimizer = trained(steps=1)
    other_optimizer.param_groups[0].update(weight_decay=0.125, lr=0.0625)
    load_state(tmp_path, other, other_optimizer, None)
    group = other_optimizer.param_groups[0]
    assert (group["weight_decay"], group["lr"]) == (0.125, 0.0625)
    states = zip(optimizer.state.values(), other_optimizer.state.values(), strict=True)
    assert all(torch.equal(a[name], b[name]) for a, b in states for name in a)


@pytest.fixture
def tiny_network():
    _factories[tiny_run.NAME], _tasks[tiny_run.NAME] = tiny_run.tiny_hrnet, "pose"
    yield
    del _factories[tiny_run.NAME], _tasks[tiny_run.NAME]


@pytest.mark.usefixtures("tiny_network")
def test_run_goes_on_with_its_own_annotations_alone(tmp_path):
    """Where the files lie may change, what they say may not."""
    settings = ["data.figures.val_count=3"]
    folder = tiny_run.run(tmp_path, "train.epochs=1")
    known = (folder / "data.sha256").read_text().split()
    assert known[::2] == ["training", "validation"]
    with pytest.raises(ConfigError, match=r"figures\.val_count=3"):
        tiny_run.run(tmp_path, "train.epochs=2", *settings)
    changed = known[1][::-1]
    (folder / "data.sha256").write_text(f"training {changed}\nvalidation {known[3]}\n")
    with pytest.raises(ConfigError, match=r"was begun with other training annotations"):
        tiny_run.run(tmp_path, "train.epochs=2")
    (folder / "data.sha256").unlink()  # a run of before
    tiny_run.run(tmp_path, "train.epochs=2")
    assert (folder / "data.sha256").read_text().split() == known


def test_digest_sees_annotations_and_not_where_pictures_lie():
    table = read_figures(4, seed=1)
    same, moved = read_figures(4, seed=1), read_figures(4, seed=1)
    assert table_digest(table) == table_digest(same)
    moved.joints[2, 5, 0] += 1e-3
    assert table_digest(moved) != table_digest(table)
    renamed = read_figures(4, seed=1)
    renamed.file_names = np.array([f"x{name}" for name in renamed.file_names])
    assert table_digest(renamed) != table_digest(table)
    assert table_digest(read_figure_parts(3)) != table_digest(read_figure_parts(4))
