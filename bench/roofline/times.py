"""Times of a scheme on a machine whose ceilings somebody has measured."""

from __future__ import annotations

from bench.ceilings import Ceilings
from bench.roofline.kernels import Work

PRACTICAL_EFFICIENCY = 0.6
"""Share of the matrix product's rate that convolutions reach, for the practical time."""

PRACTICAL_LAUNCH = 1.5e-6
"""Seconds from one kernel to the next in a replayed graph, for the practical time."""


def step_time(
    work: Work,
    ceilings: Ceilings,
    conv_efficiency: float = 1.0,
    seconds_per_kernel: float = 0.0,
) -> float:
    """Seconds of the step: the longer of memory and arithmetic time of each kernel, one after the other.

    The defaults give the roofline; PRACTICAL_EFFICIENCY and PRACTICAL_LAUNCH a forecast.

    Args:
        ceilings: measured in the same run as whatever the time is compared with.
        conv_efficiency: share of `ceilings.flops_per_s` that products reach, 0 to 1.
        seconds_per_kernel: added for each launch.

    Raises:
        ValueError: a rate, the efficiency or the time is out of range.
    """
    if not 0 < conv_efficiency <= 1:
        raise ValueError(f"conv_efficiency: expected more than 0 and at most 1, got {conv_efficiency}")
    if seconds_per_kernel < 0:
        raise ValueError(f"seconds_per_kernel: expected 0 or more, got {seconds_per_kernel}")
    if min(ceilings.copy_bytes_per_s, ceilings.flops_per_s) <= 0:
        raise ValueError(f"ceilings: expected positive rates, got {ceilings}")
    flops = ceilings.flops_per_s * conv_efficiency
    total = work.optimizer_bytes / ceilings.copy_bytes_per_s
    for kernel in work.kernels:
        memory = work.bytes_of(kernel) / ceilings.copy_bytes_per_s
        total += max(memory, 2 * kernel.macs * work.batch / flops)
    return total + seconds_per_kernel * len(work.kernels)


def practical_time(work: Work, ceilings: Ceilings) -> float:
    """`step_time` with the efficiency and the launches to be expected today."""
    return step_time(work, ceilings, PRACTICAL_EFFICIENCY, PRACTICAL_LAUNCH)
