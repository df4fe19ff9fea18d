"""Two CUDA devices against one: NCCL, SyncBatchNorm, the captured step, the evaluation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_ranks
from test_train_distributed_val import people, settings
from tolerances import TOLERANCES

from fastpose.models import PoseModel
from fastpose.train.config import TrainConfig
from fastpose.train.engine.step import TrainStep
from fastpose.train.objectives import HeatmapObjective
from fastpose.train.optim import build_optimizer
from fastpose.train.parallel.batch_plan import plan_batches
from fastpose.train.parallel.distributed import World, start_world
from fastpose.train.tasks.pose_validation import validate

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from tiny_models import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]
TOTAL, JOINTS, STEPS = 8, 17, 15
RTOL = TOLERANCES["distributed", "cuda"][1]
CASES = {"graph": True, "no_graph": False}


def batch(step: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(step)
    return {
        "crop": torch.randint(0, 256, (TOTAL, 64, 64, 3), generator=draw, dtype=torch.uint8),
        "joints": torch.rand(TOTAL, JOINTS, 2, generator=draw) * 60,
        "weight": torch.ones(TOTAL, JOINTS),
    }


def network(world: World) -> PoseModel:
    torch.manual_seed(1)
    model = tiny(num_joints=JOINTS, width=8).to(world.device, memory_format=torch.channels_last)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def train(world: World, graph: bool) -> dict[str, Any]:
    """Some steps with BatchNorm over all samples; more of them than DistributedDataParallel warms up for."""
    torch.backends.cudnn.allow_tf32 = False
    model, config = network(world), TrainConfig()
    plan = plan_batches(100, TOTAL, rank=world.rank, world=world.size)
    forward = world.wrap(model, weight=plan.weight, sync_bn=world.size > 1)
    optimizer = build_optimizer(model, config, world.device)
    step = TrainStep(
        model, optimizer, config, objective=HeatmapObjective(sigma=1.0),
        dtype=None, device=world.device, graph=graph,
        forward=None if forward is model else forward,
    )  # fmt: skip
    part = slice(world.rank * plan.share, (world.rank + 1) * plan.share)
    for number in range(STEPS):
        step({name: tensor[part] for name, tensor in batch(number).items()}, 1e-3)
    step.finish()
    world.check_in_step(model, 0, STEPS)
    parameters = [parameter.detach().cpu() for parameter in model.parameters()]
    return {"loss": world.collect(step.sums)[0], "parameters": parameters}


def figures(world: World) -> dict[str, Any]:
    evaluation, predictions = validate(network(world), settings(64), people(), world.device, world=world)
    return {"metrics": evaluation.metrics, "keypoints": torch.from_numpy(predictions.keypoints.copy())}


def work(rank: int, folder: Path) -> None:
    with start_world("cuda") as world:
        for name, graph in CASES.items():
            torch.save(train(world, graph), folder / f"{name}-{rank}.pt")
        torch.save(figures(world), folder / f"figures-{rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two")
    run_ranks(work, 2, folder)
    return {name: torch.load(folder / f"{name}-0.pt", weights_only=True) for name in (*CASES, "figures")}


def distance(got: dict[str, Any], expected: dict[str, Any]) -> float:
    """Norm of the difference of all parameters, over their norm."""
    flat, wanted = (torch.cat([p.flatten() for p in one["parameters"]]) for one in (got, expected))
    return float((flat - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("case", CASES)
def test_two_devices_train_as_one(two, case):
    alone = train(World(torch.device("cuda", 0)), CASES[case])
    assert two[case]["loss"] == pytest.approx(alone["loss"], rel=RTOL)
    assert distance(two[case], alone) <= RTOL


def test_a_captured_step_is_the_step(two):
    assert distance(two["graph"], two["no_graph"]) <= RTOL


def test_evaluation_is_that_of_one(two):
    alone = figures(World(torch.device("cuda", 0)))
    assert two["figures"]["metrics"] == alone["metrics"]
    assert torch.equal(two["figures"]["keypoints"], alone["keypoints"])
