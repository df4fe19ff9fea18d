"""Writing a traced graph as ONNX."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fastpose import __version__
from fastpose.errors import ExportError
from fastpose.infer.engines_open import needed
from fastpose.infer.export.spec import KEY, GraphSpec

OPSET = 18
"""Every operator that a graph needs is in it, and engines of the last years run it."""

BATCH = "batch"
LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")


def write_onnx(program: torch.export.ExportedProgram, spec: GraphSpec, path: Path) -> None:
    """Writes one self-contained file in standard operators, checked by onnx, with `spec` in its metadata.

    ExportError where onnx or onnxscript is missing, or the graph cannot be written in their operators.
    """
    onnx = needed("onnx")
    needed("onnxscript")
    with _quietly():
        try:
            converted: Any = torch.onnx.export(
                program,
                (),
                None,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(spec.inputs),
                output_names=list(spec.outputs),
                verbose=False,
            )
            proto = converted.model_proto
            _name_batch(proto)
            proto.producer_name, proto.producer_version = "fastpose", __version__
            onnx.helper.set_model_props(proto, {KEY: spec.to_json()})
            onnx.checker.check_model(proto, full_check=True)
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ExportError(f"{spec.meta.model}: cannot be written as ONNX: {reason}") from error
    path.write_bytes(proto.SerializeToString())


def _name_batch(proto: Any) -> None:
    """The free dimension gets its name back, which the exporter replaces by a number."""
    given = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if given in dim.dim_param:
                dim.dim_param = dim.dim_param.replace(given, BATCH)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's remarks on packages and foldings that no network here needs."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
