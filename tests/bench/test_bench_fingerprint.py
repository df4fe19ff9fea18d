"""What a result says of its machine and its code."""

import pytest
from made_results import CPU, GPU

from bench import fingerprint
from bench.fingerprint import code, differences, machine, slug, source_digest
from bench.record import dump_results
from bench.schema import check_results


@pytest.fixture(autouse=True)
def fresh():
    for cached in (machine, code):
        cached.cache_clear()
    yield
    for cached in (machine, code):
        cached.cache_clear()


def test_this_machine_fits_the_schema():
    results = {"schema": 2, "machine": machine(), "rows": []}
    check_results(results, "here")
    assert "\n" in dump_results(results)


def test_knobs_are_what_times_depend_on(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("TORCHINDUCTOR_MAX_AUTOTUNE", "1")
    for name in ("TRITON_CACHE_DIR", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "TORCH_API_KEY", "HOME"):
        monkeypatch.setenv(name, "somewhere")
    monkeypatch.setenv("MKL_NUM_THREADS", "")
    knobs = machine()["knobs"]
    assert knobs["OMP_NUM_THREADS"] == "3"
    assert knobs["TORCHINDUCTOR_MAX_AUTOTUNE"] == "1"
    assert "somewhere" not in knobs.values()
    assert "MKL_NUM_THREADS" not in knobs


def test_every_field_counts_in_a_comparison():
    assert differences(CPU, dict(CPU)) == []
    for name in CPU:
        assert differences(CPU, CPU | {name: "other"}) == [f"{name}: {CPU[name]}, other"]


def test_commit_from_the_environment_where_there_is_no_repository(monkeypatch):
    monkeypatch.setattr(fingerprint, "_git", lambda *arguments: None)
    monkeypatch.setenv("BENCH_COMMIT", "abc123+dirty")
    assert (code()["commit"], code()["dirty"]) == ("abc123", True)
    code.cache_clear()
    monkeypatch.setenv("BENCH_COMMIT", "abc123")
    assert (code()["commit"], code()["dirty"]) == ("abc123", False)
    code.cache_clear()
    monkeypatch.delenv("BENCH_COMMIT")
    assert code()["commit"] == "unknown"


def test_digest_changes_with_sources_and_with_nothing_else(tmp_path):
    for folder in fingerprint.SOURCES:
        (tmp_path / folder).mkdir()
    (tmp_path / "kernels" / "a.py").write_text("a")
    before = source_digest(tmp_path)
    (tmp_path / "kernels" / "notes.md").write_text("b")
    (tmp_path / "bench" / "a.json").write_text("b")
    assert source_digest(tmp_path) == before
    (tmp_path / "csrc" / "a.cuh").write_text("b")
    assert source_digest(tmp_path) != before


def test_file_name_tells_machines_apart():
    assert slug(GPU).startswith("test-gpu-torch2-11-0-")
    assert slug(CPU).startswith("test-cpu-family-1-model-2-torch2-13-0-cpu-")
    assert slug(CPU) != slug(CPU | {"knobs": {"OMP_NUM_THREADS": "1"}})
