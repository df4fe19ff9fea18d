"""One evaluation, in every convention that published figures use."""

from __future__ import annotations

import copy
from typing import Any

from fastpose.models import ModelMeta
from fastpose.train.config import Config
from fastpose.train.tasks.pose_validation import reading

OTHER_ORDER = {"rgb": "bgr", "bgr": "rgb"}
SCALES = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
"""Of Cityscapes' multi-scale test (HRNet-Semantic-Segmentation README)."""
MIDDLE = 0.5
"""`val.cell_offset` of targets whose centre is cut off to a whole cell (pytorch_stacked_hourglass)."""

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
    and rescoring belong to COCO data alone, peaks in the middle of cells to the hourglass networks of MPII.
    The means of PCKh are no conventions here: every score has them all (`fastpose.metrics.pckh`).
    """
    found = {"as configured": config}
    if config.val.detections and config.data.format == "coco":
        other = "gt" if config.val.boxes == "detector" else "detector"
        found["annotated boxes" if other == "gt" else "detector boxes"] = _with(config, val_boxes=other)
    if config.val.flip_test:
        found["no flip test"] = _with(config, val_flip_test=False)
    own = reading(config, meta)
    if config.val.flip_test and output != "queries":
        moved = "the one-pixel shift" if output == "heatmaps" else "aligned bins"
        found[f"flip test {'without' if own.shift else 'with'} {moved}"] = _with(
            config, val_shift_heatmap=not own.shift
        )
    if output == "heatmaps":
        for other, name in REFINEMENTS.items():
            if other != own.refine and (other != "dark_udp" or meta.codec == "udp"):
                found[name] = _with(config, val_refine=other)
        if config.data.format == "mpii" and meta.codec == "msra":
            offset = 0.0 if own.cell_offset else MIDDLE
            where = "in the middle of cells" if offset else "at whole cells"
            found[f"peaks {where}"] = _with(config, val_cell_offset=offset)
    if output == "queries":
        background = not own.background
        within = "with" if background else "without"
        found[f"softmax {within} the class for no keypoint"] = _with(config, val_background=background)
    if config.data.format != "mpii":
        for nms in ("hard", "soft", "none"):
            if nms != config.val.nms:
                found[f"OKS-NMS {nms}"] = _with(config, val_nms=nms)
    swapped = OTHER_ORDER[meta.channel_order]
    found[f"pixels fed as {swapped.upper()}"] = _with(config, model_channel_order=swapped)
    return found


def segmentation_conventions(config: Config, channel_order: str, align_corners: bool) -> dict[str, Config]:
    """As `pose_conventions`, for a segmentation network that enlarges its maps with `align_corners`.

    Scores are published of whole pictures and of several scales, each with and without the mirrored picture;
    over scales and windows the official code takes the mean of exp(logits), with one whole picture there is
    none to take.
    """
    found = {"as configured": config}
    other = not align_corners
    found[f"align_corners {str(other).lower()}"] = _with(config, model_align_corners=other)
    for count, scales in (("one scale", [1.0]), ("several scales", SCALES)):
        for flip in (False, True):
            averaged = len(scales) > 1 or config.val.window is not None
            average = "exp" if averaged else config.val.average
            changed = _with(config, val_scales=list(scales), val_flip_test=flip, val_average=average)
            if changed.val != config.val:
                found[f"{count} {'with' if flip else 'without'} flip test"] = changed
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
