"""One evaluation, in every convention that published figures use."""

from __future__ import annotations

import copy
from typing import Any

from fastpose.codecs import settled
from fastpose.models import ModelMeta
from fastpose.train.config import Config

OTHER_ORDER = {"rgb": "bgr", "bgr": "rgb"}


REFINEMENTS = {
    "none": "whole cells",
    "quarter": "quarter shift",
    "quarter_each": "quarter shift of mmpose",
    "dark": "DARK",
    "dark_udp": "DARK of UDP",
}


def pose_conventions(config: Config, meta: ModelMeta, output: str) -> dict[str, Config]:
    """Configurations by what is different in them; the first is `config` itself.

    meta: the network's. output: its own; queries and bins are not refined, and queries not shifted. OKS-NMS
    and rescoring belong to COCO data alone.
    """
    found = {"as configured": config}
    if config.val.detections and config.data.format == "coco":
        other = "gt" if config.val.boxes == "detector" else "detector"
        found["annotated boxes" if other == "gt" else "detector boxes"] = _with(config, val_boxes=other)
    if config.val.flip_test:
        found["no flip test"] = _with(config, val_flip_test=False)
    refine, shift = settled(meta.codec, config.val.refine, config.val.shift_heatmap)
    if config.val.flip_test and output != "queries":
        moved = "the one-pixel shift" if output == "heatmaps" else "aligned bins"
        found[f"flip test {'without' if shift else 'with'} {moved}"] = _with(
            config, val_shift_heatmap=not shift
        )
    if output == "heatmaps":
        for other, name in REFINEMENTS.items():
            if other != refine and (other != "dark_udp" or meta.codec == "udp"):
                found[name] = _with(config, val_refine=other)
    if config.data.format != "mpii":
        for nms in ("hard", "soft", "none"):
            if nms != config.val.nms:
                found[f"OKS-NMS {nms}"] = _with(config, val_nms=nms)
    swapped = OTHER_ORDER[meta.channel_order]
    found[f"pixels fed as {swapped.upper()}"] = _with(config, model_channel_order=swapped)
    return found


def segmentation_conventions(config: Config, channel_order: str, align_corners: bool) -> dict[str, Config]:
    """As `pose_conventions`, for a segmentation network that enlarges its maps with `align_corners`."""
    found = {"as configured": config}
    other = not align_corners
    found[f"align_corners {str(other).lower()}"] = _with(config, model_align_corners=other)
    if config.val.flip_test:
        found["no flip test"] = _with(config, val_flip_test=False)
    else:
        found["flip test"] = _with(config, val_flip_test=True)
    swapped = OTHER_ORDER[channel_order]
    found[f"pixels fed as {swapped.upper()}"] = _with(config, model_channel_order=swapped)
    return found


def _with(config: Config, **changes: Any) -> Config:
    """A copy with `group_field=value` changed."""
    changed = copy.deepcopy(config)
    for key, value in changes.items():
        group, field = key.split("_", 1)
        setattr(getattr(changed, group), field, value)
    return changed
