"""Writing a traced graph for PyTorch itself: as a program, or compiled for this machine's CPU."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from fastpose.errors import ExportError
from fastpose.infer.export.spec import KEY, GraphSpec


def write_program(program: torch.export.ExportedProgram, spec: GraphSpec, path: Path) -> None:
    """What torch.export.load reads, in any process with the same or a newer PyTorch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path, extra_files={KEY: spec.to_json()})


def write_compiled(program: torch.export.ExportedProgram, spec: GraphSpec, path: Path) -> None:
    """A package of AOTInductor: compiled C++ for CPUs like this one, minutes for a large network.

    ExportError where there is no compiler, or it fails.
    """
    from torch._inductor import aoti_compile_and_package

    settings = {"aot_inductor.metadata": {KEY: spec.to_json()}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)
        except Exception as error:  # of the compiler, of the code generator and of what they start
            reason = str(error).strip().partition("\n")[0]
            raise ExportError(f"{spec.meta.model}: AOTInductor cannot compile it: {reason}") from error
