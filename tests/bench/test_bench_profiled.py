"""What the profiler's trace says: kernels a call, and how long the GPU waited."""

import pytest
import torch

from bench.profiled import device_figures, figures_of, summarize

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_kernels_and_idle_share_of_a_trace():
    kernel = {"cat": "kernel", "ts": 100.0, "dur": 10.0}
    events = [
        {**kernel, "ts": 130.0},
        kernel,
        {**kernel, "ts": 105.0},  # half of it beside the first
        {"cat": "gpu_memcpy", "ts": 120.0, "dur": 5.0},
        {"cat": "cpu_op", "ts": 0.0, "dur": 500.0},
        {"ph": "M"},
    ]
    assert summarize(events, 3) == {"kernels": 1.0, "idle": 1 - 30 / 40}
    with pytest.raises(RuntimeError, match="saw no kernel"):
        summarize(events[3:], 3)


class Sine:
    run = staticmethod(torch.sin)

    def __call__(self, x):
        return torch.sin(x)


@pytest.mark.gpu
@gpu
def test_figures_leave_out_a_rival_that_does_not_run():
    def fails(x):
        raise RuntimeError("out of memory")

    found = figures_of({"own": Sine(), "other": fails}, lambda: (torch.ones(1 << 20, device="cuda"),))
    assert found["own: kernels"] == 1
    assert found["own: peak GB"] == pytest.approx(4e-3, rel=0.1)
    assert not [name for name in found if name.startswith("other")]


@pytest.mark.gpu
@gpu
def test_kernels_of_a_call():
    def two(x):
        return torch.cos(torch.sin(x))

    assert device_figures(two, [torch.ones(8, device="cuda")])["kernels"] == 2
