"""What the tuner would try is valid and most valuable first; what it reports is what it timed."""

import dataclasses
import json
import time

import pytest
import torch

from bench.tune_candidates import (
    MODULES,
    Bounds,
    Entry,
    bounds_of,
    candidates,
    find_jobs,
    fits,
    shared_bytes,
)
from bench.tune_fuse import Timed, changes, load, main, save, tune

pytest.importorskip("triton")

SHARED = {80: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}
BLOCKS = ("pixels", "rows", "block", "block_c", "block_n", "block_m", "block_k")


@pytest.fixture(scope="module")
def jobs():
    return {capability: find_jobs(("w48", "w18_small"), 64, capability) for capability in SHARED}


@pytest.mark.parametrize("capability", SHARED)
def test_the_table_itself_is_valid(jobs, capability):
    for job in jobs[capability]:
        bounds = bounds_of(job, SHARED[capability])
        assert fits(job.entry.config(), bounds), job.entry


def test_candidates_are_valid_and_nearest_first(jobs):
    for job in jobs[90]:
        now, bounds = job.entry.config(), bounds_of(job, SHARED[90])
        found = candidates(now, bounds, 24)
        assert found[0] == now
        assert 10 < len(found) == len(set(found)) <= 24
        changed = [
            sum(a != b for a, b in zip(vars(c).values(), vars(now).values(), strict=True)) for c in found
        ]
        assert changed[:4] == [0, 1, 1, 1], job.entry
        for config in found:
            sizes = [getattr(config, name) for name in BLOCKS if hasattr(config, name)]
            assert all(size & (size - 1) == 0 for size in sizes)
            if hasattr(config, "block_k") or hasattr(config, "block"):
                assert min(sizes) >= 16
            else:
                assert config.pixels >= 4**bounds.coarsest
            assert shared_bytes(config, bounds) <= SHARED[90]


def test_less_shared_memory_leaves_fewer_candidates():
    config = Entry("input_backward_config", (90, 96, torch.bfloat16, True)).config()
    counts = [len(candidates(config, Bounds(shared), 10**6)) for shared in (48 << 10, 99 << 10, 227 << 10)]
    assert counts == sorted(set(counts))


def test_most_valuable_first(jobs):
    ordered = jobs[90]
    assert [job.kind for job in ordered] == sorted(job.kind for job in ordered)
    assert {str(job.entry) for job in ordered[:2]} == {
        "moments_config(90, 64, torch.bfloat16, True)",
        "row_backward_config(256, 0, 0, True)",
    }
    steps = {call.step for job in ordered for call, _ in job.calls.values()}
    assert steps == set(MODULES)
    assert len({job.entry for job in ordered}) == len(ordered)


class FakeTimer:
    def __init__(self, seconds):
        self._seconds = seconds

    def prime(self):
        pass

    def seconds(self):
        return self._seconds


class FakeTuner:
    """Seconds by a rule; `wrong` configurations fail their check."""

    def __init__(self, seconds, wrong=lambda config: False):
        self._seconds, self._wrong = seconds, wrong

    def check(self, config):
        assert not self._wrong(config), "result 0: relative L2 error 1"

    def time(self, config):
        return Timed(FakeTimer(self._seconds(config)), 1e-3, self._seconds(config))


def tuned(jobs, fake, until=float("inf")):
    job = next(job for job in jobs[90] if job.entry.function == "forward_config")
    return tune(job, fake, 12, SHARED[90], until), job.entry.config()


def test_the_fastest_right_configuration_wins(jobs):
    fast = FakeTuner(
        lambda c: 1.0 if c.num_warps == 4 else 2.0, wrong=lambda c: c.num_warps == 4 and c.num_stages < 3
    )
    record, now = tuned(jobs, fast)
    assert now.num_warps == 8
    assert record["best"]["num_warps"] == 4
    assert record["best"]["num_stages"] >= 3
    assert record["gain"] == [2.0, 2.0, 2.0]
    assert changes(record)
    assert f"-> ForwardConfig({', '.join(map(str, record['best'].values()))}): 2.00" in record["text"]
    errors = [entry for entry in record["tried"] if "error" in entry]
    assert all("relative L2 error" in entry["error"] and "seconds" not in entry for entry in errors)


@pytest.mark.parametrize("gain", [1.0, 1.01], ids=["equal", "not worth it"])
def test_small_gains_change_nothing(jobs, gain):
    record, now = tuned(jobs, FakeTuner(lambda c: 1.0 if c == nowhere(jobs) else 1.0 / gain))
    assert not changes(record)
    assert record["text"].endswith("12 timed")
    assert f"keep ForwardConfig({', '.join(map(str, dataclasses.astuple(now)))})" in record["text"]


def nowhere(jobs):
    return next(job for job in jobs[90] if job.entry.function == "forward_config").entry.config()


def test_a_table_that_fails_is_an_error_and_time_runs_out(jobs):
    with pytest.raises(AssertionError, match="relative L2"):
        tuned(jobs, FakeTuner(lambda c: 1.0, wrong=lambda c: True))
    record, _ = tuned(jobs, FakeTuner(lambda c: 1.0), until=time.monotonic() - 1)
    assert len(record["tried"]) == 1
    assert not record["complete"]


def test_results_are_kept_for_this_machine_alone(jobs, tmp_path):
    record, _ = tuned(jobs, FakeTuner(lambda c: c.num_warps))
    path = tmp_path / "tune" / "gpu.json"
    assert load(path) == {}
    save(path, {record["entry"]: record}, 64)
    assert load(path) == {record["entry"]: record}
    content = json.loads(path.read_text())
    assert content["changes"] == [record["text"]]
    cut_short = json.dumps(content | {"entries": [record | {"complete": False}]})
    path.write_text(cut_short)
    assert load(path) == {}
    path.write_text(json.dumps(content | {"code": content["code"] | {"source": "other"}}))
    assert load(path) == {}
    path.write_text(json.dumps(content | {"machine": {"gpu": "other"}}))
    with pytest.raises(ValueError, match="not of this machine"):
        load(path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_says_that_it_needs_a_gpu(capsys):
    assert main(["--minutes", "1"]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_one_entry_is_tuned_on_a_gpu(tmp_path, capsys):
    only = ["--only", "weight_backward_config*", "--networks", "w18_small", "--most", "2", "--batch", "4"]
    assert main([*only, "--out", str(tmp_path / "tune.json")]) == 0
    (entry,) = json.loads((tmp_path / "tune.json").read_text())["entries"]
    assert entry["tried"][0]["seconds"] > 0
    assert "1 of 1 entries" in capsys.readouterr().out
