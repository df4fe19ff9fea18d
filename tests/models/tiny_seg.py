"""A very small HRNetV2 for segmentation, for tests of everything but its accuracy."""

from __future__ import annotations

from golden_models import fill

from fastpose.models import HRNetSeg, HRNetSegConfig, SegmentationMeta


def tiny_seg(num_classes: int = 3, filled: bool = True, **meta: object) -> HRNetSeg:
    config = HRNetSegConfig(width=2, layer1_blocks=1, blocks=1, modules=(1, 1, 1), layer1_width=4)
    model = HRNetSeg(config, SegmentationMeta("tiny_seg", num_classes, **meta))
    if filled:
        fill(model)
    return model
