"""What travels with a network's weights besides the numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from os import PathLike
from typing import Any, ClassVar, Self

from fastpose.classes import ClassSet
from fastpose.codecs import check_codec
from fastpose.errors import ConfigError
from fastpose.keypoints import KeypointSet
from fastpose.nn.normalize import MEAN, STD
from fastpose.reference.decode import check_refinement

StrPath = str | PathLike[str]
Triple = tuple[float, float, float]

CHANNEL_ORDERS = ("rgb", "bgr")
READING = ("refine", "shift", "blur_kernel", "cell_offset", "background")
"""Fields of a `ModelMeta` that say how the output of a network is read."""


class Meta:
    """How to feed a network. What networks of one task have in common; see `ModelMeta`, `SegmentationMeta`.

    `task` is the kind of network, `outputs` how many joints or classes it predicts (field `outputs_name`),
    `options` the fields that a factory takes as keywords, `layer_options` those on which layers may depend.
    """

    task: ClassVar[str]
    options: ClassVar[tuple[str, ...]]
    layer_options: ClassVar[tuple[str, ...]] = ()
    outputs_name: ClassVar[str]
    model: str
    input_size: tuple[int, int]
    channel_order: str
    mean: Triple
    std: Triple

    @property
    def outputs(self) -> int:
        return int(getattr(self, self.outputs_name))

    @property
    def counted(self) -> str:
        """For messages, such as '17 joints'."""
        return f"{self.outputs} {self.outputs_name.removeprefix('num_')}"

    def with_options(self, options: dict[str, Any]) -> Self:
        """A copy with the given keyword options of a model factory; those that are None change nothing."""
        for name in options:
            if name not in self.options:
                raise ConfigError(f"{self.model}: unknown option {name!r}; known: {', '.join(self.options)}")
        changes: Any = {name: value for name, value in options.items() if value is not None}
        return replace(self, **changes)  # type: ignore[type-var]

    def to_json(self) -> str:
        return json.dumps({"task": self.task, **asdict(self)})  # type: ignore[call-overload]

    def _check_feeding(self) -> None:
        """Checks and completes the fields that all metas have."""
        if not isinstance(self.model, str):
            raise ConfigError(f"model must be a name, got {self.model!r}")
        size = tuple(self.input_size) if isinstance(self.input_size, tuple | list) else ()
        if len(size) != 2 or not all(_is_count(n) for n in size):
            raise ConfigError(f"input_size must be (width, height) in pixels, got {self.input_size!r}")
        object.__setattr__(self, "input_size", size)
        if self.channel_order not in CHANNEL_ORDERS:
            raise ConfigError(f"channel_order must be 'rgb' or 'bgr', got {self.channel_order!r}")
        for name in ("mean", "std"):
            object.__setattr__(self, name, _triple(name, getattr(self, name)))
        if not all(value > 0 for value in self.std):
            raise ConfigError(f"std must be three numbers above 0, got {self.std!r}")


@dataclass(frozen=True)
class ModelMeta(Meta):
    """How to feed a pose network and to read its output.

    `input_size` is (width, height) in pixels; `channel_order` is that of the pixels the weights were trained
    on ('rgb' or 'bgr'); `mean` and `std` normalise pixel / 255 in the order of the channels as fed (the
    official BGR weights were trained with ImageNet's RGB statistics); `keypoints` is None where the weights
    do not say; `codec` says what joints were made into, 'msra', 'udp' or 'simcc' (see `fastpose.codecs`),
    `split_ratio` how many bins of SimCC there are a pixel, and `num_modules` how many residuals at each place
    of an hourglass. `refine`, `shift`, `blur_kernel`, `cell_offset` and `background` say how the output is
    read (`fastpose.models.reading`), None as the codec's weights are published with. Values that cannot be
    raise ConfigError.
    """

    model: str
    num_joints: int
    input_size: tuple[int, int] = (192, 256)
    channel_order: str = "rgb"
    keypoints: KeypointSet | None = None
    mean: Triple = MEAN
    std: Triple = STD
    codec: str = "msra"
    split_ratio: float = 2.0
    num_modules: int = 1
    refine: str | None = None
    shift: bool | None = None
    blur_kernel: int | None = None
    cell_offset: float | None = None
    background: bool | None = None

    task: ClassVar[str] = "pose"
    outputs_name: ClassVar[str] = "num_joints"
    options: ClassVar[tuple[str, ...]] = (
        "channel_order", "input_size", "keypoints", "mean", "std", "codec", "split_ratio", "num_modules",
        *READING,
    )  # fmt: skip
    layer_options: ClassVar[tuple[str, ...]] = ("input_size", "split_ratio", "num_modules")

    def __post_init__(self) -> None:
        check_keypoints(self.keypoints)
        for name in ("num_joints", "num_modules"):
            if not _is_count(getattr(self, name)):
                raise ConfigError(f"{name} must be a whole number above 0, got {getattr(self, name)!r}")
        self._check_feeding()
        check_codec(self.codec, self.model)
        if type(self.split_ratio) not in (int, float) or not 0 < self.split_ratio <= 16:
            raise ConfigError(f"split_ratio must be above 0 and at most 16, got {self.split_ratio!r}")
        if self.codec != "simcc" and self.split_ratio != 2:
            raise ConfigError(f"split_ratio is of codec 'simcc', not {self.codec!r}")
        self._check_reading()
        if self.keypoints is not None and self.keypoints.num_joints != self.num_joints:
            raise ConfigError(
                f"keypoint set {self.keypoints.name!r} has {self.keypoints.num_joints} joints, "
                f"the model {self.num_joints}: give num_joints={self.keypoints.num_joints}"
            )

    def _check_reading(self) -> None:
        for name in ("shift", "background"):
            if not isinstance(getattr(self, name), bool | None):
                raise ConfigError(f"{name} must be true or false, got {getattr(self, name)!r}")
        offset = self.cell_offset
        if offset is not None and (type(offset) not in (int, float) or not -1 <= offset <= 1):
            raise ConfigError(f"cell_offset must be a share of a cell from -1 to 1, got {offset!r}")
        try:
            kernel = 1 if self.blur_kernel is None else self.blur_kernel
            check_refinement("none" if self.refine is None else self.refine, kernel)
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error)) from None

    @classmethod
    def from_json(cls, text: str) -> ModelMeta:
        """Inverse of `to_json`; text that is not such a record raises ConfigError."""
        meta = meta_from_json(text)
        if not isinstance(meta, ModelMeta):
            raise ConfigError(f"not a pose model's description, but a {meta.task} model's")
        return meta


@dataclass(frozen=True)
class SegmentationMeta(Meta):
    """How to feed a segmentation network and to read its output.

    `num_classes` counts the background; `classes` names them, None where the weights do not say;
    `align_corners` is how maps are enlarged, inside the network and after it, and `bn_momentum` the share of
    a batch in BatchNorm's running averages, above 0 and at most 1 (official checkpoints differ in both).
    `input_size` is that of the training crops, (width, height). The rest as in `ModelMeta`.
    """

    model: str
    num_classes: int
    input_size: tuple[int, int] = (512, 512)
    channel_order: str = "rgb"
    classes: ClassSet | None = None
    align_corners: bool = False
    mean: Triple = MEAN
    std: Triple = STD
    bn_momentum: float = 0.1

    task: ClassVar[str] = "segmentation"
    outputs_name: ClassVar[str] = "num_classes"
    options: ClassVar[tuple[str, ...]] = (
        "channel_order", "input_size", "classes", "align_corners", "mean", "std", "bn_momentum",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not _is_count(self.num_classes):
            raise ConfigError(f"num_classes must be a whole number above 0, got {self.num_classes!r}")
        self._check_feeding()
        if not isinstance(self.align_corners, bool):
            raise ConfigError(f"align_corners must be true or false, got {self.align_corners!r}")
        if type(self.bn_momentum) not in (int, float) or not 0 < self.bn_momentum <= 1:
            raise ConfigError(f"bn_momentum must be above 0 and at most 1, got {self.bn_momentum!r}")
        if self.classes is not None and self.classes.num_classes != self.num_classes:
            known, count = self.classes.name, self.classes.num_classes
            message = f"class set {known!r} has {count} classes, the model {self.num_classes}"
            raise ConfigError(f"{message}: give num_classes={count}")


def check_keypoints(keypoints: Any) -> KeypointSet | None:
    """What was given as `keypoints`, which may be None; ConfigError where it is no KeypointSet."""
    if keypoints is None or isinstance(keypoints, KeypointSet):
        return keypoints
    raise ConfigError(
        f"keypoints: expected a fastpose.keypoints.KeypointSet, got {repr(keypoints)[:80]}; give COCO_17, "
        "MPII_16 or a KeypointSet(...) of your own, from fastpose.keypoints"
    )


def meta_from_json(text: str) -> ModelMeta | SegmentationMeta:
    """Inverse of `to_json`; text that is not such a record raises ConfigError."""
    try:
        values = json.loads(text)
        task = values.pop("task", ModelMeta.task)  # files of version 0.1 do not say
        if task == SegmentationMeta.task:
            if values["classes"] is not None:
                values["classes"] = ClassSet.from_dict(values["classes"])
            return SegmentationMeta(**values)
        if task != ModelMeta.task:
            raise ConfigError(f"unknown task {task!r}")
        if values["keypoints"] is not None:
            values["keypoints"] = KeypointSet.from_dict(values["keypoints"])
        return ModelMeta(**values)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"not a model description: {error}") from error


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _triple(name: str, values: object) -> Triple:
    three: list[Any] = list(values) if isinstance(values, tuple | list) and len(values) == 3 else [None]
    if not all(isinstance(v, int | float) and abs(v) < 1e6 for v in three):  # NaN is not below
        raise ConfigError(f"{name} must be three numbers, one a channel, got {values!r}")
    first, second, third = map(float, three)
    return first, second, third
