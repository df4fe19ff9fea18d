"""When one process dies, freezes, fails or goes astray, all end, soon and not with 0; a restart goes on."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import small_run
import torch
import torch.distributed as dist
from processes import exit_codes, run_ranks, start_ranks
from torch import nn

from fastpose.errors import DataError, TrainingError
from fastpose.train.parallel.distributed import World, start_world
from fastpose.train.parallel.peers import LOST_PEER

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")

PATIENCE = 3.0
STEPS = 4


def steps(world: World, each: Callable[[int], None]) -> nn.Module:
    """Some steps of training, with `each(step)` before them."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    forward = world.wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        each(step)
        optimizer.zero_grad()
        forward(torch.full((2, 3), 1.0 + world.rank)).sum().backward()
        optimizer.step()
    return model


def send(who: int, what: signal.Signals, rank: int, step: int) -> None:
    if rank == who and step == 2:
        os.kill(os.getpid(), what)


def fail(who: int, rank: int, step: int) -> None:
    if rank == who and step == 2:
        raise DataError("picture 7 is gone")


def nothing(rank: int, step: int) -> None:
    pass


def drift(model: nn.Module, world: World) -> None:
    if world.rank == 1:
        model.weight.data.view(torch.int32)[0, 1] ^= 1
    world.check_in_step(model, 0, STEPS)


def one_step_less(model: nn.Module, world: World) -> None:
    if world.rank == 0:
        world.wrap(model)(torch.ones(2, 3)).sum().backward()
    world.collect(torch.zeros(1))


def work(rank: int, folder: Path, before: Callable[..., None], after: Callable[..., None] | None) -> None:
    """Exit code 2 and the message in a file for an error, as the command line does."""
    try:
        with start_world("cpu", patience=PATIENCE) as world:
            model = steps(world, functools.partial(before, rank))
            if after:
                after(model, world)
    except (TrainingError, DataError) as error:
        (folder / f"{rank}.txt").write_text(f"{type(error).__name__}: {error}")
        sys.exit(2)


def ends(
    folder: Path,
    before: Callable[..., None],
    after: Callable[..., None] | None = None,
    *,
    frozen: int = -1,
) -> tuple[list[int | None], list[str]]:
    """Exit codes and messages of two processes that must end soon; a frozen one is not waited for."""
    processes = start_ranks(work, 2, folder, before, after)
    begun = time.monotonic()
    codes = exit_codes([process for rank, process in enumerate(processes) if rank != frozen])
    assert time.monotonic() - begun < 30.0
    if frozen >= 0:
        processes[frozen].kill()
    said = [path.read_text() if path.exists() else "" for path in (folder / "0.txt", folder / "1.txt")]
    return codes, said


def test_a_run_without_trouble_ends_with_zero(tmp_path):
    assert ends(tmp_path, nothing) == ([0, 0], ["", ""])


@pytest.mark.parametrize("who", [0, 1])
def test_a_killed_process_ends_the_other(tmp_path, who):
    codes, said = ends(tmp_path, functools.partial(send, who, signal.SIGKILL))
    assert codes[who] == -signal.SIGKILL
    assert codes[1 - who] in (2, LOST_PEER)
    assert codes[1 - who] == LOST_PEER or f"rank {1 - who} has lost another process" in said[1 - who]


@pytest.mark.parametrize("who", [0, 1])
def test_a_frozen_process_ends_the_other(tmp_path, who):
    """As a machine without power does: no connection is closed."""
    codes, _ = ends(tmp_path, functools.partial(send, who, signal.SIGSTOP), frozen=who)
    assert codes == [LOST_PEER]


def test_the_reason_of_a_failure_reaches_the_other(tmp_path):
    codes, said = ends(tmp_path, functools.partial(fail, 1))
    assert codes[1] == 2
    assert said[1] == "DataError: picture 7 is gone"
    assert codes[0] in (2, LOST_PEER)
    assert codes[0] == LOST_PEER or "rank 1 ended: DataError: picture 7 is gone" in said[0]


def test_weights_that_drift_apart_are_noticed(tmp_path):
    codes, said = ends(tmp_path, nothing, drift)
    assert codes == [2, 2]
    assert all("out of step: rank 1 has weights with checksum" in message for message in said)


def test_different_numbers_of_steps_are_noticed(tmp_path):
    codes, said = ends(tmp_path, nothing, one_step_less)
    assert 0 not in codes
    assert codes[1] == 2
    assert "not all processes have come to the sums over the steps" in said[1]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "final.pt", weights_only=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[int, dict[str, torch.Tensor]]:
    """Final weights of runs that nothing happens to, by the number of processes."""
    found = {}
    for size in (1, 2):
        folder = tmp_path_factory.mktemp(f"undisturbed{size}")
        run_ranks(small_run.work, size, folder)
        found[size] = weights(folder)
    return found


def test_torchrun_starts_a_killed_run_again_and_nothing_is_lost(tmp_path, undisturbed):
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    handlers = {which: signal.getsignal(which) for which in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="small", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=1, start_method="forkserver",
    )  # fmt: skip
    try:
        elastic_launch(config, small_run.train)(tmp_path, 4)
    finally:
        for which, handler in handlers.items():
            signal.signal(which, handler)
    assert (tmp_path / "starts.txt").read_text().split() == ["0", "1"]
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, undisturbed[2][name]), name


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 3)])
def test_another_number_of_processes_goes_on(tmp_path, undisturbed, first, then):
    """The samples of each step stay the same; sums are rounded in another order."""
    run_ranks(functools.partial(small_run.work, stop_at=5), first, tmp_path)
    assert not (tmp_path / "final.pt").exists()
    run_ranks(small_run.work, then, tmp_path)
    torch.testing.assert_close(weights(tmp_path), undisturbed[1], rtol=1e-9, atol=1e-12)


SCRIPT = """
import sys
from pathlib import Path
import small_run
small_run.train(Path(sys.argv[1]), die_at=int(sys.argv[2]), patience=10.0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [0, 1])
def test_torchrun_itself(tmp_path, undisturbed, restarts):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    begun = time.monotonic()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", str(script), str(tmp_path), "4"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180)
    assert (done.returncode == 0) == (restarts == 1), done.stderr[-3000:]
    assert time.monotonic() - begun < 60.0 * (1 + restarts)
    assert (tmp_path / "starts.txt").read_text().split() == ["0", "1"][: restarts + 1]
    if restarts:
        for name, value in weights(tmp_path).items():
            assert torch.equal(value, undisturbed[2][name]), name
