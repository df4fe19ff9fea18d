"""Operations with fast implementations behind them; fastpose.reference says what each one computes."""

from fastpose.backend import op_status
from fastpose.ops._fuse import fuse
from fastpose.ops.assignment import assign_joints
from fastpose.ops.decode import decode_heatmaps
from fastpose.ops.heatmap import gaussian_heatmaps
from fastpose.ops.loss import heatmap_loss, heatmap_loss_and_gradient
from fastpose.ops.warp import warp_crops
from fastpose.reference.decode import Decoded

__all__ = [
    "Decoded",
    "assign_joints",
    "decode_heatmaps",
    "fuse",
    "gaussian_heatmaps",
    "heatmap_loss",
    "heatmap_loss_and_gradient",
    "op_status",
    "warp_crops",
]
