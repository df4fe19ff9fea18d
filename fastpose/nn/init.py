"""How convolutional pose networks draw their first parameters."""

from __future__ import annotations

from torch import nn

from fastpose.errors import ConfigError

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def reset_convolutions(network: nn.Module, init: str, last: nn.Module, slope: float = 0.0) -> None:
    """Fresh parameters: BatchNorm 1 and 0, biases 0, and convolutions, also transposed ones, by `init`.

    'official' is N(0, 0.001), meant to be followed by ImageNet weights (hrnet lib/models/pose_hrnet.py and
    pose_resnet.py); 'kaiming' is that of HRNet's classification networks, fan-out for ReLU or, with `slope`,
    leaky ReLU, which learns faster from nothing; the layer `last` stays N(0, 0.001). Another name raises
    ConfigError.
    """
    if init not in ("official", "kaiming"):
        raise ConfigError(f"init must be 'official' or 'kaiming', got {init!r}")
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS):
            if init == "kaiming" and module is not last:
                nn.init.kaiming_normal_(module.weight, a=slope, mode="fan_out", nonlinearity="leaky_relu")
            else:
                nn.init.normal_(module.weight, std=0.001)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
