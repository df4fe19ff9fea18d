"""fastpose._ext: the extension is fresh, and its absence or age is said."""

from __future__ import annotations

import importlib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastpose import _ext

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def fresh_load() -> Iterator[None]:
    _ext.load.cache_clear()
    yield
    _ext.load.cache_clear()


@pytest.fixture
def source_tree(tmp_path: Path) -> Path:
    (tmp_path / "csrc" / "decode").mkdir(parents=True)
    (tmp_path / "CMakeLists.txt").write_text("project(x)")
    (tmp_path / "csrc" / "decode" / "a.cpp").write_text("int a;")
    return tmp_path


def fail_import(monkeypatch: pytest.MonkeyPatch, error: ImportError) -> None:
    def raise_it(name: str) -> Any:
        raise error

    monkeypatch.setattr(importlib, "import_module", raise_it)


def test_the_extension_is_built_from_these_sources() -> None:
    module, reason = _ext.load()
    if module is None:
        pytest.skip(reason)
    assert module.source_hash == _ext.source_hash(ROOT), "stale: run `pip install -e .`"


@pytest.mark.parametrize("change", ["content", "name", "new_file", "cmake"])
def test_the_hash_follows_the_sources(source_tree: Path, change: str) -> None:
    before = _ext.source_hash(source_tree)
    file = source_tree / "csrc" / "decode" / "a.cpp"
    if change == "content":
        file.write_text("int b;")
    elif change == "name":
        file.rename(file.with_name("b.cpp"))
    elif change == "new_file":
        file.with_name("b.h").touch()
    else:
        (source_tree / "CMakeLists.txt").write_text("project(y)")
    assert _ext.source_hash(source_tree) != before


def test_a_stale_extension_warns(
    source_tree: Path, monkeypatch: pytest.MonkeyPatch, fresh_load: None
) -> None:
    (source_tree / "fastpose").mkdir()
    stale = types.SimpleNamespace(source_hash="0" * 64)
    monkeypatch.setattr(_ext, "PACKAGE", source_tree / "fastpose")
    monkeypatch.setattr(importlib, "import_module", lambda name: stale)
    with pytest.warns(RuntimeWarning, match=r"other sources .* `pip install -e \.`"):
        assert _ext.load() == (stale, "")


def test_no_sources_beside_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_load: None
) -> None:
    installed = types.SimpleNamespace(source_hash="0" * 64)
    monkeypatch.setattr(_ext, "PACKAGE", tmp_path / "fastpose")
    monkeypatch.setattr(importlib, "import_module", lambda name: installed)
    assert _ext.load() == (installed, "")


@pytest.mark.parametrize(
    ("error", "note", "reason"),
    [
        (ModuleNotFoundError("no"), None, "not built: run `pip install -e .`"),
        (
            ModuleNotFoundError("no"),
            "no C++ compiler\n",
            "not built when fastpose was installed, mend this and install again: no C++ compiler",
        ),
        (ImportError("libgomp.so.1: cannot open"), None, "does not load: libgomp.so.1"),
    ],
    ids=["never_built", "failed_build", "broken"],
)
def test_why_it_is_missing(
    error: ImportError,
    note: str | None,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fresh_load: None,
) -> None:
    monkeypatch.setattr(_ext, "PACKAGE", tmp_path)
    if note:
        (tmp_path / _ext.MISSING_NOTE).write_text(note)
    fail_import(monkeypatch, error)
    assert _ext.load()[0] is None
    assert reason in _ext.missing("cpu")


@pytest.mark.parametrize(
    ("device", "has_cuda", "reason"),
    [
        ("cpu", False, ""),
        ("cuda", True, ""),
        ("cuda", False, "built without CUDA"),
        ("mps", True, "no code for mps"),
    ],
)
def test_devices(device: str, has_cuda: bool, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(has_cuda=has_cuda)
    monkeypatch.setattr(_ext, "load", lambda: (module, ""))
    assert reason in _ext.missing(device)
    assert bool(reason) == bool(_ext.missing(device))


def test_cuda_refusal_names_device_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(
        decode_cuda_status=lambda index: 209 * index, cuda_error_text=lambda code: f"no kernel image ({code})"
    )
    monkeypatch.setattr(_ext, "load", lambda: (module, ""))
    _ext.cuda_refusal.cache_clear()
    assert _ext.cuda_refusal(0) == ""
    assert _ext.cuda_refusal(1) == "cuda:1: no kernel image (209)"
    _ext.cuda_refusal.cache_clear()
