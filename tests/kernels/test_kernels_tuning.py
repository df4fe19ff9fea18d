"""What bench/tune_fuse.py tries is looked up as the launchers do, and the compiler takes it."""

import importlib

import pytest
from interpreter import run_interpreted
from launches import recorded
from resources import compile_for

from bench.tune_candidates import MODULES, Entry, bounds_of, candidates, find_jobs, shared_bytes
from bench.tune_fuse import launcher

pytest.importorskip("triton")

SHARED = 227 * 1024  # of a block on sm_90


@pytest.fixture(scope="module")
def jobs():
    return find_jobs(("w48", "w18_small"), 64, 90)


def test_entries_are_what_the_launchers_look_up(jobs, monkeypatch):
    """Every call of every kind of entry, on "meta", where the kernels are recorded and not run."""
    modules = [importlib.import_module(f"fastpose.kernels.{name}") for name in sorted({*MODULES.values()})]
    modules.append(importlib.import_module("fastpose.kernels.pixel_products"))
    asked = []
    configs = importlib.import_module("fastpose.kernels.configs")
    for name in {job.entry.function for job in jobs}:
        for module in modules:
            if hasattr(module, name):

                def look_up(*arguments, _name=name):
                    asked.append(Entry(_name, arguments))
                    return getattr(configs, _name)(*arguments)

                monkeypatch.setattr(module, name, look_up)
    with recorded(*modules) as launched:
        for job in jobs:
            for call, _ in job.calls.values():
                asked.clear()
                launcher(call)(*call.arguments.values())
                assert asked == [job.entry], call.step
    assert launched


@pytest.mark.parametrize(
    "entry",
    [
        "forward_config(90, (1, 2, 3), torch.bfloat16, True)",
        "input_backward_config(90, 96, torch.bfloat16, True)",
        "moments_config(90, 96, torch.bfloat16, True)",
    ],
)
def test_what_needs_most_shared_memory_still_compiles(jobs, entry):
    job = next(job for job in jobs if str(job.entry) == entry)
    bounds = bounds_of(job, SHARED)
    largest = max(
        candidates(job.entry.config(), bounds, 10**6), key=lambda config: shared_bytes(config, bounds)
    )
    call, _ = next(iter(job.calls.values()))
    modules = [importlib.import_module(f"fastpose.kernels.{MODULES[call.step]}")]
    modules.append(importlib.import_module("fastpose.kernels.pixel_products"))
    with recorded(*modules) as launched:
        launcher(call)(*call.arguments.values(), config=largest)
    used = compile_for(capability=90, variant="largest to tune", **launched[0])
    assert used.shared <= SHARED
    assert used.shared <= 1.25 * shared_bytes(largest, bounds) + 4096


SCRIPT = """
import dataclasses
from bench.fuse_calls import step_calls
from bench.fuse_cases import exchange
from bench.tune_candidates import MODULES, Job, bounds_of, candidates, entry_of, signature
from bench.tune_fuse import Tuner, flat

shape = dataclasses.replace(exchange((8, 16, 24)), size=(8, 8))
draw = torch.Generator().manual_seed(3)
outputs = {}
for call in step_calls(shape, 2, torch.bfloat16):
    if call.step in MODULES and call.step not in outputs:
        job = Job(entry_of(call, 90, True), {signature(call): (call, 2)}, 0)
        tuner, other = Tuner(job, draw), candidates(job.entry.config(), bounds_of(job, 99 << 10), 2)[1]
        tuner.check(other)
        tuner._expected[0] = tuner._expected[1] = [x * 1.1 for x in flat(tuner._expected[0])]
        try:
            tuner.check(other)
        except AssertionError as error:
            outputs[call.step] = str(error)
"""


def test_candidates_run_and_wrong_ones_are_found_out(tmp_path):
    """Every step, twice in a call, in the interpreter."""
    found = run_interpreted(SCRIPT, 0, tmp_path)
    assert set(found) == set(MODULES)
    assert all("result" in text and "relative L2 error" in text for text in found.values())
