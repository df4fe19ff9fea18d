"""Training states: complete or absent, damage noticed, kills survived."""

import json
import random

import pytest
import torch
from tiny_state import trained

from fastpose.errors import CheckpointError, OutputError
from fastpose.train.engine.ema import Ema
from fastpose.train.saving.checkpoint import Progress, damaged_file, list_states, load_state, save_state
from fastpose.train.saving.random_states import RandomStates


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


def test_every_flipped_bit_is_noticed(tmp_path):
    path = save_state(tmp_path, *trained(), None, Progress(history=[{"epoch": 1, "loss": 0.5}]))
    assert damaged_file(path) is None
    dice, files = random.Random(3), sorted(path.iterdir())
    for _ in range(1000):
        file = dice.choice(files)
        before = file.read_bytes()
        data = bytearray(before)
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        file.write_bytes(data)
        assert damaged_file(path) is not None, file.name
        file.write_bytes(before)
    assert damaged_file(path) is None


def test_every_truncation_is_noticed(tmp_path):
    path = save_state(tmp_path, *trained(), None, Progress())
    dice, files = random.Random(4), sorted(path.iterdir())
    for _ in range(100):
        file = dice.choice(files)
        before = file.read_bytes()
        file.write_bytes(before[: dice.randrange(len(before))])
        assert damaged_file(path) is not None, file.name
        file.write_bytes(before)
    assert damaged_file(path) is None


def test_average_and_counters_travel_along(tmp_path):
    model, optimizer = trained()
    ema, skipped = Ema(model, 0.9), torch.tensor(3.0)
    with torch.no_grad():
        model.layer.weight.zero_()
    ema.update()
    extra = {"ema": ema, "skipped": skipped, "absent": None}
    save_state(tmp_path, model, optimizer, None, Progress(), extra=extra)

    other, other_optimizer = trained(steps=1)
    other_ema, counter = Ema(other, 0.9), torch.tensor(0.0)
    load_state(tmp_path, other, other_optimizer, None, extra={"ema": other_ema, "skipped": counter})
    assert torch.equal(other_ema.module.layer.weight, ema.module.layer.weight)
    assert not torch.equal(other_ema.module.layer.weight, other.layer.weight)
    assert counter.item() == 3, "loaded into the tensor that was there"


def test_state_without_the_average_is_refused_and_an_unused_one_told(tmp_path, caplog):
    model, optimizer = trained()
    save_state(tmp_path, model, optimizer, None, Progress(), extra={"skipped": torch.zeros(())})
    with pytest.raises(CheckpointError, match="it holds no ema; resume with the settings"):
        load_state(tmp_path, model, optimizer, None, extra={"ema": Ema(model, 0.9)})
    assert load_state(tmp_path, model, optimizer, None) == Progress()
    assert "skipped is left out" in caplog.text


@pytest.mark.parametrize(("before", "now"), [(0.0, 0.9), (0.9, 0.0), (0.5, 0.9)])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.RMSprop])
def test_momentum_may_come_and_go(tmp_path, kind, before, now):
    """Where there was none it begins at zero, as that of a new optimiser does."""
    model, _ = trained()
    optimizer = kind(model.parameters(), lr=0.1, momentum=before)
    step(model, optimizer)
    save_state(tmp_path, model, optimizer, None, Progress())
    optimizer.param_groups[0]["momentum"] = now
    for parameter in model.parameters() if not before else ():
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    other, _ = trained(steps=1)
    resumed = kind(other.parameters(), lr=0.1, momentum=now)
    load_state(tmp_path, other, resumed, None)
    step(model, optimizer)
    step(other, resumed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model.layer(torch.ones(5, 2)).square().sum().backward()
    optimizer.step()


def test_loss_scale_comes_back(tmp_path):
    model, optimizer = trained()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.ones(()))
    save_state(tmp_path, model, optimizer, scaler, Progress())
    other = torch.amp.GradScaler("cpu")
    load_state(tmp_path, model, optimizer, other)
    assert other.get_scale() == 8.0


def test_full_disk_keeps_the_previous_state(tmp_path, monkeypatch):
    model, optimizer = trained()
    save_state(tmp_path, model, optimizer, None, Progress(epoch=1))

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left on device; the states before it are intact"):
        save_state(tmp_path, model, optimizer, None, Progress(epoch=2))
    assert load_state(tmp_path, model, optimizer, None).epoch == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state-00001-0000000"]


def test_a_state_is_written_again_over_a_damaged_one(tmp_path):
    model, optimizer = trained()
    path = save_state(tmp_path, model, optimizer, None, Progress(epoch=1))
    (path / "training.pt").write_bytes(b"")
    assert save_state(tmp_path, model, optimizer, None, Progress(epoch=1)) == path
    assert damaged_file(path) is None
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_only_a_pose_model_is_saved(tmp_path):
    model, optimizer = trained()
    with pytest.raises(TypeError, match=r"model: a model of fastpose\.models is needed, got Linear"):
        save_state(tmp_path, model.layer, optimizer, None, Progress())


def test_manifest_names_every_file(tmp_path):
    path = save_state(tmp_path, *trained(), None, Progress())
    names = {entry.name for entry in path.iterdir()}
    assert names == {"manifest.json", *json.loads((path / "manifest.json").read_text())}


def drawn(rank: int, world: int, states: RandomStates) -> float:
    states.restore(rank, world)
    return torch.rand(()).item()


def test_each_process_gets_its_own_random_numbers_back():
    import numpy as np

    rows, expected = [], []
    for rank in range(2):
        torch.manual_seed(rank)
        states = RandomStates()
        states.collect()
        rows.append(states.rows.numpy())
        expected.append(torch.rand(()).item())
    both = RandomStates()
    both.collect(lambda row: np.concatenate(rows))
    loaded = RandomStates()
    loaded.load_state_dict(both.state_dict())
    assert [drawn(rank, 2, loaded) for rank in range(2)] == expected
    three = [drawn(rank, 3, loaded) for rank in range(3)]
    assert three[0] == expected[0]
    assert len({*three, expected[1]}) == 4, "another number of processes: other streams, all distinct"
    assert three == [drawn(rank, 3, loaded) for rank in range(3)]


def test_random_generators_of_another_form_are_refused():
    with pytest.raises(CheckpointError, match="random generators"):
        RandomStates().load_state_dict({"torch": torch.zeros(3)})
