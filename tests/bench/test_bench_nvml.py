"""Clocks and temperature, asked of a stand-in for the driver's library."""

import ctypes

import pytest
import torch

from bench.nvml import Gpu, open_gpu

UUID = "12345678-aaaa-bbbb-cccc-1234567890ab"


class Library:
    """libnvidia-ml with one GPU."""

    def __init__(self, fails=(), uuid=f"GPU-{UUID}"):
        self.fails, self.uuid, self.index = fails, uuid.encode(), None

    def __getattr__(self, name):
        return lambda *arguments: 999 if name in self.fails else getattr(self, f"_{name}")(*arguments)

    def _nvmlInit_v2(self):
        return 0

    def _nvmlDeviceGetHandleByUUID(self, uuid, handle):
        return 0 if uuid == self.uuid else 6

    def _nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        self.index = index.value
        return 0

    def _nvmlSystemGetDriverVersion(self, text, length):
        text.value = b"580.65.06"
        return 0

    def _nvmlDeviceGetClockInfo(self, handle, kind, value):
        ctypes.cast(value, ctypes.POINTER(ctypes.c_uint))[0] = {1: 1980, 2: 3201}[kind.value]
        return 0

    def _nvmlDeviceGetTemperature(self, handle, kind, value):
        ctypes.cast(value, ctypes.POINTER(ctypes.c_uint))[0] = {0: 41}[kind.value]
        return 0


def test_state():
    gpu = Gpu(Library(), UUID)
    assert gpu.driver() == "580.65.06"
    assert gpu.sm_mhz() == 1980.0
    assert gpu.state() == {"sm_mhz": 1980.0, "memory_mhz": 3201.0, "celsius": 41.0}


def test_a_gpu_without_such_a_uuid_is_the_first():
    library = Library(uuid="MIG-1")
    assert Gpu(library, UUID).sm_mhz() == 1980.0
    assert library.index == 0


def test_errors_name_the_function():
    with pytest.raises(OSError, match="nvmlInit_v2: NVML error 999"):
        Gpu(Library(fails={"nvmlInit_v2"}), UUID)
    gpu = Gpu(Library(fails={"nvmlDeviceGetTemperature"}), UUID)
    with pytest.raises(OSError, match="nvmlDeviceGetTemperature"):
        gpu.state()


def test_without_a_gpu_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_gpu() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_this_gpu():
    gpu = open_gpu()
    assert gpu is not None
    assert 100 < gpu.state()["sm_mhz"] < 10000
    assert 0 < gpu.state()["celsius"] < 120
