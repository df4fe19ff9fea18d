"""`python -m bench.compare`: what lost ground is found, and different machines are not compared."""

import pytest
from made_results import GPU, made_header, made_results, made_row

from bench.compare import compare, main
from bench.record import FingerprintError, dump_results
from bench.stats import UNDECIDED

FAST = (1e-3, 1.01e-3, 0.99e-3, 1e-3, 1.02e-3)


def test_a_kernel_that_became_slow_is_caught():
    before = made_results(made_row(own=FAST, eager=2.0), made_row("fuse/cpu/other", eager=3.0))
    after = made_results(made_row(own=FAST, eager=1.5), made_row("fuse/cpu/other", eager=3.0))
    worse, others = compare(before, after)
    assert worse == ["fuse/cpu/small: against eager: before 2.00 [2.00, 2.00], after 1.50 [1.50, 1.50]"]
    assert len(others) == 1


@pytest.mark.parametrize("factor", [2.5, 2.0, 1.95], ids=["faster", "same", "within-slack"])
def test_what_did_not_lose_ground_passes(factor):
    worse, others = compare(made_results(made_row(eager=2.0)), made_results(made_row(eager=factor)))
    assert not worse
    assert len(others) == 1


@pytest.mark.parametrize("busy", ["before", "after"])
def test_rows_of_a_busy_core_say_nothing(busy):
    results = {"before": made_results(made_row(eager=2.0)), "after": made_results(made_row(eager=1.0))}
    row = results[busy]["rows"][0]
    row["shared"], row["pairs"][0]["verdict"] = 5, UNDECIDED
    worse, others = compare(results["before"], results["after"])
    assert not worse
    assert len(others) == 1


def test_a_row_that_fails_by_now_is_caught():
    failed = made_header("fuse/cpu/small") | {"status": "failed", "error": "AssertionError: output"}
    worse, _ = compare(made_results(made_row(eager=2.0)), made_results(failed))
    assert worse == ["fuse/cpu/small: failed: AssertionError: output"]


def test_rows_of_one_file_alone_say_nothing():
    assert compare(made_results(made_row("a/cpu/a")), made_results(made_row("b/cpu/b"))) == ([], [])


def test_machines_that_differ_are_refused():
    with pytest.raises(FingerprintError, match="gpu: None, Test GPU"):
        compare(made_results(), made_results(machine=GPU))


def test_exit_status(tmp_path, capsys):
    paths = {}
    for name, results in {
        "fast": made_results(made_row(eager=2.0)),
        "slow": made_results(made_row(eager=1.0)),
        "gpu": made_results(machine=GPU),
    }.items():
        paths[name] = str(tmp_path / f"{name}.json")
        (tmp_path / f"{name}.json").write_text(dump_results(results))
    assert main([paths["fast"], paths["fast"]]) == 0
    assert main([paths["fast"], paths["slow"]]) == 1
    assert "SLOWER fuse/cpu/small: against eager" in capsys.readouterr().out
    assert main([paths["fast"], paths["gpu"]]) == 2
    assert main([paths["fast"], str(tmp_path / "none.json")]) == 2
    assert "cannot be read as results" in capsys.readouterr().err
