"""Operations with fast implementations behind them; fastpose.reference says what each one computes."""

from fastpose.ops.decode import decode_heatmaps
from fastpose.ops.heatmap import gaussian_heatmaps
from fastpose.reference.decode import Decoded

__all__ = ["Decoded", "decode_heatmaps", "gaussian_heatmaps"]
