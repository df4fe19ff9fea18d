"""torch.compile one shape of input at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastpose.errors import ConfigError

MODES: dict[bool | str, dict[str, Any]] = {
    True: {},
    "default": {},
    # CUDA graphs of its own would stand in the way of the one of the whole step.
    "max-autotune": {"mode": "max-autotune-no-cudagraphs"},
}


def compiled(forward: nn.Module, setting: bool | str) -> Any:
    """`forward` through torch.compile, each shape of input by itself; as it is where `setting` is False.

    Raises:
        ConfigError: `setting` is not False, True, "default" or "max-autotune".
    """
    if setting is False:
        return forward
    if setting not in MODES:
        raise ConfigError(f"compile: expected False, True, 'default' or 'max-autotune', got {setting!r}")
    return torch.compile(forward, dynamic=False, **MODES[setting])
