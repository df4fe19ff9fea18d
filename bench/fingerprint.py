"""Which machine, software and code a result belongs to."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bench.nvml import open_gpu

ROOT = Path(__file__).resolve().parents[1]
KNOBS = re.compile(
    "(OMP|MKL|KMP|GOMP|OPENBLAS|NVIDIA|CUDA|CUBLAS|CUDNN|PYTORCH|TORCH|TORCHINDUCTOR|TORCHDYNAMO|TRITON|FASTPOSE)_"
)
NOT_KNOBS = re.compile("_(DIR|PATH|HOME|ROOT|DEVICES|VERSION|CAPABILITIES|CAPS)$|_REQUIRE_|_TOKEN|_KEY")
SOURCES = ("fastpose", "kernels", "csrc", "bench")
SUFFIXES = {".py", ".cpp", ".cu", ".h", ".cuh"}


@functools.cache
def machine() -> dict[str, Any]:
    """All that times depend on besides the code; results are compared only where every field agrees."""
    gpu = torch.cuda.is_available()
    nvml = open_gpu()
    return {
        "gpu": torch.cuda.get_device_name(0) if gpu else None,
        "driver": nvml.driver() if nvml else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpu else None,
        "torch": torch.__version__,
        "triton": _version("triton"),
        "numpy": _version("numpy"),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "knobs": {
            name: value
            for name, value in sorted(os.environ.items())
            if value and KNOBS.match(name) and not NOT_KNOBS.search(name)
        },
    }


@functools.cache
def code() -> dict[str, Any]:
    """Commit, whether the tree differs from it, and a digest of the sources, which needs no repository.

    Where there is no repository, BENCH_COMMIT names the commit; it ends in `+dirty` for a changed tree.
    """
    commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    if commit is None or status is None:
        commit, _, mark = os.environ.get("BENCH_COMMIT", "unknown").partition("+")
        status = mark
    return {"commit": commit, "dirty": bool(status), "source": source_digest(ROOT)}


def source_digest(root: Path) -> str:
    """12 hex digits over names and bytes of all that a row can run."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """`field: left, right` for each field in which two machines differ."""
    names = [*left, *(name for name in right if name not in left)]
    return [
        f"{name}: {left.get(name)}, {right.get(name)}" for name in names if left.get(name) != right.get(name)
    ]


def slug(of: dict[str, Any]) -> str:
    """A file name for results of a machine: what it is, its torch, and a digest of all fields."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{of['gpu'] or of['cpu']} torch{of['torch']}".lower()).strip("-")
    return f"{words}-{hashlib.sha256(repr(sorted(of.items())).encode()).hexdigest()[:6]}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """Name, family and model, since hypervisors shorten the name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(re.findall(r"^(model name|cpu family|model)\s*: (.+)$", text, re.MULTILINE))
    if "model name" not in found:
        return platform.machine()
    return f"{found['model name']} (family {found.get('cpu family')}, model {found.get('model')})"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
