"""The same bits: resumed or not, run twice, with any number of workers and threads."""

import cv2
import pytest
import tiny_run
import torch

from fastpose.errors import OutputError
from fastpose.models import ModelMeta
from fastpose.models.registry import _factories, register_model
from fastpose.ops import decode_heatmaps, heatmap_loss
from fastpose.train.config import TrainConfig
from fastpose.train.config_io import load_config
from fastpose.train.engine.ema import Ema
from fastpose.train.engine.step import TrainStep
from fastpose.train.objectives import HeatmapObjective
from fastpose.train.optim import build_optimizer
from fastpose.train.saving import async_save
from fastpose.train.saving.async_save import StateSaver
from fastpose.train.saving.checkpoint import Progress, list_states, load_state
from fastpose.train.saving.progress import state_place
from fastpose.train.tasks.pose_data import crop_dataset, train_table


@pytest.fixture(scope="module", autouse=True)
def _tiny_network():
    register_model(tiny_run.tiny_hrnet)
    yield
    del _factories[tiny_run.NAME]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Six epochs at one go: bf16, the rate drops after 2 and 4, a state after each step."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    return tiny_run.run(tmp_path_factory.mktemp("whole"))


def places(folder):
    return [state_place(path) for path in list_states(folder / "checkpoints")]


def steps_per_epoch(folder):
    """From the states of the first epoch: one after each step but the last, where the epoch's own is."""
    return sum(epoch == 0 for epoch, _ in places(folder)) + 1


def test_the_run_has_what_a_resume_must_bring_back(whole):
    found = tiny_run.outcome(whole)
    progress, steps = found["progress"], steps_per_epoch(whole)
    assert steps >= 3
    assert len(places(whole)) == 6 * steps
    assert [row["epoch"] for row in progress["history"]] == [1, 2, 3, 4, 5, 6]
    assert len({row["lr"] for row in progress["history"]}) >= 3
    assert len({row["loss"] for row in progress["history"]}) == 6
    assert progress["best"] is not None
    assert progress["best_epoch"] in (2, 4, 6)
    assert found["extra"]["ema"].keys() == found["weights"].keys()
    assert found["optimizer"]["state"][0]["step"] == 6 * steps


@pytest.mark.parametrize(("at", "workers"), [("after-3-epochs", 0), ("mid-epoch", 2), ("last-step", 0)])
def test_resume_changes_no_bit(whole, tmp_path, at, workers):
    steps = steps_per_epoch(whole)
    after_three = 3 * steps - 1
    place = places(whole)[after_three + {"after-3-epochs": 0, "mid-epoch": 1, "last-step": steps - 1}[at]]
    assert (place[1] == 0) == (at == "after-3-epochs")
    tiny_run.cut_back(whole, tmp_path, place)
    folder = tiny_run.run(tmp_path, f"data.workers={workers}")
    assert places(folder) == places(whole)
    assert tiny_run.differences(tiny_run.outcome(folder), tiny_run.outcome(whole)) == []
    for name in ("last.safetensors", "best.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


@pytest.fixture
def full_disk(monkeypatch):
    """The disk is full at the 8th state, and has room again after the 10th or when the test says so."""
    write, calls = async_save.write_state, []

    def write_or_fail(folder, snapshot):
        calls.append(snapshot.name)
        if 8 <= len(calls) <= 10:
            raise OutputError(f"{snapshot.name}: No space left on device")
        return write(folder, snapshot)

    with monkeypatch.context() as patch:
        patch.setattr(async_save, "write_state", write_or_fail)
        yield patch


@pytest.mark.parametrize("background", ["true", "false"], ids=["background", "foreground"])
def test_full_disk_ends_a_run_that_goes_on_with_the_same_bits(whole, tmp_path, full_disk, background):
    with pytest.raises(OutputError, match="No space left on device"):
        tiny_run.run(tmp_path, f"train.async_save={background}")
    full_disk.undo()
    folder = tiny_run.run(tmp_path)
    assert tiny_run.differences(tiny_run.outcome(folder), tiny_run.outcome(whole)) == []


def test_full_disk_does_not_end_a_run_told_to_go_on(whole, tmp_path, full_disk):
    folder = tiny_run.run(tmp_path, "train.on_save_error=continue")
    assert len(places(folder)) == len(places(whole)) - 3
    assert tiny_run.differences(tiny_run.outcome(folder), tiny_run.outcome(whole)) == []


@pytest.mark.parametrize(
    "workers",
    [0, 1, 2, pytest.param(4, marks=pytest.mark.filterwarnings("ignore:This DataLoader will create"))],
    ids=["again", "worker-1", "workers-2", "workers-4"],
)
def test_same_seed_same_bits(whole, tmp_path, workers):
    folder = tiny_run.run(tmp_path, f"data.workers={workers}", "train.save_steps=0")
    assert tiny_run.differences(tiny_run.outcome(folder), tiny_run.outcome(whole)) == []


def test_another_seed_gives_other_bits(whole, tmp_path):
    folder = tiny_run.run(tmp_path, "run.seed=1", "train.save_steps=0", "train.epochs=1")
    first, other = tiny_run.outcome(whole), tiny_run.outcome(folder)
    assert first["progress"]["history"][0]["loss"] != other["progress"]["history"][0]["loss"]


def trained(steps, folder, start=0):
    """`steps` steps with an average of the weights and a loss scale, or those from `start` on."""
    torch.manual_seed(5)
    model = tiny_run.tiny_hrnet(num_joints=3)
    model.reset_parameters("kaiming")
    config, device, ema = TrainConfig(), torch.device("cpu"), Ema(model, 0.9)
    optimizer = build_optimizer(model, config, device)
    step = TrainStep(
        model,
        optimizer,
        config,
        objective=HeatmapObjective(sigma=2.0),
        dtype=torch.bfloat16,
        device=device,
        ema=ema,
        graph=False,
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
    step.update.scaler = scaler
    extra = {"ema": ema, "skipped": step.update.skipped}
    load_state(folder, model, optimizer, scaler, extra=extra)
    for number in range(start, steps):
        draw = torch.Generator().manual_seed(number)
        crop = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=draw)
        joints = torch.rand(2, 3, 2, generator=draw) * 32
        weight = torch.full((2, 3), torch.nan if number == 1 else 1.0)  # step 1 is skipped
        step({"crop": crop, "joints": joints, "weight": weight}, 1e-3 * 0.1 ** (number // 2), number=number)
    with StateSaver(folder) as saver:
        saver.save(model, optimizer, scaler, Progress(epoch=steps), extra=extra)
    return folder


def test_average_and_counters_go_on_with_the_same_bits(tmp_path):
    """What a run holds besides the network; the states are written in the background."""
    one, two = tmp_path / "one", tmp_path / "two"
    trained(6, one)
    trained(3, two)
    torch.rand(7)
    trained(6, two, start=3)
    found, expected = tiny_run.state(two), tiny_run.state(one)
    assert expected["extra"]["skipped"] == 1
    assert expected["scaler"]["scale"] != 4.0
    assert tiny_run.differences(found, expected) == []


@pytest.fixture
def four_threads():
    """Switches torch and OpenCV between one thread and four."""
    before = torch.get_num_threads(), cv2.getNumThreads()

    def switch(count):
        torch.set_num_threads(count)
        cv2.setNumThreads(count)

    yield switch
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def crops():
    config = load_config("samples/figures", tiny_run.SETTINGS)
    dataset = crop_dataset(config, train_table(config), ModelMeta("any", 17), training=True)
    return torch.stack([torch.from_numpy(dataset[3, index]["crop"]) for index in range(4)])


def loss_and_gradient():
    generator = torch.Generator().manual_seed(1)
    heatmaps = torch.rand(32, 17, 32, 24, generator=generator, requires_grad=True)
    joints = torch.rand(32, 17, 2, generator=generator) * 96
    loss = heatmap_loss(heatmaps, joints, torch.ones(32, 17), input_size=(96, 128), sigma=2.0)
    return torch.cat([loss.detach()[None], torch.autograd.grad(loss, heatmaps)[0].flatten()])


def keypoints():
    heatmaps = torch.rand(32, 17, 32, 24, generator=torch.Generator().manual_seed(2))
    boxes = torch.ones(32, 2)
    return torch.cat([part.flatten() for part in decode_heatmaps(heatmaps, boxes, boxes)[:2]])


@pytest.mark.parametrize("work", [crops, loss_and_gradient, keypoints])
def test_threads_change_no_bit_outside_the_network(four_threads, work):
    four_threads(1)
    alone = work()
    four_threads(4)
    assert torch.equal(work(), alone)


def forward_and_backward():
    torch.manual_seed(0)
    model = tiny_run.tiny_hrnet().to(memory_format=torch.channels_last)
    model.reset_parameters("kaiming")
    loss = model(torch.randn(4, 3, 64, 64)).square().sum()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients])


def test_network_with_the_same_number_of_threads(four_threads):
    """torch's convolutions and BatchNorm add in an order that the number of threads decides, so only as many
    threads give the same bits; other numbers agree to rounding."""
    four_threads(4)
    first = forward_and_backward()
    assert torch.equal(forward_and_backward(), first)
    four_threads(1)
    assert torch.linalg.vector_norm(forward_and_backward() - first) < 1e-3 * torch.linalg.vector_norm(first)
