"""What travels with a model's weights besides the numbers, and the base class that carries it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from os import PathLike
from typing import Any, ClassVar

from torch import nn

from fastpose.errors import ConfigError
from fastpose.keypoints import KeypointSet

StrPath = str | PathLike[str]

CHANNEL_ORDERS = ("rgb", "bgr")
OPTIONS = ("channel_order", "input_size", "keypoints")


@dataclass(frozen=True)
class ModelMeta:
    """How to feed a model and to read its output.

    `input_size` is (width, height) in pixels; `channel_order` is that of the pixels the weights were trained
    on ('rgb' or 'bgr', always normalised with ImageNet's RGB mean and deviation); `keypoints` is None where
    the weights do not say. Values that cannot be raise ConfigError.
    """

    model: str
    num_joints: int
    input_size: tuple[int, int] = (192, 256)
    channel_order: str = "rgb"
    keypoints: KeypointSet | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str):
            raise ConfigError(f"model must be a name, got {self.model!r}")
        if not _is_count(self.num_joints):
            raise ConfigError(f"num_joints must be a whole number above 0, got {self.num_joints!r}")
        size = tuple(self.input_size) if isinstance(self.input_size, tuple | list) else ()
        if len(size) != 2 or not all(_is_count(n) for n in size):
            raise ConfigError(f"input_size must be (width, height) in pixels, got {self.input_size!r}")
        object.__setattr__(self, "input_size", size)
        if self.channel_order not in CHANNEL_ORDERS:
            raise ConfigError(f"channel_order must be 'rgb' or 'bgr', got {self.channel_order!r}")
        if self.keypoints is not None and self.keypoints.num_joints != self.num_joints:
            raise ConfigError(
                f"keypoint set {self.keypoints.name!r} has {self.keypoints.num_joints} joints, "
                f"the model {self.num_joints}: give num_joints={self.keypoints.num_joints}"
            )

    def with_options(self, options: dict[str, Any]) -> ModelMeta:
        """A copy with the given keyword options of a model factory; those that are None change nothing."""
        for name in options:
            if name not in OPTIONS:
                raise ConfigError(f"{self.model}: unknown option {name!r}; known: {', '.join(OPTIONS)}")
        return replace(self, **{name: value for name, value in options.items() if value is not None})

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelMeta:
        """Inverse of `to_json`; text that is not such a record raises ConfigError."""
        try:
            values = json.loads(text)
            if values["keypoints"] is not None:
                values["keypoints"] = KeypointSet.from_dict(values["keypoints"])
            return cls(**values)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"not a model description: {error}") from error


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


class PoseModel(nn.Module):
    """An nn.Module that knows its meta and which of its parts an ImageNet backbone can fill.

    `backbone_layers` are first name segments; `backbone_extra` are prefixes of names in those layers that
    backbone files have and the model has not.
    """

    backbone_layers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, meta: ModelMeta) -> None:
        super().__init__()
        self.meta = meta
        self.backbone_extra: tuple[str, ...] = ()

    def reset_parameters(self, init: str = "official") -> None:
        """Draws fresh parameters; what `init` may be is the network's to say."""
        raise ConfigError(f"{type(self).__name__} has no initialisation {init!r}")
