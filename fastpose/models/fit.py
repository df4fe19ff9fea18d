"""Whether a file's tensors are a network's, and every kind of difference where they are not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fastpose.errors import CheckpointError
from fastpose.models.network import Network
from fastpose.models.registry import list_models, near_models

LISTED = 10
"""Names an error lists of each kind."""

COUNTER = "num_batches_tracked"
"""BatchNorm's step counter: files of PyTorch before 0.4.1 have none, and nothing here depends on it."""


def check_fit(
    path: Path, model: Network, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """CheckpointError with every kind of difference between `found` and `expected`, joint counts named."""
    missing = [name for name in expected if name not in found and not name.endswith(COUNTER)]
    unexpected = [name for name in found if name not in expected]
    reshaped = [name for name in expected if name in found and _differs(found[name], expected[name])]
    if not (missing or unexpected or reshaped):
        return
    shapes = [f"{name} {_kind(found[name])} instead of {_kind(expected[name])}" for name in reshaped]
    report = [f"{path}: does not fit {model.meta.model} with {model.meta.counted}"]
    report += _listing("missing", missing) + _listing("unexpected", unexpected)
    report += _listing("of another shape or type", shapes)
    outputs = None if missing or unexpected else outputs_of(model, found, expected)
    if outputs is not None:
        name = model.meta.outputs_name
        report.append(f"  only {name} differs: create the model with {name}={outputs}")
    else:
        near = ", ".join(near_models(model.meta.model))
        such = f", such as {near}" if near else ""
        report.append(f"  choose the model the file was made for{such}; {all_models()}")
    raise CheckpointError("\n".join(report))


def outputs_of(model: Network, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int | None:
    """The number of outputs with which `model` would take `found`; None where that is not what differs.

    Every size that differs must be that of the outputs, or one more (a class for none of them), by the same.
    """
    changes = set()
    for name, tensor in expected.items():
        if name not in found or found[name].shape == tensor.shape:
            continue
        if found[name].ndim != tensor.ndim:
            return None
        pairs = zip(tensor.shape, found[name].shape, strict=True)
        changes |= {(own - model.meta.outputs, other - own) for own, other in pairs if own != other}
    if len(changes) != 1:
        return None
    (extra, change), outputs = changes.pop(), model.meta.outputs
    return outputs + change if extra in (0, 1) and outputs + change > 0 else None


def all_models() -> str:
    """For messages: where all networks are listed."""
    return f"`fastpose models` lists all {len(list_models())}"


def shortened(names: list[str], most: int = LISTED) -> str:
    """For messages: the first names, and how many more there are."""
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _differs(a: Tensor, b: Tensor) -> bool:
    """Floats of any width are taken for each other, whole numbers for floats are not."""
    return a.shape != b.shape or a.is_floating_point() != b.is_floating_point()


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{tuple(tensor.shape)}"


def _listing(kind: str, names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"  {kind} ({len(names)}): {shortened(names)}"]
