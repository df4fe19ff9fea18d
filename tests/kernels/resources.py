"""Compiles Triton kernels ahead of time for a GPU generation and finds what each one takes of it."""

import ast
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from unittest import mock

import pytest
from kernel_report import record_resources

CAPABILITIES = (80, 90, 100)
Argument = tuple[str | int, ...]  # such as ("strides", 0), one entry of a tuple argument


class Resources(NamedTuple):
    """Registers and spilled bytes of a thread, bytes of shared memory of a block, and the PTX."""

    registers: int
    spills: int
    shared: int
    ptx: str


def compile_for(
    kernel: Any,
    capability: int,
    signature: Mapping[str, Any],
    constants: Mapping[str | Argument, Any],
    num_warps: int = 4,
    num_stages: int = 3,
    aligned: Iterable[str | Argument] | None = None,
    variant: str = "",
) -> Resources:
    """What `kernel` takes on `capability`, such as 90; recorded for the report as `<kernel> <variant>`.

    Args:
        signature: argument -> "*bf16", "fp32", "i32", ...; a tuple argument -> the types of its entries.
        constants: every other argument -> value; an entry marked "constexpr" in a tuple: ("strides", 0) -> 1.
        aligned: what divides by 16, tuple entries as ("strides", 0); None: the pointers, as torch allocates.

    Raises:
        ValueError: an argument is in neither `signature` nor `constants`, or in both.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("TRITON_INTERPRET=1: kernels are interpreted, not compiled")
    types = _complete(kernel, signature, constants)
    chosen = _pointers(types) if aligned is None else aligned
    source = ASTSource(
        kernel,
        signature=types,
        constexprs={_position(kernel, argument): value for argument, value in constants.items()},
        attrs={_position(kernel, argument): [["tt.divisibility", 16]] for argument in chosen},
    )
    options = {"num_warps": num_warps, "num_stages": num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    usage = cubin_usage(compiled.asm["cubin"])
    found = usage["REG"], usage["STACK"] + usage["LOCAL"], compiled.metadata.shared
    record_resources(f"{kernel.__name__} {variant}".strip(), capability, *found)
    return Resources(*found, compiled.asm["ptx"])


def compile_many(jobs: Iterable[Mapping[str, Any]]) -> list[Resources]:
    """`compile_for(**job)` for every job. Threads are enough: Triton compiles without holding the GIL."""
    with _one_parser_at_a_time(), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda job: compile_for(**job), jobs))


@contextmanager
def _one_parser_at_a_time() -> Iterator[None]:
    """CPython 3.11 loses count of its depth where two threads make syntax trees (its issue 106905)."""
    parse, turn = ast.parse, Lock()

    def alone(*args: Any, **options: Any) -> Any:
        with turn:
            return parse(*args, **options)

    with mock.patch.object(ast, "parse", alone):
        yield


def cubin_usage(cubin: bytes) -> dict[str, int]:
    """REG, STACK, SHARED, LOCAL of the one kernel in `cubin`; a spill shows as STACK or LOCAL."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip("this Triton comes without cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool, "-res-usage", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if "REG:" in line)
    fields = (field.split(":") for field in line.split() if "[" not in field)
    return {name: int(value) for name, value in fields}


def _complete(
    kernel: Any, signature: Mapping[str, Any], constants: Mapping[str | Argument, Any]
) -> dict[str, Any]:
    """The types of all arguments, in the order of the kernel."""
    names = kernel.arg_names
    given = [*signature, *(name for name in constants if isinstance(name, str))]
    wrong = sorted({name for name in {*given, *names} if name not in names or given.count(name) != 1})
    if wrong:
        raise ValueError(
            f"{kernel.__name__}: {', '.join(wrong)}: give each of {', '.join(names)} once, "
            "in signature or in constants"
        )
    return {name: signature.get(name, "constexpr") for name in names}


def _position(kernel: Any, argument: str | Argument) -> tuple[int, ...]:
    """Triton's indices of an argument or of an entry of a tuple argument."""
    name, *rest = (argument,) if isinstance(argument, str) else argument
    return (kernel.arg_names.index(name), *rest)


def _pointers(types: Mapping[str, Any]) -> list[Argument]:
    """Where the pointers are, those in tuples included."""
    found: list[Argument] = []

    def visit(argument: Argument, kind: Any) -> None:
        if not isinstance(kind, str):
            for index, entry in enumerate(kind):
                visit((*argument, index), entry)
        elif kind.startswith("*"):
            found.append(argument)

    for name, kind in types.items():
        visit((name,), kind)
    return found
