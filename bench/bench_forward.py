"""Forward passes of whole networks in evaluation: the ways that users choose from, with the same weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.agreement import strict_float32
from bench.checks import check_close, poisoned
from bench.engines import onnx_side, openvino_side, tensorrt_side
from bench.profiled import figures_of
from bench.roofline import network_limit
from bench.rows import Case, Rows, Side, Unavailable
from bench.ways import AMP, BATCHES, MODELS, OFFICIAL, SIZES, Forward, Way, make_network
from fastpose.device import cpu_has_bf16

# The rounding of a hundred convolutions; for bfloat16 the plain layers are the closer bound.
FLOAT32, TF32, LOW_PRECISION = 1e-4, 2e-2, 6e-2
NO_COMPILE = "compiling hrnet_w32 takes minutes on a CPU; the rows of hrnet_w18_small have it"
rows = Rows("forward")

OWN = {"fastpose": Way(backend="triton", precision="cast", graph=True)}
COMPILED = {
    "fastpose compiled": Way(
        backend="triton", precision="cast", compile="max-autotune-no-cudagraphs", graph=True
    )
}
RIVALS = {
    "max-autotune": Way(precision="cast", compile="max-autotune"),
    "torch.compile": Way(compile="default"),
    "AMP channels_last": AMP,
    "official fp32": OFFICIAL,
    "timm compiled": Way(compile="default", timm=True),
}
LEVERS = {
    "kernels off": Way(precision="cast", graph=True),
    "one stream": Way(backend="triton", precision="cast", graph=True, streams=False),
    "no graph": Way(backend="triton", precision="cast"),
}
KINDS = {"": "", "compiled": ", both compiled", "levers": ", lever by lever"}


def draw_images(batch: int, size: tuple[int, int], draw: torch.Generator) -> tuple[Tensor]:
    """Normalised images (B, 3, H, W), float32."""
    return (torch.randn(batch, 3, size[1], size[0], generator=draw, device=draw.device),)


def check_sides(sides: Mapping[str, Any], network: nn.Module, images: Tensor) -> None:
    """Heatmaps of every side against the official way in strict float32."""
    with strict_float32():
        expected = Forward(network, OFFICIAL)(images)
    eager = Forward(network, AMP)(images)
    candidate = next(iter(sides.values()))
    with poisoned():
        check_forward("poisoned", candidate, candidate.run(images), expected, eager)
    for name, side in sides.items():
        if side is not candidate or candidate.way.graph:  # else that was it
            check_forward(name, side, side(images).clone(), expected, eager)


def check_forward(name: str, side: Side, got: Tensor, expected: Tensor, eager: Tensor) -> None:
    """bfloat16 may be 1.5 times as far off as the plain layers; other engines have their own precision."""
    way = side.way if isinstance(side, Forward) else None
    if way and way.precision == "float32":
        check_close(name, got, expected, tolerance=TF32 if got.is_cuda else FLOAT32)
    elif way:
        check_close(name, got, expected, dtype=torch.bfloat16, eager=eager, tolerance=LOW_PRECISION)
    else:
        check_close(name, got, expected, tolerance=LOW_PRECISION)


def build(
    ways: Mapping[str, Way], network: nn.Module, engines: Mapping[str, Callable[[], Side]]
) -> tuple[dict[str, Side], dict[str, str]]:
    """The sides, and those that are not to be had, with the reason."""
    makers: dict[str, Callable[[], Side]] = {
        name: partial(Forward, network, way) for name, way in ways.items()
    }
    sides, absent = {}, {}
    for name, make in {**makers, **engines}.items():
        try:
            sides[name] = make()
        except Unavailable as error:
            absent[name] = str(error)
    return sides, absent


def case(
    device: str, model: str, size: tuple[int, int], batch: int, ways: Mapping[str, Way], engines: Any
) -> Case:
    """engines: name -> function of network and images that makes another project's side."""
    network = make_network(model, device)
    network.eval()
    images = draw_images(batch, size, torch.Generator(device=device).manual_seed(0))
    made = {name: partial(make, network, *images) for name, make in engines.items()}
    sides, absent = build(ways, network, made)
    candidate = next(iter(ways))
    dtype = torch.float32 if ways[candidate].precision == "float32" else torch.bfloat16
    timed = {name: side for name, side in sides.items() if isinstance(side, Forward)}
    return Case(
        candidate=sides[candidate],
        rivals={name: side for name, side in sides.items() if name != candidate},
        check=partial(check_sides, sides, network),
        inputs=partial(draw_images, batch, size),
        limit=network_limit(network, size, training=False, batch=batch, dtype=dtype),
        name=candidate,
        method="events" if device == "cuda" else "wall",
        items=batch,
        unit="images",
        absent=absent,
        figures=partial(figures_of, timed, lambda: images) if device == "cuda" else None,
        methods=dict.fromkeys(engines, "wall"),
        poison=False,  # the check does it for the side that is not compiled
    )


def cuda_case(model: str, size: str, batch: int, kind: str = "") -> Case:
    """kind: empty for the rivals, `compiled` for both at their best, or `levers` for what each is worth."""
    ways = {
        "": {**OWN, **RIVALS},
        "levers": {**OWN, **LEVERS},
        "compiled": {**COMPILED, "max-autotune": RIVALS["max-autotune"], **OWN},
    }
    engines = {
        "ONNX Runtime": partial(onnx_side, provider="CUDAExecutionProvider"),
        "ONNX Runtime with TensorRT": partial(onnx_side, provider="TensorrtExecutionProvider"),
        "Torch-TensorRT": tensorrt_side,
    }
    return case("cuda", model, SIZES[size], batch, ways[kind], {} if kind else engines)


def cpu_case(model: str, size: tuple[int, int], batch: int) -> Case:
    """What `fastpose predict` with amp=auto runs on this CPU, against plain PyTorch and other engines."""
    small = model == "hrnet_w18_small"
    precision = "autocast" if cpu_has_bf16() else "float32"
    own = {"fastpose": Way(backend="auto", precision=precision, folded=True)}
    plain = {
        "folded fp32": Way(precision="float32", folded=True),
        "not folded": Way(precision=precision),
        "eager fp32": OFFICIAL,
    }
    if batch == 1:
        plain["channels_last fp32"] = Way(precision="float32")
    if small:
        plain["torch.compile"] = Way(precision=own["fastpose"].precision, compile="default")
    engines = {
        "ONNX Runtime": partial(onnx_side, provider="CPUExecutionProvider"),
        "OpenVINO": openvino_side,
    }
    made = case("cpu", model, size, batch, own | plain, engines)
    if not small:
        made.absent = {**made.absent, "torch.compile": NO_COMPILE}
    return made


def cuda_rank(model: str, size: str, batch: int, kind: str = "") -> int:
    """After the training steps of most value; batch 1 and 128 of the small size first."""
    later = {1: 0, 128: 0, 64: 10, 32: 14}[batch] + 30 * (size != "256x192")
    return 14 + later + 2 * list(KINDS).index(kind) + MODELS.index(model)


for _model, _size, _batch in itertools.product(MODELS, SIZES, BATCHES):
    _first = _size == "256x192" and _batch in (1, 128)
    for _kind, _note in KINDS.items() if _first else [("", "")]:
        rows(
            "-".join(filter(None, [_model.removeprefix("hrnet_"), _size, f"b{_batch}", _kind])),
            group="macro",
            device="cuda",
            what=f"{_model} at {_size}, batch {_batch}, forward, bfloat16{_note}",
            rank=cuda_rank(_model, _size, _batch, _kind),
            axes={"model": _model, "size": _size, "batch": _batch, "pass": "forward"} if not _kind else {},
            headline=_first and _model == "hrnet_w48" and not _kind,
        )(partial(cuda_case, _model, _size, _batch, _kind))
for _model, _batch in (("hrnet_w32", 1), ("hrnet_w32", 8), ("hrnet_w18_small", 1)):
    rows(
        f"{_model.removeprefix('hrnet_').replace('_', '-')}-256x192-b{_batch}",
        group="macro",
        device="cpu",
        rank=100,
        what=f"{_model} at 256x192, batch {_batch}, forward",
        axes={"model": _model, "size": "256x192", "batch": _batch, "pass": "forward"},
        headline=(_model, _batch) == ("hrnet_w32", 1),
    )(partial(cpu_case, _model, SIZES["256x192"], _batch))


@pytest.mark.parametrize("row", rows, ids=str)
def bench_forward(row: Any, check_and_measure: Any) -> None:
    check_and_measure(row)
