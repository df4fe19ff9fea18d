"""What the launchers launch, as jobs for `resources.compile_for`: no compile test writes a signature."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from resources import Argument

TYPES = {
    torch.float64: "*fp64", torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16",
    torch.int64: "*i64", torch.int32: "*i32", torch.uint8: "*u8",
}  # fmt: skip


@contextmanager
def recorded(*modules: ModuleType) -> Iterator[list[dict[str, Any]]]:
    """Inside, the kernels of these modules are not run but listed; give the launchers tensors on "meta"."""
    import triton

    jobs: list[dict[str, Any]] = []
    kernels = [
        (module, name, value)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, triton.JITFunction) and name.endswith("_kernel")
    ]
    for module, name, kernel in kernels:
        setattr(module, name, _Recorder(kernel, jobs))
    try:
        yield jobs
    finally:
        for module, name, kernel in kernels:
            setattr(module, name, kernel)


class _Recorder:
    def __init__(self, kernel: Any, jobs: list[dict[str, Any]]) -> None:
        self.kernel = kernel
        self.jobs = jobs

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        assert all(size > 0 for size in grid), f"{self.kernel.__name__}: empty grid {grid}"
        limits = (2**31 - 1, 65535, 65535)
        fits = all(size <= limit for size, limit in zip(grid, limits, strict=False))
        assert fits, f"{self.kernel.__name__}: grid {grid} is more than CUDA's {limits}"
        return self._record

    def _record(self, *args: Any, **kwargs: Any) -> None:
        options = {name: kwargs.pop(name) for name in ("num_warps", "num_stages") if name in kwargs}
        names = self.kernel.arg_names
        values = dict(zip(names, args, strict=False)) | kwargs
        fixed = {parameter.name for parameter in self.kernel.params if parameter.is_constexpr}
        fixed |= {name for name in names if values[name] is None}
        job: dict[str, Any] = {"kernel": self.kernel, "signature": {}, "constants": {}, "aligned": []}
        for name in names:
            if name in fixed:
                job["constants"][name] = values[name]
            elif (kind := _typed((name,), values[name], job)) != "constexpr":
                job["signature"][name] = kind
        self.jobs.append(job | options)


def _typed(path: Argument, value: Any, job: dict[str, Any]) -> Any:
    """Triton's type of an argument, specialised as Triton's own launch does."""
    if isinstance(value, tuple):
        return tuple(_typed((*path, index), entry, job) for index, entry in enumerate(value))
    if isinstance(value, float):
        return "fp32"
    if isinstance(value, torch.Tensor):
        # a tensor on "meta" has no address, but its storage would begin at a multiple of 256
        address = value.storage_offset() * value.element_size() if value.is_meta else value.data_ptr()
        if address % 16 == 0:
            job["aligned"].append(path)
        return TYPES[value.dtype]
    if value == 1:
        job["constants"][path if len(path) > 1 else path[0]] = 1
        return "constexpr"
    if value % 16 == 0:
        job["aligned"].append(path)
    return "i32"
