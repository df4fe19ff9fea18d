"""A results file that is not one, or contradicts itself, is refused with the place and the reason."""

import copy

import pytest
from made_results import made_header, made_results, made_row

from bench.schema import SchemaError, check_results

GOOD = made_results(
    made_row(eager=2.0, slow=0.5),
    made_header("fuse/cuda/a") | {"status": "skipped", "reason": "no nvcc"},
    made_header("fuse/cuda/b") | {"status": "failed", "error": "AssertionError: y"},
)
REMOVED = object()


def changed(path, value):
    """GOOD with the value at a dotted path replaced, added or removed."""
    results = copy.deepcopy(GOOD)
    at = results
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        at = at[step]
    if value is REMOVED:
        del at[last]
    else:
        at[last] = value
    return results


def test_good_results_pass():
    check_results(GOOD, "file")
    check_results(made_results(), "file")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 1, "file: schema: expected 2, got 1; measure again"),
        ("schema", REMOVED, "file: schema is missing"),
        ("extra", 1, "file: extra is not a field"),
        ("rows", {}, r"file\.rows: expected a list, got \{\}"),
        ("machine.torch", None, r"file\.machine\.torch: expected a text, got None"),
        ("machine.cudnn", "9", r"file\.machine\.cudnn: expected a whole number, 0 or more, got '9'"),
        ("machine.knobs", [], r"machine\.knobs: expected an object"),
        ("rows.0.group", "tiny", r"rows\[0\]\.group: expected one of macro, .*got 'tiny'"),
        ("rows.0.device", "tpu", r"rows\[0\]\.device: expected one of cpu, cuda, got 'tpu'"),
        ("rows.0.status", "guessed", r"rows\[0\]\.status: expected one of failed, skipped, measured"),
        ("rows.0", 7, r"rows\[0\]\.status: expected one of"),
        ("rows.0.code.dirty", 0, r"rows\[0\]\.code\.dirty: expected true or false, got 0"),
        ("rows.0.noise", REMOVED, r"rows\[0\]: noise is missing"),
        ("rows.0.sides.0.rounds_s.1", float("nan"), r"rounds_s\[1\]: expected a finite number"),
        ("rows.0.sides.0.rounds_s.1", 0, r"rounds_s\[1\]: expected a number above 0, got 0"),
        ("rows.0.sides.0.rounds_s.1", True, r"rounds_s\[1\]: expected a finite number, 0 or more, got True"),
        ("rows.0.limit.traffic", "both", r"limit\.traffic: expected one of copy, read, write"),
        ("rows.0.limit.ceilings.flops_per_s", -1, r"flops_per_s: expected a finite number, .*got -1"),
        ("rows.0.axes", {"batch": 1.5}, r"axes\.batch: expected a whole number"),
        ("rows.1.reason", "", r"rows\[1\]\.reason: expected a text, got ''"),
        ("rows.2.sides", [], r"rows\[2\]: sides is not a field"),
        ("rows.1.id", "fuse/cpu/small", r"rows\[1\] \(fuse/cpu/small\): id: the row is there twice"),
        ("rows.0.sides.0.median_s", 9e-4, r"median_s: expected 0\.001, as the rounds say, got 0\.0009"),
        ("rows.0.pairs.0.ratio", 2.5, "eager: ratio: expected 2, as the rounds say, got 2.5"),
        ("rows.0.pairs.0.low", 2.2, "eager: expected low <= ratio <= high"),
        ("rows.0.pairs.1.verdict", "faster", "slow: verdict: expected 'slower', got 'faster'|slow: verdict"),
        ("rows.0.shared", 2, "eager: verdict: expected 'undecided, the core was shared', got 'faster'"),
        ("rows.0.pairs", [], "pairs: expected one for each of"),
        ("rows.0.rounds", 4, "fastpose: rounds_s: expected 4 rounds, got 5"),
    ],
)  # fmt: skip
def test_bad_results_are_refused(path, value, message):
    with pytest.raises(SchemaError, match=message):
        check_results(changed(path, value), "file")


@pytest.mark.parametrize("results", [None, [], "text", 3])
def test_anything_else_is_refused(results):
    with pytest.raises(SchemaError, match="file: expected an object"):
        check_results(results, "file")
