"""A row from its case to its record: what is slow is called slow, what is wrong is not timed."""

import os
import time

import pytest
import torch

from bench import measure as module
from bench.measure import last_cache, measure, nbytes
from bench.rows import Case, Limit, Row, Rows, Unavailable, all_rows, in_order
from bench.schema import check_results
from bench.tables import one_line


def double(x):
    return x * 2


def slow_double(x):
    time.sleep(3e-3)
    return x * 2


def made_case(**options):
    def check(x):
        assert torch.equal(options.get("candidate", double)(x), x + x), "output: not twice the input"

    defaults = {
        "candidate": double,
        "rivals": {"eager": slow_double},
        "check": check,
        "inputs": lambda draw: (torch.rand(1000, generator=draw),),
        "limit": Limit(bytes=8000, flops=1000),
        "cold": False,
    }
    return Case(**{**defaults, **options})


def made_row(build, **options):
    return Row("double/cpu/small", "micro", "cpu", "twice 1000 numbers", build, **options)


def run(case, **options):
    return measure(made_row(lambda: case), seconds=0.1, seed=7, **options)


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch):
    monkeypatch.setattr("bench.ceilings.COPY_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr("bench.ceilings.MATRIX", {"cpu": 64})


def test_record_fits_the_schema_and_says_what_was_done(made_results_of):
    record = run(
        made_case(items=4, unit="images", absent={"timm": "not installed"}, figures=lambda: {"kernels": 3})
    )
    made_results_of(record)
    assert (record["status"], record["seed"], record["threads"]) == ("measured", 7, 1)
    assert [side["name"] for side in record["sides"]] == ["fastpose", "eager"]
    assert record["absent"] == {"timm": "not installed"}
    assert record["figures"] == {"kernels": 3.0}
    assert record["before"] is None
    assert "double/cpu/small" in one_line(record)


@pytest.fixture
def made_results_of():
    def check(record):
        from made_results import CPU

        check_results({"schema": 2, "machine": CPU, "rows": [record]}, "file")

    return check


def test_a_faster_candidate_is_called_faster():
    (pair,) = run(made_case())["pairs"]
    assert pair["verdict"] == "faster"
    assert pair["low"] > 5


def test_an_injected_slow_kernel_is_called_slower():
    (pair,) = run(made_case(candidate=slow_double, rivals={"eager": double}))["pairs"]
    assert pair["verdict"] == "slower"
    assert pair["high"] < 0.2


def test_the_same_function_makes_no_difference():
    (pair,) = run(made_case(candidate=slow_double, rivals={"itself": slow_double}))["pairs"]
    assert pair["verdict"] == "no difference"
    assert 0.5 < pair["ratio"] < 2


def test_an_injected_wrong_kernel_is_not_timed():
    calls = []

    def wrong(x):
        calls.append(1)
        return x * 2 + 1e-3

    with pytest.raises(AssertionError, match="output: not twice the input"):
        run(made_case(candidate=wrong))
    assert len(calls) == 1


def test_memory_that_nobody_wrote_fails_the_check():
    def forgets(x):
        out = torch.empty(1000)
        out[:999] = x[:999] * 2
        return out

    torch.use_deterministic_algorithms(False)
    with pytest.raises(AssertionError, match="output"):
        run(made_case(candidate=forgets))
    empties = []
    run(made_case(check=lambda x: empties.append(torch.empty(64))))
    assert empties[0].isnan().all()


def test_a_rival_that_does_not_run_is_left_out_and_named(made_results_of):
    def broken(x):
        raise RuntimeError("no kernel\nfor this")

    record = run(made_case(rivals={"broken": broken, "eager": slow_double}, absent={"timm": "not installed"}))
    made_results_of(record)
    assert record["absent"] == {"timm": "not installed", "broken": "RuntimeError: no kernel"}
    assert [pair["rival"] for pair in record["pairs"]] == ["eager"]
    calls = iter([double])  # the first call, which tells how large the outputs are, is no warm-up
    with pytest.raises(StopIteration):
        run(made_case(candidate=lambda x: next(calls)(x), check=lambda x: None))


def test_each_row_has_the_compile_limit_to_itself():
    @torch.compile(backend="eager", dynamic=False)
    def compiled(x):
        return x * 2

    for size in range(12):  # more than torch compiles of one function before it gives up
        counted = torch._dynamo.utils.counters
        counted.clear()
        inputs = {"inputs": lambda draw, size=size: (torch.rand(size + 3, generator=draw),)}
        run(made_case(rivals={"compiled": compiled}, poison=False, **inputs))
        assert counted["stats"]["unique_graphs"] == 1


def test_inputs_come_from_the_seed():
    seen = []
    case = made_case(check=lambda x: seen.append(x.clone()))
    for seed in (7, 7, 8):
        measure(made_row(lambda: case), seconds=0, seed=seed, check_only=True)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize(
    ("cold", "cache", "sets", "mode"),
    [(True, 20_000, 10, "cold"), (True, 10**9, 1024, "partly cold"), (False, 20_000, 1, "hot")],
)
def test_sets_of_inputs_fill_the_cache_four_times(monkeypatch, cold, cache, sets, mode):
    monkeypatch.setattr(module, "last_cache", lambda device: cache)
    record = run(made_case(cold=cold))  # 4000 bytes in, 4000 out
    assert record["cache"] == {"mode": mode, "sets": sets, "bytes": sets * 8000}
    assert (record["limit"]["fraction"] is None) is (not cold)


def test_rows_without_inputs_bring_their_own():
    record = run(Case(lambda: None, {"eager": lambda: time.sleep(1e-3)}, check=lambda: None))
    assert record["cache"]["mode"] == "its own"
    assert record["limit"] is None


def test_floor_is_the_larger_of_bytes_and_operations():
    record = run(made_case(cold=True, limit=Limit(bytes=8000, flops=1000, traffic="read")))
    ceilings = record["limit"]["ceilings"]
    floor = max(8000 / ceilings["read_bytes_per_s"], 1000 / ceilings["flops_per_s"])
    assert record["limit"]["floor_s"] == pytest.approx(floor, rel=1e-3)
    assert record["limit"]["fraction"] == pytest.approx(floor / record["sides"][0]["median_s"], rel=1e-3)


def test_a_row_runs_on_its_threads_and_leaves_them_as_they_were():
    before, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    seen = []

    def look(x):
        seen.append((torch.get_num_threads(), len(os.sched_getaffinity(0))))

    measure(made_row(lambda: made_case(check=look)), seconds=0, seed=1, check_only=True)
    measure(made_row(lambda: made_case(check=look), threads=0), seconds=0, seed=1, check_only=True)
    assert seen == [(1, 1), (before, len(cores))]
    assert (torch.get_num_threads(), os.sched_getaffinity(0)) == (before, cores)


def test_bytes_of_nested_outputs():
    assert nbytes([torch.zeros(3), {"a": (torch.zeros(2, dtype=torch.bfloat16), None)}]) == 16


def test_last_cache_is_a_plausible_size():
    assert 1 << 18 <= last_cache("cpu") <= 1 << 31


def test_declarations_name_what_is_wrong():
    rows = Rows("test_declarations")
    for options, message in [
        ({"group": "tiny", "device": "cpu"}, "group: expected one of macro"),
        ({"group": "micro", "device": "tpu"}, "device: expected one of cpu, cuda, got 'tpu'"),
    ]:
        with pytest.raises(ValueError, match=message):
            rows("a", what="", **options)
    assert list(rows) == []


def test_an_id_is_declared_once():
    assert "decode/cpu/float32" in all_rows()
    with pytest.raises(ValueError, match="decode/cpu/float32: declared twice"):
        Rows("decode")("float32", group="micro", device="cpu", what="")


def test_valuable_rows_come_first():
    def declared(group, rank=0):
        return Row(f"{group}{rank}", group, "cpu", "", Unavailable, rank)

    rows = [declared("feed"), declared("micro", 1), declared("micro"), declared("macro")]
    assert [row.id for row in in_order(rows)] == ["macro0", "micro0", "micro1", "feed0"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_row_on_a_gpu(monkeypatch, made_results_of):
    monkeypatch.setitem(module.measure_ceilings.__globals__["COPY_BYTES"], "cuda", 1 << 28)
    monkeypatch.setitem(module.measure_ceilings.__globals__["MATRIX"], "cuda", 2048)
    from bench.nvml import open_gpu

    case = made_case(
        rivals={"twice": lambda x: (x + x) * 1.0},
        inputs=lambda draw: (torch.rand(1 << 22, generator=draw, device=draw.device),),
        limit=Limit(bytes=2 << 24, flops=1 << 22),
        cold=True,
    )
    row = Row("double/cuda/large", "micro", "cuda", "", lambda: case)
    record = measure(row, seconds=0.2, seed=1, gpu=open_gpu())
    made_results_of(record)
    assert [side["method"] for side in record["sides"]] == ["graph", "graph"]
    assert record["cache"]["mode"] == "cold"
    assert 0.05 < record["limit"]["fraction"] < 1.3
