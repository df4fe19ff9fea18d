"""One evaluation, in every convention that published figures use."""

from __future__ import annotations

import copy
from typing import Any

from fastpose.train.config import Config

OTHER_ORDER = {"rgb": "bgr", "bgr": "rgb"}


def pose_conventions(config: Config, channel_order: str, output: str) -> dict[str, Config]:
    """Configurations by what is different in them; the first is `config` itself.

    channel_order: that of the network. output: 'heatmaps' or 'queries'; the latter are not shifted, refined
    or scored by peaks. OKS-NMS and rescoring belong to COCO data alone.
    """
    found = {"as configured": config}
    if config.val.detections and config.data.format == "coco":
        other = "gt" if config.val.boxes == "detector" else "detector"
        found["annotated boxes" if other == "gt" else "detector boxes"] = _with(config, val_boxes=other)
    if config.val.flip_test:
        found["no flip test"] = _with(config, val_flip_test=False)
    if output == "heatmaps":
        if config.val.flip_test and config.val.shift_heatmap:
            found["flip test without the one-pixel shift"] = _with(config, val_shift_heatmap=False)
        for refine, name in (("none", "whole cells"), ("quarter", "quarter shift"), ("dark", "DARK")):
            if refine != config.val.refine:
                found[name] = _with(config, val_refine=refine)
    if config.data.format != "mpii":
        for nms in ("hard", "soft", "none"):
            if nms != config.val.nms:
                found[f"OKS-NMS {nms}"] = _with(config, val_nms=nms)
    swapped = OTHER_ORDER[channel_order]
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
