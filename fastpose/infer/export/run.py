"""From a network to an exported file that was seen to compute the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastpose.errors import ConfigError, ExportError
from fastpose.files import make_folder, write_atomic
from fastpose.infer.engines import open_graph
from fastpose.infer.engines_open import PACKAGES, Graph, needed
from fastpose.infer.export.check import Agreement, compare
from fastpose.infer.export.check_crops import check_crops
from fastpose.infer.export.graph import trace
from fastpose.infer.export.onnx_file import write_onnx
from fastpose.infer.export.program_file import write_compiled, write_program
from fastpose.infer.export.spec import GraphSpec, spec_of
from fastpose.models.network import Network

Write = Callable[[torch.export.ExportedProgram, GraphSpec, Path], None]


@dataclass(frozen=True)
class Format:
    suffix: str
    write: Write
    packages: tuple[str, ...] = ()


FORMATS = {
    "onnx": Format(".onnx", write_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "program": Format(".pt2", write_program),
    "compiled": Format(".pt2", write_compiled),
}


@dataclass(frozen=True)
class Exported:
    """A file that was written, what it takes and gives, and how far it is from its network."""

    path: Path
    spec: GraphSpec
    engine: str
    agreement: Agreement


def export_model(
    model: Network,
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    check_on: str | Path | Iterable[str | Path] | None = None,
    **options: Any,
) -> Exported:
    """Writes a network in a form that runs without fastpose, on the CPU in float32, for any batch.

    The file is opened again and compared with the network on random crops, on rendered figures and on
    pictures of yours before it takes its place; where anything fails, the folder stays as it was. Its record
    lets `open_graph` and `Predictor` run it without another file.

    Args:
        model: a network of `fastpose.models`, which is not changed.
        path: its suffix is that of the format.
        format: 'onnx' (.onnx), 'program' (.pt2, for torch.export.load) or 'compiled' (.pt2, C++ compiled by
            AOTInductor for CPUs like this one, minutes for a large network). None: the first that fits the
            suffix.
        check_on: pictures for the comparison: files, folders or globs, as `check_crops` takes them.
        options: those of `spec_of`: takes, flip_test, shift, decode, refine, blur_kernel and cell_offset
            (`GraphSpec`).

    Raises:
        ConfigError: an argument cannot be.
        ExportError: a package is missing, the network cannot be exported, or the file computes another thing.
        ImageError: a picture of `check_on` cannot be read.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    chosen = _format(path, format)
    spec = spec_of(model, **options)
    for package in chosen.packages:
        needed(package, PACKAGES["onnxruntime"])
    batches = check_crops(spec, check_on)
    make_folder(path.parent)
    graph, agreement = _write(model, spec, batches, chosen, path)
    return Exported(path, spec, graph.engine, agreement)


def _write(
    model: Network, spec: GraphSpec, batches: list[torch.Tensor], chosen: Format, path: Path
) -> tuple[Graph, Agreement]:
    """The file takes its place once it was opened again and agrees on the batches."""
    program = trace(model, spec)
    with tempfile.TemporaryDirectory(prefix="fastpose-") as folder:
        draft = Path(folder) / f"network{chosen.suffix}"
        chosen.write(program, spec, draft)
        graph = open_graph(draft)
        _check_record(graph, spec)
        agreement = compare(model, graph, batches)
        write_atomic(path, lambda temporary: shutil.copyfile(draft, temporary))
    return graph, agreement


def _format(path: Path, name: str | None) -> Format:
    if name is None:
        name = next((key for key, value in FORMATS.items() if value.suffix == path.suffix), None)
        if name is None:
            raise ConfigError(f"{path}: name the file .onnx or .pt2, or give a format")
    if name not in FORMATS:
        raise ConfigError(f"format: expected one of {', '.join(FORMATS)}, got {name!r}")
    if FORMATS[name].suffix != path.suffix:
        raise ConfigError(f"{path}: format {name} has the suffix {FORMATS[name].suffix}; name it so")
    return FORMATS[name]


def _check_record(graph: Graph, spec: GraphSpec) -> None:
    if graph.spec != spec:
        raise ExportError(f"{spec.meta.model}: the file's record reads back as {graph.spec}, not {spec}")
