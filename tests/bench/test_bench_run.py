"""`pytest bench --benchmark-only` itself, on a file of small rows."""

import json
import os
import subprocess
import sys

import pytest
import torch
from made_results import GPU, made_results

from bench.fingerprint import ROOT
from bench.record import dump_results, read_results

FILE = """
import pytest, torch
from bench.rows import Case, Rows, Unavailable

rows = Rows("small")

def check(x):
    assert torch.equal(x + x, 2 * x)

def wrong(x):
    assert torch.equal(x + x, 3 * x), "output: three is not two"

def case(check=check):
    inputs = lambda draw: (torch.rand(100, generator=draw, device=draw.device),)
    return Case(lambda x: x * 2, {"sum": lambda x: x + x}, check=check, inputs=inputs, cold=False)

def missing():
    raise Unavailable("nvcc is not installed")

rows("feed", group="feed", device="cpu", what="a feed row")(case)
rows("micro", group="micro", device="cpu", what="a micro row")(case)
rows("wrong", group="micro", device="cpu", what="a wrong row", rank=1)(lambda: case(wrong))
rows("missing", group="micro", device="cpu", what="a row without its compiler", rank=2)(missing)
rows("gpu", group="macro", device="cuda", what="a GPU row")(case)

@pytest.mark.parametrize("row", rows, ids=str)
def bench_small(row, check_and_measure):
    check_and_measure(row)
"""


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "bench_small.py").write_text(FILE)
    # The sources may be edited while this runs.
    (tmp_path / "conftest.py").write_text("import bench.fingerprint\nbench.fingerprint.SOURCES = ()\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\npython_files = bench_*.py\npython_functions = bench_*\n")

    def run(*options, **environment):
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "bench.conftest",
            "-p",
            "no:cacheprovider",
            "-v",
            "-rs",
        ]
        command += ["--results", str(tmp_path / "results.json"), "--seconds-per-row", "0.05", *options]
        hidden = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        ours = ("TRITON", "PYTEST_XDIST")  # a worker of this run is none of the one that is tested
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return subprocess.run(
            [*command, str(tmp_path)],
            env=clean | hidden | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


def statuses(tmp_path):
    return {row["id"]: row["status"] for row in read_results(tmp_path / "results.json")["rows"]}


def test_a_run(bench, tmp_path):
    done = bench("--benchmark-only", "--benchmark-json", str(tmp_path / "raw.json"), "--seed", "5")
    assert done.returncode == 1, done.stderr
    assert "2 passed, 2 skipped, 1 failed" in done.stdout or "1 failed, 2 passed, 2 skipped" in done.stdout
    assert statuses(tmp_path) == {
        "small/cpu/micro": "measured", "small/cpu/wrong": "failed", "small/cpu/missing": "skipped",
        "small/cpu/feed": "measured",
    }  # fmt: skip
    rows = {row["id"]: row for row in read_results(tmp_path / "results.json")["rows"]}
    assert rows["small/cpu/wrong"]["error"] == "AssertionError: output: three is not two"
    assert rows["small/cpu/missing"]["reason"] == "nvcc is not installed"
    assert rows["small/cpu/micro"]["seed"] == 5
    assert "small/cpu/wrong: failed: AssertionError: output: three is not two" in done.stdout
    assert "needs a CUDA device, and torch finds none" in done.stdout
    assert next(iter(rows)) == "small/cpu/micro"  # the most valuable group first
    raw = json.loads((tmp_path / "raw.json").read_text())["benchmarks"]
    micro = next(row for row in raw if "micro" in row["name"])
    own = rows["small/cpu/micro"]["sides"][0]["rounds_s"]
    assert micro["stats"]["rounds"] == len(own)
    assert micro["stats"]["median"] == pytest.approx(
        rows["small/cpu/micro"]["sides"][0]["median_s"], rel=1e-3
    )
    assert micro["extra_info"]["pairs"][0]["rival"] == "sum"


def test_only_what_was_asked_for(bench, tmp_path):
    assert bench("--only", "*/micro,small/*/f*").returncode == 0
    assert set(statuses(tmp_path)) == {"small/cpu/micro", "small/cpu/feed"}


def test_resume_skips_what_is_there(bench, tmp_path):
    bench("--only", "*/micro")
    first = (tmp_path / "results.json").read_bytes()
    done = bench("--only", "*/micro", "--resume")
    assert "measured already, with the same sources" in done.stdout
    assert (tmp_path / "results.json").read_bytes() == first
    bench("--only", "*/micro")
    assert (tmp_path / "results.json").read_bytes() != first


def test_no_row_is_started_after_the_time(bench, tmp_path):
    done = bench("--only", "*/micro", "--minutes", "1e-9")
    assert "--minutes are over" in done.stdout
    assert not (tmp_path / "results.json").exists()


def test_checks_alone_write_nothing(bench, tmp_path):
    done = bench("--benchmark-disable")
    assert done.returncode == 1
    assert "output: three is not two" in done.stdout
    assert "2 passed" in done.stdout
    assert not (tmp_path / "results.json").exists()


def test_without_pytest_benchmark(bench, tmp_path):
    done = bench("-p", "no:benchmark", "--only", "*/micro")
    assert done.returncode == 0, done.stdout
    assert statuses(tmp_path) == {"small/cpu/micro": "measured"}


def test_results_of_another_machine_stop_the_run(bench, tmp_path):
    (tmp_path / "results.json").write_text(dump_results(made_results(machine=GPU)))
    done = bench("--only", "*/micro")
    assert done.returncode == 4
    assert "choose another file with --results" in done.stdout + done.stderr
    assert "not the same machine and software" in done.stdout + done.stderr


def test_the_interpreter_is_not_timed(bench, tmp_path):
    done = bench("--only", "*/micro", TRITON_INTERPRET="1")
    assert done.returncode == 4
    assert "TRITON_INTERPRET=1" in done.stdout + done.stderr
    assert not (tmp_path / "results.json").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_row_runs(bench, tmp_path):
    done = bench("--only", "*/gpu", CUDA_VISIBLE_DEVICES=os.environ.get("CUDA_VISIBLE_DEVICES", "0"))
    assert done.returncode == 0, done.stdout
    assert statuses(tmp_path) == {"small/cuda/gpu": "measured"}
