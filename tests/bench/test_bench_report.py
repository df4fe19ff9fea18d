"""The page, the plots and the README's block: what the results say, and always the same bytes."""

import re

import cv2
import numpy as np
import pytest
from made_results import CPU, GPU, made_declarations, made_header, made_results, made_row

from bench.fingerprint import ROOT
from bench.page import NO_GPU
from bench.record import dump_results
from bench.report import CLOSE, OPEN, PAGE, main, outputs, replace_block, stale, write
from bench.rows import all_rows
from bench.schema import SchemaError
from bench.stats import UNDECIDED

ROWS = made_declarations("fuse/cpu/small", "fuse/cpu/other", "fuse/cuda/small", headline=True)


@pytest.fixture
def tree(tmp_path):
    """A project with results of a CPU: one row wins and loses, one failed, the GPU's was never run."""
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"# Title\n\n{OPEN}\nold\n{CLOSE}\n\nend\n")
    failed = made_header("fuse/cpu/other") | {"status": "failed", "error": "AssertionError: output | 3"}
    put(tmp_path, "cpu", made_row(eager=2.0, compiled=0.5, same=1.0), failed)
    return tmp_path


def put(tree, name, *rows, machine=CPU):
    (tree / "bench" / "results" / f"{name}.json").write_text(
        dump_results(made_results(*rows, machine=machine))
    )


def page_of(tree, rows=ROWS):
    return outputs(tree, rows)[PAGE].decode()


def test_the_committed_page_is_what_the_committed_results_say():
    files = outputs(ROOT, all_rows())
    changed = [name for name in stale(ROOT, files) if not name.endswith(".png")]
    assert not changed, "run `python -m bench.report` and commit what it writes"
    made = {name for name in files if name.endswith(".png")}
    there = {f"docs/images/{path.name}" for path in (ROOT / "docs" / "images").glob("bench_*.png")}
    assert made == there, "run `python -m bench.report`"


def test_the_same_results_give_the_same_bytes(tree):
    steps = [made_row(f"step/cuda/b{batch}", eager=2.0) for batch in (1, 8)]
    for batch, row in zip((1, 8), steps, strict=True):
        row["axes"] = {"model": "hrnet_w48", "size": "256x192", "batch": batch, "pass": "step"}
    put(tree, "gpu", *steps, machine=GPU)
    rows = ROWS | made_declarations("step/cuda/b1", "step/cuda/b8")
    assert outputs(tree, rows) == outputs(tree, rows)
    assert len([name for name in outputs(tree, rows) if name.endswith(".png")]) == 4


def test_losses_stand_beside_wins(tree):
    page = page_of(tree)
    assert "| eager | 2.00 ms | 2.00 [2.00, 2.00] |" in page
    assert "| compiled | 500 µs | 0.50 [0.50, 0.50] **slower** |" in page
    assert "| same | 1.00 ms | 1.00 [1.00, 1.00] **no difference** |" in page
    assert "1 rows, 3 pairs: 1 faster, 1 slower, 1 no difference." in page
    assert "| 50%, 500 µs |" in page


def test_what_is_not_measured_is_listed_with_its_reason(tree):
    page = page_of(tree)
    _, missing = page.split("## Not measured yet")
    assert "`fuse/cuda/small` | what fuse/cuda/small does | needs a GPU; no results of one" in missing
    assert "`fuse/cpu/other` | what fuse/cpu/other does | failed: AssertionError: output &#124; 3" in missing
    assert "fuse/cpu/small" not in missing
    assert NO_GPU in page


def test_gpu_results_come_first_and_end_the_notice(tree):
    put(tree, "gpu", made_row("fuse/cuda/small", eager=3.0), machine=GPU)
    page = page_of(tree)
    assert NO_GPU not in page
    assert page.index("## Test GPU") < page.index("## Test CPU")


def test_of_two_measurements_the_later_counts(tree):
    put(tree, "a-later", made_row(date="2026-02-01", eager=4.0))
    page = page_of(tree)
    assert "4.00 [4.00, 4.00]" in page
    assert "2.00 [2.00, 2.00]" not in page
    assert page.count("## Test CPU") == 1


def test_machines_are_not_mixed(tree):
    put(tree, "other", made_row(eager=4.0), machine=CPU | {"torch": "2.12.0"})
    page = page_of(tree)
    assert page.count("## Test CPU") == 2
    assert "2.00 [2.00, 2.00]" in page


def test_rows_that_are_not_declared_any_more_are_named_and_left_out(tree):
    page = page_of(tree, made_declarations("fuse/cpu/other"))
    assert "Left out, no longer declared: fuse/cpu/small." in page
    assert "2.00 [2.00, 2.00]" not in page


def test_changed_trees_and_missing_rivals_are_told(tree):
    row = made_row(eager=2.0)
    row["code"]["dirty"], row["absent"], row["rejected"] = True, {"timm": "not installed"}, 3
    put(tree, "cpu", row)
    page = page_of(tree)
    assert "012345678 with uncommitted changes" in page
    assert (
        "- `fuse/cpu/small`: without timm (not installed); 3 rounds left out, other work had the core."
        in page
    )


def test_a_row_above_its_limit_is_doubted(tree):
    row = made_row(eager=2.0)
    row["limit"]["fraction"] = 1.26
    put(tree, "cpu", row)
    assert "| 126%, 500 µs (the ceiling was measured too low) |" in page_of(tree)


def test_rows_of_a_busy_core_have_no_verdict(tree):
    row = made_row(eager=2.0)
    row["shared"], row["pairs"][0]["verdict"] = 4, UNDECIDED
    put(tree, "cpu", row)
    page = page_of(tree)
    assert "2.00 [2.00, 2.00] **undecided, the core was shared**" in page
    assert "other work had the core in 4 of 5 rounds: measure again" in page
    assert "1 pairs: 0 faster, 0 slower, 0 no difference, 1 undecided." in page


def test_without_results_the_page_says_so(tree):
    (tree / "bench" / "results" / "cpu.json").unlink()
    page = page_of(tree)
    assert NO_GPU in page
    assert all(f"`{name}`" in page for name in ROWS)


def test_readme_has_the_headline_rows_and_keeps_the_rest(tree):
    write(tree, outputs(tree, ROWS))
    text = (tree / "README.md").read_text()
    assert text.startswith(f"# Title\n\n{OPEN}\nTest CPU")
    assert text.endswith(f"{CLOSE}\n\nend\n")
    assert "| what fuse/cpu/small does | 1.00 ms | compiled | 0.50 [0.50, 0.50], slower |" in text
    assert "No GPU has run a benchmark yet." in text
    assert "old" not in text


def test_written_files_are_up_to_date_and_edits_are_not(tree):
    files = outputs(tree, ROWS)
    assert sorted(write(tree, files)) == sorted(files)
    assert stale(tree, outputs(tree, ROWS)) == []
    page = tree / PAGE
    page.write_text(page.read_text().replace("2.00", "3.00"))
    (tree / "docs" / "images" / "bench_old.png").write_bytes(b"")
    assert stale(tree, outputs(tree, ROWS)) == [PAGE, "docs/images/bench_old.png"]
    write(tree, outputs(tree, ROWS))
    assert not (tree / "docs" / "images" / "bench_old.png").exists()


def test_markers(tree):
    assert replace_block("no markers", "block") == "no markers"
    for text in (f"{OPEN} alone", f"{CLOSE}\n{OPEN}", f"{OPEN}{OPEN}{CLOSE}"):
        with pytest.raises(ValueError, match=r"README.md: expected <!-- benchmarks --> once"):
            replace_block(text, "block")


def test_bad_results_are_an_error_that_names_the_file(tree, capsys, monkeypatch):
    (tree / "bench" / "results" / "bad.json").write_text("{}")
    with pytest.raises(SchemaError, match=r"bad\.json: machine is missing"):
        outputs(tree, ROWS)
    monkeypatch.setattr("bench.report.ROOT", tree)
    assert main([]) == 2
    assert "bench.report: error: " in capsys.readouterr().err


def test_check_writes_nothing(tree, capsys, monkeypatch):
    monkeypatch.setattr("bench.report.ROOT", tree)
    monkeypatch.setattr("bench.report.all_rows", lambda: ROWS)
    assert main(["--check"]) == 1
    assert not (tree / PAGE).exists()
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert "nothing to change" in capsys.readouterr().out


def pictures(tree, rows):
    files = outputs(tree, rows)
    return {
        re.search("bench_([a-z]+)_", name)[1]: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        for name, data in files.items() if name.endswith(".png")
    }  # fmt: skip


def has_color(picture, rgb):
    return int((np.abs(picture.astype(int) - np.array(rgb[::-1])).max(axis=2) < 12).sum())


def test_plots_only_for_what_there_is(tree):
    assert set(pictures(tree, ROWS)) == {"roofline"}
    row = made_row(eager=2.0)
    row["limit"] = None
    put(tree, "cpu", row)
    assert pictures(tree, ROWS) == {}


def test_plots_show_sides_and_floor(tree):
    steps = [made_row(f"step/cuda/b{batch}", eager=2.0) for batch in (1, 8)]
    for batch, row in zip((1, 8), steps, strict=True):
        row["axes"] = {"model": "hrnet_w48", "size": "256x192", "batch": batch, "pass": "step"}
    put(tree, "cpu", *steps)
    found = pictures(tree, made_declarations("step/cuda/b1", "step/cuda/b8"))
    assert set(found) == {"steps", "batches", "roofline"}
    own, eager, floor = (0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00), (0xB0, 0x3A, 0x2E)
    bars = found["steps"]
    assert has_color(bars, eager) > 1.7 * has_color(bars, own) > 10_000  # twice the time, twice the height
    assert has_color(bars, floor) > 300
    assert has_color(found["batches"], own) > 300
    assert has_color(found["batches"], eager) > 300
    assert has_color(found["roofline"], floor) > 300
