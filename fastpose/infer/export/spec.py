"""What an exported file takes and gives: the record that travels inside it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Literal

from fastpose.codecs import CODECS
from fastpose.errors import CheckpointError, ConfigError
from fastpose.keypoints import COCO_17, MPII_16
from fastpose.models.meta import ModelMeta, SegmentationMeta, meta_from_json
from fastpose.models.network import Network, PoseModel
from fastpose.models.reading import reading_of
from fastpose.reference.decode import check_refinement

KEY = "fastpose"
"""Of the record among an ONNX file's metadata_props and the like."""

TAKES = ("crops", "images")
DECODES = ("crop", "image")
OUTPUTS = {
    "heatmaps": ("heatmaps",),
    "queries": ("pred_logits", "pred_coords"),
    "bins": ("x", "y"),
    "logits": ("logits",),
}
DECODED = ("keypoints", "score", "valid")


@dataclass(frozen=True)
class GraphSpec:
    """An exported network and what stands around it in the graph. Impossible values raise ConfigError.

    The batch is free and everything else fixed; W and H are `meta.input_size`.

    meta: the network's.
    network: what it gives: 'heatmaps', 'queries', 'bins' or 'logits' (segmentation).
    takes: 'crops' (B, H, W, 3) uint8 in the network's channel order, normalised inside, or 'images'
        (B, 3, H, W) float32, normalised by the caller.
    flip_test, shift: whether the mirrored picture is averaged in, and what it gives moved first.
    decode: None for the network's output, heatmaps (B, K, h, w) or x and y (B, K, bins) and the like; 'crop'
        for keypoints (B, K, 2) in pixels of the crop; 'image' for keypoints in pixels of the image, for which
        the graph also takes center and scale (B, 2) of the box, as `fastpose.ops.decode_heatmaps` does.
        Keypoints come with score (B, K) and valid (B, K) bool.
    refine, blur_kernel: of keypoints from heatmaps, as in `fastpose.ops.decode_heatmaps`.
    cell_offset: cells added to a heatmap's peak in x and y.
    """

    meta: ModelMeta | SegmentationMeta
    network: str
    takes: str = "crops"
    flip_test: bool = False
    shift: bool = True
    decode: str | None = None
    refine: str = "quarter"
    blur_kernel: int = 11
    cell_offset: float = 0.0

    def __post_init__(self) -> None:
        if self.network not in OUTPUTS:
            raise ConfigError(f"network: expected one of {', '.join(OUTPUTS)}, got {self.network!r}")
        if self.takes not in TAKES:
            raise ConfigError(f"takes: expected 'crops' or 'images', got {self.takes!r}")
        if self.decode not in (None, *DECODES):
            raise ConfigError(f"decode: expected 'crop', 'image' or None, got {self.decode!r}")
        for name in ("flip_test", "shift"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}: expected true or false, got {getattr(self, name)!r}")
        try:
            check_refinement(self.refine, self.blur_kernel)
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error)) from error
        if self.network in _NOT_INSIDE and (self.flip_test or self.decode):
            raise ConfigError(f"{self.meta.model}: {_NOT_INSIDE[self.network]}")
        if self.flip_test:
            _ = self.flip_index

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.takes, "center", "scale") if self.decode == "image" else (self.takes,)

    @property
    def outputs(self) -> tuple[str, ...]:
        return DECODED if self.decode else OUTPUTS[self.network]

    @property
    def unit(self) -> str:
        """How a map lies on its crop, as in `fastpose.ops.decode_heatmaps`."""
        return CODECS[self.meta.codec].unit if isinstance(self.meta, ModelMeta) else "size"

    @property
    def flip_index(self) -> tuple[int, ...]:
        """For each joint the one on the other side."""
        assert isinstance(self.meta, ModelMeta)
        own = self.meta.keypoints
        known = (own,) if own is not None else (COCO_17, MPII_16)
        for keypoints in known:
            if keypoints.num_joints == self.meta.num_joints:
                return tuple(keypoints.flip_index)
        raise ConfigError(
            f"{self.meta.model}: the weights do not say which of their {self.meta.num_joints} joints are "
            "left and right; export without flip test, or create the model with keypoints=KeypointSet(...)"
        )

    def to_json(self) -> str:
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps({**values, "meta": json.loads(self.meta.to_json())})


_NOT_INSIDE = {
    "queries": "joints are assigned to queries outside of the graph, which gives logits and coordinates; "
    "export without flip test and decode",
    "logits": "flip test and decode are for poses; export without them",
}


def spec_of(
    model: Network,
    *,
    refine: str = "auto",
    shift: bool | Literal["auto"] = "auto",
    blur_kernel: int | Literal["auto"] = "auto",
    cell_offset: float | Literal["auto"] = "auto",
    **options: Any,
) -> GraphSpec:
    """A spec for a network of `fastpose.models`, with the fields of `GraphSpec` as options.

    refine, shift, blur_kernel, cell_offset: 'auto' is what the weights want (`fastpose.models.reading`). What
    is asked for is said by the file, so that it is read like that where the graph leaves it to others.
    """
    if not isinstance(model, PoseModel):
        return GraphSpec(model.meta, "logits", **options)
    asked = {"refine": refine, "shift": shift, "blur_kernel": blur_kernel, "cell_offset": cell_offset}
    meta = model.meta.with_options({name: value for name, value in asked.items() if value != "auto"})
    reading = reading_of(meta)._asdict()
    del reading["background"]  # of queries, which become joints outside of the graph
    return GraphSpec(meta, model.output, **reading, **options)


def spec_from_json(text: str | None, source: str) -> GraphSpec:
    """Inverse of `GraphSpec.to_json`; CheckpointError that names `source` where it is no such record."""
    if not text:
        raise CheckpointError(f"{source}: was not written by `fastpose export`: it holds no record of it")
    try:
        values = json.loads(text)
        meta = meta_from_json(json.dumps(values.pop("meta")))
        return GraphSpec(meta=meta, **values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: its record cannot be read: {error}") from error
