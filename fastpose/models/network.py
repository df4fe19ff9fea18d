"""The base classes of all networks, which carry their meta."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from fastpose.codecs import check_codec
from fastpose.errors import ConfigError
from fastpose.models.meta import ModelMeta, SegmentationMeta


class Network(nn.Module):
    """An nn.Module that knows its meta and which of its parts an ImageNet backbone can fill.

    `backbone_layers` are first name segments, `backbone_extra` prefixes of names that only such files have.
    """

    backbone_layers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, meta: ModelMeta | SegmentationMeta) -> None:
        super().__init__()
        self.meta: Any = meta
        self.backbone_extra: tuple[str, ...] = ()

    def reset_parameters(self, init: str = "official") -> None:
        """Draws fresh parameters; what `init` may be is the network's to say."""
        raise ConfigError(f"{type(self).__name__} has no initialisation {init!r}")

    def adapt_names(self, found: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """A file's tensors under this network's names, and the names of those that the network never uses."""
        return found, []

    def conventions_of(self, unused: list[str]) -> dict[str, Any]:
        """Options of the meta that follow from the network, and from which tensors of a file it never uses,
        where the file itself does not say."""
        return {}


class PoseModel(Network):
    """A network that finds joints in crops (B, 3, H, W).

    `output` says what it predicts: 'heatmaps', 'queries' (see `fastpose.models.prtr`) or 'bins' (see
    `fastpose.models.simcc`). A codec that no such network speaks raises ConfigError, and so does a
    `num_modules` above 1 where the network has none (`has_modules`).
    """

    output: ClassVar[Literal["heatmaps", "queries", "bins"]] = "heatmaps"
    has_modules: ClassVar[bool] = False
    meta: ModelMeta

    def __init__(self, meta: ModelMeta) -> None:
        super().__init__(meta)
        check_codec(meta.codec, meta.model, self.output)
        if meta.num_modules != 1 and not self.has_modules:
            raise ConfigError(f"{meta.model}: num_modules={meta.num_modules} is of hourglasses; leave it out")

    def heatmaps(self, output: Tensor) -> list[Tensor]:
        """The network's output -> its heatmaps (B, K, h, w), the final ones last; a loss takes them all."""
        return [output]


class SegmentationModel(Network):
    """A network that gives every pixel of an image (B, 3, H, W) a class: logits (B, num_classes, h, w)."""

    meta: SegmentationMeta
