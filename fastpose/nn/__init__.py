"""Building blocks that several models share."""

from fastpose.nn.blocks import BasicBlock, Bottleneck, conv_bn, residual_layer
from fastpose.nn.exchange import Exchange

__all__ = ["BasicBlock", "Bottleneck", "Exchange", "conv_bn", "residual_layer"]
