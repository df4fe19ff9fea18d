"""Clocks and temperature of the GPU, from the driver's own library: a query takes microseconds."""

from __future__ import annotations

import ctypes
from typing import Any

SM_CLOCK, MEMORY_CLOCK = 1, 2  # nvmlClockType_t
CORE_SENSOR = 0  # nvmlTemperatureSensors_t


class Gpu:
    """One GPU; `lib` is libnvidia-ml.

    Raises:
        OSError: the driver does not answer.

    Source: NVML API reference manual.
    """

    def __init__(self, lib: Any, uuid: str) -> None:
        self._lib, self._handle = lib, ctypes.c_void_p()
        self._call("nvmlInit_v2")
        try:
            self._call("nvmlDeviceGetHandleByUUID", f"GPU-{uuid}".encode(), ctypes.byref(self._handle))
        except OSError:  # a slice of a GPU has a UUID of another kind
            self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(0), ctypes.byref(self._handle))

    def driver(self) -> str:
        text = ctypes.create_string_buffer(96)
        self._call("nvmlSystemGetDriverVersion", text, ctypes.c_uint(len(text)))
        return text.value.decode()

    def sm_mhz(self) -> float:
        return float(self._number("nvmlDeviceGetClockInfo", SM_CLOCK))

    def state(self) -> dict[str, float]:
        """Clocks in MHz and the temperature in degrees Celsius."""
        return {
            "sm_mhz": self.sm_mhz(),
            "memory_mhz": float(self._number("nvmlDeviceGetClockInfo", MEMORY_CLOCK)),
            "celsius": float(self._number("nvmlDeviceGetTemperature", CORE_SENSOR)),
        }

    def _number(self, function: str, kind: int) -> int:
        value = ctypes.c_uint()
        self._call(function, self._handle, ctypes.c_int(kind), ctypes.byref(value))
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._lib, function)(*arguments)
        if status:
            raise OSError(f"{function}: NVML error {status}")


def open_gpu() -> Gpu | None:
    """The GPU that torch calls cuda:0; None where there is none, or its driver tells nothing."""
    import torch

    if not torch.cuda.is_available():
        return None
    try:
        gpu = Gpu(ctypes.CDLL("libnvidia-ml.so.1"), str(torch.cuda.get_device_properties(0).uuid))
        gpu.state()
    except OSError:
        return None
    return gpu
