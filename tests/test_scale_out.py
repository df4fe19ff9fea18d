"""The examples that predict many pictures, with two processes each: killed, started again, nothing lost."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from shard_pictures import write_folder, write_table, write_tar

from fastpose.infer.predictor import Predictor
from fastpose.infer.shards import find_shards
from fastpose.models import create_model, save_weights

ROOT = Path(__file__).resolve().parents[1]
SHARDS, EACH = 8, 12
SECONDS = 240  # of patience on a machine that is busy with other things


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A network of two layers would be done before anybody could stop it."""
    torch.manual_seed(0)
    network = create_model("hrnet_w18_small", 17, input_size=(64, 64))
    network.reset_parameters("kaiming")
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(network, path)
    return path


def write_source(kind: str, root: Path) -> Path:
    if kind == "folder":
        return write_folder(root, SHARDS * EACH)
    pytest.importorskip("pyarrow")
    for number in range(SHARDS):
        part = range(number * EACH, (number + 1) * EACH)
        write = write_tar if kind == "tar" else write_table
        write(root / f"{number:02d}.{kind}", part)
    return root


def start(command: list[str], log: Path) -> subprocess.Popen:
    ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # 15 starves on a busy machine
    environment = {**os.environ, **ray, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("ab") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )


def kill_once_begun(command: list[str], out: Path, log: Path) -> None:
    """SIGKILL for all processes of the command, as soon as there are results but not all."""
    process = start(command, log)
    deadline = time.monotonic() + SECONDS
    try:
        while len(list((out / "done").glob("*.json"))) < 2:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.01)
    finally:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    """And all that it has started."""
    for pid in [process.pid, *children(process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def children(pid: int) -> list[int]:
    """Processes that a process has started, and those that these have."""
    try:
        own = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [found for child in own for found in (child, *children(child))]


def finish(command: list[str], log: Path) -> None:
    process = start(command, log)
    try:
        assert process.wait(SECONDS) == 0, log.read_text()[-3000:]
    finally:
        kill(process)


def check_restart(command: list[str], out: Path, log: Path) -> None:
    """Kills, waits until nothing moves any more, starts again, and compares with one process."""
    kill_once_begun(command, out, log)
    settled = -1
    while settled != (settled := len(list((out / "done").glob("*.json")))):
        time.sleep(0.5)  # a process of the group may have been about to rename
    assert 2 <= settled < SHARDS
    before = {path: path.stat().st_mtime_ns for path in (out / "done").glob("*.json")}
    finish(command, log)
    after = {path: path.stat().st_mtime_ns for path in (out / "done").glob("*.json")}
    assert len(after) == SHARDS
    assert {path: after[path] for path in before} == before, "a shard was done twice"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["pictures"] == SHARDS * EACH
    assert summary["errors"] == 0
    assert not list(out.rglob("*.tmp"))


def check_results(rows: list[tuple[str, np.ndarray]], source: Path, weights: Path) -> None:
    """Every picture once, with the joints that a predictor of its own finds."""
    predict = Predictor(weights, device="cpu", detector="whole", batch_size=64)
    shards = find_shards(source, pictures=EACH)
    results = [result for shard in shards for result in predict.run_items(shard.items())]
    assert sorted(key for key, _ in rows) == sorted(result.name for result in results)
    found = dict(rows)
    for result in results:
        wanted = np.concatenate([result.keypoints.xy, result.keypoints.conf[..., None]], axis=2)
        np.testing.assert_allclose(found[result.name], wanted, atol=1e-3, equal_nan=True)


def table_rows(out: Path) -> list[tuple[str, np.ndarray]]:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [row for path in sorted(out.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]
    return [(row["key"], np.array(row["keypoints"], np.float32).reshape(-1, 17, 3)) for row in rows]


def test_torchrun_killed_and_started_again(tmp_path, weights):
    source, out = write_source("tar", tmp_path / "in"), tmp_path / "out"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "examples/torchrun_predict.py", str(weights), str(source), str(out),
        "--amp", "none", "--detector", "whole",
    ]  # fmt: skip
    check_restart(command, out, tmp_path / "log")
    check_results(table_rows(out), source, weights)


@pytest.mark.slow
def test_ray_killed_and_started_again(tmp_path, weights):
    pytest.importorskip("ray", reason="ray is not installed")
    source, out = write_source("folder", tmp_path / "in"), tmp_path / "out"
    command = [
        sys.executable, "examples/ray_predict.py", str(weights), str(source), str(out),
        "--pictures", str(EACH), "--amp", "none", "--detector", "whole", "--workers", "2",
    ]  # fmt: skip
    check_restart(command, out, tmp_path / "log")
    check_results(table_rows(out), source, weights)


STREAM = """
import sys
import ray
from fastpose.infer.batches import BatchPredictor

weights, source, out = sys.argv[1:]
ray.init(num_cpus=3, include_dashboard=False)
ray.data.read_parquet(source).map_batches(
    BatchPredictor,
    fn_constructor_args=(weights,),
    fn_constructor_kwargs={"device": "cpu", "detector": "whole"},
    batch_size=8,
    compute=ray.data.ActorPoolStrategy(size=2),
).write_parquet(out)
print(ray.data.read_parquet(out).count())
"""


@pytest.mark.slow
def test_ray_maps_batches_without_anything_in_between(tmp_path, weights):
    """Tables in, tables out; boxes that differ from row to row, and rows without anybody."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    assert ray.__version__
    from pyarrow import parquet

    source, out = write_source("parquet", tmp_path / "in"), tmp_path / "out"
    finish([sys.executable, "-c", STREAM, str(weights), str(source), str(out)], tmp_path / "log")
    rows = [row for path in sorted(out.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]
    assert sorted(row["other"] for row in rows) == list(range(SHARDS * EACH))
    predict = Predictor(weights, device="cpu", detector="whole")
    results = [result for s in find_shards(source) for result in predict.run_items(s.items())]
    wanted = {result.name: result for result in results}
    for row in rows:
        points = np.array(row["keypoints"]["data"], np.float32).reshape(row["keypoints"]["shape"])
        assert points.shape == (row["other"] % 3, 17, 3)
        np.testing.assert_allclose(points[..., 2], wanted[row["key"]].keypoints.conf, atol=1e-4)
