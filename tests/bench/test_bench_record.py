"""Results files: row by row, resumed, and never of two machines."""

import json

import pytest
from made_results import CODE, CPU, GPU, made_header, made_results, made_row

from bench.record import FingerprintError, Recorder, dump_results, read_results, require_same_machine
from bench.schema import SchemaError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "results.json"


def ids(path):
    return [row["id"] for row in read_results(path)["rows"]]


def test_each_row_is_on_the_disk_when_it_is_added(path):
    recorder = Recorder(path, CPU)
    assert not path.exists()
    recorder.add(made_row("fuse/cpu/a", eager=2.0))
    assert ids(path) == ["fuse/cpu/a"]
    recorder.add(made_row("fuse/cpu/b"))
    assert ids(path) == ["fuse/cpu/a", "fuse/cpu/b"]
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_a_row_measured_again_takes_the_place_of_the_former(path):
    recorder = Recorder(path, CPU)
    recorder.add(made_row("fuse/cpu/a", date="2026-01-01"))
    recorder.add(made_row("fuse/cpu/a", date="2026-01-02"))
    (row,) = read_results(path)["rows"]
    assert row["date"] == "2026-01-02"


def test_rows_of_another_process_are_kept(path):
    first, second = Recorder(path, CPU), Recorder(path, CPU)
    first.add(made_row("fuse/cpu/a"))
    second.add(made_row("fuse/cpu/b"))
    first.add(made_row("fuse/cpu/c"))
    assert ids(path) == ["fuse/cpu/a", "fuse/cpu/b", "fuse/cpu/c"]


def test_resume_knows_what_was_measured_with_the_same_sources(path):
    recorder = Recorder(path, CPU)
    recorder.add(made_row("fuse/cpu/a"))
    recorder.add(made_header("fuse/cpu/b") | {"status": "failed", "error": "AssertionError"})
    assert Recorder(path, CPU).has("fuse/cpu/a", CODE["source"])
    assert not recorder.has("fuse/cpu/a", "another")
    assert not recorder.has("fuse/cpu/b", CODE["source"])
    assert not recorder.has("fuse/cpu/c", CODE["source"])


def test_a_row_that_is_none_never_reaches_the_file(path):
    recorder = Recorder(path, CPU)
    recorder.add(made_row("fuse/cpu/a"))
    before = path.read_bytes()
    with pytest.raises(SchemaError, match="rounds is missing"):
        recorder.add({key: value for key, value in made_row("fuse/cpu/b").items() if key != "rounds"})
    assert path.read_bytes() == before


def test_results_of_another_machine_are_not_added_to(path):
    Recorder(path, CPU).add(made_row())
    with pytest.raises(FingerprintError, match=r"--results.*gpu: None, Test GPU; driver: None, 580\.1"):
        Recorder(path, GPU)


def test_comparison_of_two_machines_names_the_fields():
    require_same_machine(made_results(), made_results(made_row()), "compare")
    other = CPU | {"knobs": {"OMP_NUM_THREADS": "1"}}
    with pytest.raises(FingerprintError, match=r"compare: not the same machine.*knobs: \{\}, \{'OMP_NUM"):
        require_same_machine(made_results(), made_results(machine=other), "compare")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "cannot be read as results", id="cut"),
        pytest.param('{"schema": NaN}', "NaN is not a number", id="nan"),
        pytest.param('{"schema": 2, "rows": []}', "machine is missing", id="incomplete"),
    ],
)
def test_files_that_are_none_are_refused_by_name(path, text, message):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(SchemaError, match=rf"results\.json: .*{message}|{message}"):
        read_results(path)


def test_text_is_json_with_numbers_on_one_line():
    results = made_results(made_row(eager=2.0))
    text = dump_results(results)
    assert json.loads(text) == results
    assert "[0.001, 0.00101, 0.00099, 0.001, 0.00102]" in text
