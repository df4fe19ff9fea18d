"""Choosing the device and the number format of a run."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from fastpose.errors import ConfigError


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the first CUDA device, else the CPU; a device asked for by name must be there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}: not a device; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r}: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r}: this machine shows {torch.cuda.device_count()} CUDA devices")
    return device


def autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The dtype of autocast for `amp` = auto | none | bf16 | fp16, or None for float32.

    `auto` is bf16 on CUDA devices and on CPUs with bf16 instructions (AVX512-BF16, AMX; hrnet_w18_small
    trains 1.9 times as fast there), float32 elsewhere, where the casts would only add to the work.
    """
    if amp == "auto":
        return torch.bfloat16 if device.type == "cuda" or cpu_has_bf16() else None
    if amp == "fp16" and device.type == "cpu":
        raise ConfigError("amp=fp16 needs a CUDA device; use bf16 or none on the CPU")
    if amp not in ("none", "bf16", "fp16"):
        raise ConfigError(f"amp={amp!r}: use auto, none, bf16 or fp16")
    return {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 natively."""
    flags: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # absent before torch 2.12
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


def autocast(dtype: torch.dtype | None, device: torch.device) -> contextlib.AbstractContextManager:
    """The autocast context of `autocast_dtype`'s answer."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """Switches autocast off; nothing on a device that has none, such as meta."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
