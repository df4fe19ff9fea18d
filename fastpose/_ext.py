"""Finds the compiled extension `fastpose._C`, or says why it is not there. Standard library only."""

from __future__ import annotations

import functools
import hashlib
import importlib
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).resolve().parent
MISSING_NOTE = "_C_missing.txt"  # written by setup.py where the extension could not be built


def source_hash(root: Path) -> str:
    """SHA-256 over the names and bytes of CMakeLists.txt and everything in csrc/, as hexadecimal digits."""
    digest = hashlib.sha256()
    files = [root / "CMakeLists.txt", *(path for path in (root / "csrc").rglob("*") if path.is_file())]
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


@functools.cache
def load() -> tuple[Any, str]:
    """(module, "") or (None, why it is missing). Imports once; warns where the sources have changed since."""
    try:
        module = importlib.import_module("fastpose._C")
    except ImportError as error:
        return None, _why_missing(error)
    _warn_if_stale(module)
    return module, ""


def missing(device_type: str) -> str:
    """Why the extension cannot serve tensors of `device_type` (cpu or cuda); empty where it can."""
    module, reason = load()
    if module is None or device_type == "cpu":
        return reason
    if device_type != "cuda":
        return f"fastpose._C has no code for {device_type} tensors"
    if not module.has_cuda:
        return "fastpose._C was built without CUDA: put nvcc on PATH and run `pip install -e .`"
    return ""


@functools.cache
def cuda_refusal(index: int) -> str:
    """Why CUDA device `index` cannot run the extension; empty where it can. Needs `missing("cuda") == ""`."""
    module, _ = load()
    code = module.decode_cuda_status(index)
    return "" if code == 0 else f"cuda:{index}: {module.cuda_error_text(code)}"


def _why_missing(error: ImportError) -> str:
    note = PACKAGE / MISSING_NOTE
    if note.exists():
        reason = note.read_text().strip()
        return f"not built when fastpose was installed, mend this and install again: {reason}"
    if isinstance(error, ModuleNotFoundError):
        return "fastpose._C is not built: run `pip install -e .` in the source tree"
    return f"fastpose._C does not load: {error}"


def _warn_if_stale(module: ModuleType) -> None:
    root = PACKAGE.parent
    if not (root / "csrc").is_dir() or not (root / "CMakeLists.txt").is_file():
        return
    if module.source_hash != source_hash(root):
        warnings.warn(
            "fastpose._C was built from other sources than those in csrc/: run `pip install -e .` again",
            RuntimeWarning,
            stacklevel=2,
        )
