"""How the output of a pose network becomes joints: as asked for, or as its weights or their codec want it."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

from fastpose.codecs import CODECS
from fastpose.models.meta import ModelMeta
from fastpose.reference.dark import MAX_BLUR_KERNEL

T = TypeVar("T")
Auto = Literal["auto"]

BLUR_KERNEL = 11
"""Taps of the blur of `dark` where nothing says otherwise: those published for targets of sigma 2."""


class Reading(NamedTuple):
    """`refine` and `blur_kernel` are those of `fastpose.ops.decode_heatmaps`, `background` that of
    `fastpose.infer.queries.decode_queries`; `shift` says whether what the mirrored picture gives is moved
    before it is averaged in, `cell_offset` how many cells are added to a heatmap's peak in x and y."""

    refine: str
    shift: bool
    blur_kernel: int
    cell_offset: float
    background: bool


def reading_of(
    meta: ModelMeta,
    *,
    refine: str = "auto",
    shift: bool | Auto = "auto",
    blur_kernel: int | Auto = "auto",
    cell_offset: float | Auto = "auto",
    background: bool | Auto = "auto",
) -> Reading:
    """What is 'auto' is what `meta` says, and where it does not, what the codec is published with."""
    codec = CODECS[meta.codec]
    return Reading(
        _first(refine, meta.refine, codec.refine),
        _first(shift, meta.shift, codec.shift),
        _first(blur_kernel, meta.blur_kernel, BLUR_KERNEL),
        _first(cell_offset, meta.cell_offset, 0.0),
        _first(background, meta.background, False),
    )


def kernel_for(sigma: float) -> int:
    """Taps of the blur of `dark`, as published, for targets of this sigma: 11 for 2 and 17 for 3."""
    return min(max(2 * round(3 * sigma) - 1, 1), MAX_BLUR_KERNEL)


def _first(asked: T | Auto, said: T | None, usual: T) -> T:
    if asked != "auto":
        return asked
    return usual if said is None else said
