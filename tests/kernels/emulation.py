"""fastpose._C with its CUDA code compiled for the CPU (cuda_on_cpu/), for machines without a GPU."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
import shutil
import subprocess
import sysconfig
import types
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "csrc"
SHIM = Path(__file__).resolve().parent / "cuda_on_cpu"
LAUNCH = re.compile(r"(\w+_kernel<[^;]*?>)<<<(\w+), (\w+), [^;]*?>>>\(p\)")

DECODE_TAIL = """
namespace fastpose {
thread_local PeakKey keys[kMostThreads];
void decode_cpu(const DecodeParams&, int) {}
}
extern "C" __attribute__((visibility("default"))) int launches() { return cuda_on_cpu::launches; }
"""
ASSIGNMENT_TAIL = """
namespace fastpose {
thread_local double assignment_memory[kMostCudaColumns * (kBytesPerRow + kBytesPerColumn) / sizeof(double)];
void assign_cpu(const AssignParams&, int) {}
}
"""


@functools.cache
def build_emulated(base: Path) -> types.SimpleNamespace:
    """`module`, in which the functions for the CPU do nothing, and `launches()` of kernels so far.

    Launches become calls, and the namespace is renamed, so that it can live beside the real one. `base` is a
    folder to build in; without a compiler the test is skipped.
    """
    compiler = shutil.which("g++")
    pybind11 = pytest.importorskip("pybind11")
    if compiler is None:
        pytest.skip("no g++ on PATH")
    folder = base / "cuda_on_cpu"
    folder.mkdir()
    parts = {"decode/decode_cuda.cu": DECODE_TAIL, "assignment/assignment_cuda.cu": ASSIGNMENT_TAIL}
    files = [str(SOURCES / "python" / "bindings.cpp")]
    for source, tail in parts.items():
        target = folder / f"{Path(source).stem}.cpp"
        target.write_text(_without_launches(SOURCES / source) + tail)
        files.append(str(target))
    target = folder / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    includes = [SHIM, SOURCES / "decode", SOURCES / "assignment", pybind11.get_include()]
    includes.append(sysconfig.get_path("include"))
    command = [compiler, "-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-fvisibility=hidden"]
    command += ["-fno-extern-tls-init", "-Wno-unknown-pragmas", "-D__CUDACC__", "-DFASTPOSE_HAS_CUDA"]
    command += ["-Dfastpose=fastpose_on_cpu", '-DFASTPOSE_SOURCE_HASH=""']
    command += [*(f"-I{path}" for path in includes), *files, "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spec = importlib.util.spec_from_file_location("_C", target)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return types.SimpleNamespace(module=module, launches=ctypes.CDLL(str(target)).launches)


def compile_cubin(source: Path, capability: int, target: Path) -> str:
    """What nvcc and ptxas say; skips where they do not know the GPU, fails on an error or a warning."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on PATH")
    known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    if f"compute_{capability}\n" not in known:
        pytest.skip(f"this nvcc does not know sm_{capability}")
    command = [nvcc, "-cubin", f"-arch=sm_{capability}", "-std=c++17", "-O3", "-fmad=false", "-Xptxas", "-v"]
    command += ["-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror"]
    done = subprocess.run(
        [*command, str(source), "-o", str(target)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    return done.stdout + done.stderr


def _without_launches(source: Path) -> str:
    text, count = LAUNCH.subn(r"cuda_on_cpu::launch(\1, \2, \3, p)", source.read_text())
    assert count
    assert "<<<" not in text
    return text
