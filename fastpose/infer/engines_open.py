"""How each engine opens an exported file."""

from __future__ import annotations

import importlib
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpose.errors import CheckpointError, ExportError
from fastpose.infer.export.spec import KEY, GraphSpec, spec_from_json

SUFFIXES = {"onnx": ".onnx", "openvino": ".onnx", "torch": ".pt2"}
PACKAGES = {"onnxruntime": "pip install 'fastpose[export]'", "openvino": "pip install openvino"}
AOTI_FOLDER = "/aotinductor/"
"""In the zip of a package that AOTInductor compiled."""

Arrays = Sequence[np.ndarray]


@dataclass(frozen=True)
class Graph:
    """An exported file that is ready to run: the inputs of `spec`, in order -> its outputs by name.

    Inputs and outputs are tensors on the CPU; `engine` says what runs it.
    """

    spec: GraphSpec
    engine: str
    run: Callable[[Sequence[Tensor]], Sequence[Tensor]]

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        found = self.run([x.detach().cpu().contiguous() for x in inputs])
        return dict(zip(self.spec.outputs, found, strict=True))


def needed(package: str, remedy: str = "pip install 'fastpose[export]'") -> Any:
    """The module, or ExportError that says how to get it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ExportError(f"{error.name} is not installed; {remedy}") from error


def _open_onnxruntime(path: Path, precision: str) -> Graph:
    runtime = needed("onnxruntime", PACKAGES["onnxruntime"])
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    try:
        session = runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library has many of its own, without a common base
        raise _unreadable(path, error) from error
    spec = spec_from_json(session.get_modelmeta().custom_metadata_map.get(KEY), str(path))

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        named = {name: x.numpy() for name, x in zip(spec.inputs, inputs, strict=True)}
        return [torch.from_numpy(x) for x in session.run(list(spec.outputs), named)]

    return Graph(spec, f"ONNX Runtime {runtime.__version__}", run)


def _open_openvino(path: Path, precision: str) -> Graph:
    library = needed("openvino", PACKAGES["openvino"])
    try:
        model = library.Core().read_model(str(path))
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    record = model.get_rt_info(["framework", KEY]).value if model.has_rt_info(["framework", KEY]) else None
    spec = spec_from_json(record, str(path))
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
    }
    request = library.compile_model(model, "CPU", settings).create_infer_request()

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        found = request.infer([x.numpy() for x in inputs], share_inputs=True)
        return [torch.from_numpy(np.array(found[i])) for i in range(len(spec.outputs))]

    return Graph(spec, f"OpenVINO {library.__version__.split('-')[0]}, {precision}", run)


def _open_torch(path: Path, precision: str) -> Graph:
    """What torch.export saved, or what AOTInductor compiled."""
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: not a .pt2 file of `fastpose export`")
    with zipfile.ZipFile(path) as archive:
        compiled = any(AOTI_FOLDER in name for name in archive.namelist())
    try:
        call, record = _load_compiled(path) if compiled else _load_program(path)
    except Exception as error:  # as for ONNX Runtime
        raise _unreadable(path, error) from error
    spec = spec_from_json(record, str(path))

    def run(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        with torch.no_grad():
            return call(*inputs)

    return Graph(spec, "AOTInductor" if compiled else "torch.export", run)


def _load_program(path: Path) -> tuple[Callable[..., Any], str | None]:
    extra: dict[str, Any] = {KEY: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(path, extra_files=extra)
    return program.module(), extra[KEY]


def _load_compiled(path: Path) -> tuple[Callable[..., Any], str | None]:
    from torch._inductor import aoti_load_package

    package: Any = aoti_load_package(str(path))
    return package, package.get_metadata().get(KEY)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).strip().partition("\n")[0]
    return CheckpointError(f"{path}: cannot be opened: {reason or type(error).__name__}")


ENGINES: dict[str, Callable[[Path, str], Graph]] = {
    "onnx": _open_onnxruntime,
    "openvino": _open_openvino,
    "torch": _open_torch,
}
