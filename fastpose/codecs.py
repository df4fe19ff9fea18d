"""Codecs: how joints become what a network is trained towards, and its output joints again."""

from __future__ import annotations

from dataclasses import dataclass

from fastpose.errors import ConfigError


@dataclass(frozen=True)
class Codec:
    """A codec and the test settings its weights are published with.

    Attributes:
        outputs: the kinds of network that speak it, `PoseModel.output`.
        refine: as in `fastpose.ops.decode_heatmaps`; "none" where a network's bins are finer than pixels.
        shift: whether what the mirrored picture gives is moved before it is averaged in.
        unit: how long a crop is, in pixels: "size", so that its edges are those of the outer pixels, or
            "size-1", so that they are the centres of these.
    """

    outputs: tuple[str, ...]
    refine: str
    shift: bool
    unit: str


CODECS = {
    "msra": Codec(("heatmaps", "queries"), "quarter", True, "size"),
    "udp": Codec(("heatmaps",), "dark_udp", False, "size-1"),
    "simcc": Codec(("bins",), "none", False, "size"),
}
"""msra: heatmaps of SimpleBaseline and HRNet, and with unbiased targets of DARK (arXiv:1804.06208,
arXiv:1910.06278); queries have no codec but are cut out like these. udp: unbiased data processing
(arXiv:1911.07524). simcc: one classification over bins an axis (arXiv:2107.03332)."""


def check_codec(codec: object, model: str, output: str | None = None) -> None:
    """ConfigError unless there is such a codec, and a network `model` with this output speaks it."""
    known = [name for name, own in CODECS.items() if output is None or output in own.outputs]
    if codec not in known:
        what = model if output is None else f"{model} predicts {output}"
        raise ConfigError(f"{what}: codec must be {' or '.join(map(repr, known))}, got {codec!r}")
