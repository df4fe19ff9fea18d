"""The CUDA decoder without a GPU: what its kernels take of three generations; their logic, run on the CPU."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from emulation import SOURCES, build_emulated, compile_cubin
from kernel_report import record_resources
from official_dark import gaussian_maps
from torch import Tensor

from fastpose import _ext
from fastpose.backend import use_backend
from fastpose.ops import Decoded, decode_heatmaps
from fastpose.reference import decode as reference

ENTRY = re.compile(r"Compiling entry function '_ZN8fastpose\d+(\w+?)I(f|NS_4bf16E|NS_4fp16E)((?:Lb[01]E)+)E")
TYPES = {"f": "fp32", "NS_4bf16E": "bf16", "NS_4fp16E": "fp16"}
NAN, INF = float("nan"), float("inf")


class Usage(NamedTuple):
    registers: int
    spills: int
    shared: int


def name_of(kernel: str, dtype: str, flags: str) -> str:
    flip, *dense = (flag == "1" for flag in re.findall("Lb([01])E", flags))
    layout = ("dense" if dense[0] else "strided") if dense else ""
    return " ".join(f"{kernel} {TYPES[dtype]} {'flip' if flip else 'plain'} {layout}".split())


def parse_usage(log: str) -> dict[str, Usage]:
    """What ptxas says of every kernel."""
    found = {}
    for part in log.split("ptxas info    : ")[1:]:
        if entry := ENTRY.match(part):
            name, lost = name_of(*entry.groups()), part
        elif match := re.match(r"Used (\d+) registers", part):
            sizes = re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", lost)
            shared = re.search(r"(\d+) bytes smem", part)
            found[name] = Usage(int(match[1]), sum(map(int, sizes)), int(shared[1]) if shared else 0)
        elif "bytes stack frame" in part:
            lost = part
    return found


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_compiles_without_spills(capability: int, tmp_path: Path) -> None:
    log = compile_cubin(SOURCES / "decode" / "decode_cuda.cu", capability, tmp_path / "decode.cubin")
    usage = parse_usage(log)
    assert len(usage) == 3 * 2 * 3, "three dtypes, plain or flipped, three layouts"
    for name, used in usage.items():
        record_resources(name, capability, *used)
    assert {name: used.spills for name, used in usage.items() if used.spills} == {}
    assert max(used.registers for used in usage.values()) <= 64  # 1024 threads a multiprocessor


@pytest.fixture
def emulated(tmp_path_factory: pytest.TempPathFactory) -> types.SimpleNamespace:
    return build_emulated(tmp_path_factory.getbasetemp())


@pytest.fixture
def on_gpu_code(emulated: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """decode_heatmaps runs the GPU's code for tensors on the CPU."""

    def decode_cpu(params: Any, threads: int) -> None:
        assert emulated.module.decode_cuda(params, 0, 0) == 0

    standing_in = types.SimpleNamespace(
        DecodeParams=emulated.module.DecodeParams, decode_cpu=decode_cpu, has_cuda=False
    )
    monkeypatch.setattr(_ext, "load", lambda: (standing_in, ""))
    with use_backend("cpp"):
        yield emulated


LAYOUTS = {
    "contiguous": lambda maps: maps,
    "channels_last": lambda maps: maps.contiguous(memory_format=torch.channels_last),
    "transposed": lambda maps: maps.transpose(2, 3).contiguous().transpose(2, 3),
    "window": lambda maps: torch.nn.functional.pad(maps, (2, 1, 1, 1, 1, 2)).contiguous(
        memory_format=torch.channels_last
    )[:, 1:-2, 1:-1, 2:-1],
}


def with_holes(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Few distinct values, so ties; NaN and infinities; one map without any finite value."""
    values = torch.tensor([NAN, INF, -INF, -1.0, 0.0, 0.5, 0.5, 1.0, 2.0, 2.0])
    maps = values[torch.randint(0, len(values), shape)].to(dtype)
    maps[0, 0] = NAN
    return maps


def assert_same(got: Decoded, expected: Decoded) -> None:
    for name, a, b in zip(Decoded._fields, got, expected, strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("flip", ["plain", "flip", "flip_shift"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_kernels_agree_with_the_reference(
    on_gpu_code: types.SimpleNamespace, layout: str, flip: str, dtype: torch.dtype
) -> None:
    for shape in ((2, 17, 9, 7), (5, 3, 13, 11), (1, 133, 6, 5), (1, 1, 2, 200)):
        maps = LAYOUTS[layout](with_holes(shape, dtype))
        center, scale = torch.rand(shape[0], 2) * 600, torch.rand(shape[0], 2) * 3 + 0.2
        options: dict[str, Any] = {}
        if flip != "plain":
            flipped = LAYOUTS[layout](with_holes(shape, dtype))
            options = {"flipped": flipped, "flip_index": torch.randperm(shape[1])}
            options["shift"] = flip == "flip_shift"
        for refine in ("none", "quarter"):
            before = on_gpu_code.launches()
            got = decode_heatmaps(maps, center, scale, refine=refine, **options)
            assert on_gpu_code.launches() == before + 1
            assert_same(got, reference.decode_heatmaps(maps, center, scale, refine=refine, **options))


@pytest.mark.parametrize("joints", [1025, 1100])
def test_more_joints_than_threads(on_gpu_code: types.SimpleNamespace, joints: int) -> None:
    maps = with_holes((1, joints, 4, 5), torch.float32).contiguous(memory_format=torch.channels_last)
    order = torch.randperm(joints)
    got = decode_heatmaps(maps, flipped=maps, flip_index=order)
    assert_same(got, reference.decode_heatmaps(maps, flipped=maps, flip_index=order))


@pytest.mark.parametrize("lift", [0.0, -0.3], ids=["positive", "clamped"])
@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel", [3, 11])
def test_dark(on_gpu_code: types.SimpleNamespace, kernel: int, layout: str, flip: bool, lift: float) -> None:
    maps = gaussian_maps((2, 17, 24, 20), 1.5, margin=1.0)[0] + lift
    maps[0, 1, 5, 5], maps[0, 2], maps[1, 0] = NAN, -1.0, INF
    maps = LAYOUTS[layout](maps)
    options = {"flipped": maps.flip(3) * 0.9, "flip_index": torch.randperm(17)} if flip else {}
    before = on_gpu_code.launches()
    got = decode_heatmaps(maps, refine="dark", blur_kernel=kernel, **options)
    assert on_gpu_code.launches() == before + 1
    expected = reference.decode_heatmaps(maps, refine="dark", blur_kernel=kernel, **options)
    assert torch.equal(got.score, expected.score)
    torch.testing.assert_close(got.keypoints, expected.keypoints, atol=1e-4, rtol=0)
    assert not torch.equal(got.keypoints, got.keypoints.round())


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_entry_that_is_no_joint(on_gpu_code: types.SimpleNamespace, layout: str) -> None:
    """On a GPU nobody looks at the entries beforehand."""
    maps = LAYOUTS[layout](torch.rand(2, 4, 9, 7))
    entries = torch.tensor([0, 4, -1, 3])
    keypoints, score, valid = torch.ones(2, 4, 2), torch.ones(2, 4), torch.ones(2, 4, dtype=torch.bool)
    outputs = {"keypoints": keypoints, "score": score, "valid": valid}
    params = on_gpu_code.module.DecodeParams(
        **{name: value.data_ptr() for name, value in outputs.items()},
        heatmaps=maps.data_ptr(), flipped=maps.data_ptr(), flip_index=entries.data_ptr(), center=0, scale=0,
        heatmap_strides=maps.stride(), flipped_strides=maps.stride(), batch=2, joints=4, height=9, width=7,
        dtype=0, shift=True, refine=1, blur=[1.0],
    )  # fmt: skip
    assert on_gpu_code.module.decode_cuda(params, 0, 0) == 0
    assert valid.tolist() == [[True, False, False, True]] * 2
    assert score[:, 1:3].tolist() == [[0.0, 0.0]] * 2
    assert keypoints[:, 1:3].abs().sum() == 0
