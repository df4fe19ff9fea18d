"""The compiled extension (csrc/python/bindings.cpp). Addresses are `Tensor.data_ptr()`, 0 for none."""

from collections.abc import Sequence

source_hash: str
max_blur_radius: int
max_cuda_columns: int
has_cuda: bool
_Strides = tuple[int, ...]  # batch, joint, row and column, in elements

class AssignParams:
    def __init__(
        self,
        *,
        cost: int,
        query: int,
        strides: tuple[int, ...],  # problem, query and joint, in elements
        problems: int,
        queries: int,
        joints: int,
        type: int,
    ) -> None: ...

class DecodeParams:
    def __init__(
        self,
        *,
        heatmaps: int,
        flipped: int,
        flip_index: int,
        center: int,
        scale: int,
        keypoints: int,
        score: int,
        valid: int,
        heatmap_strides: _Strides,
        flipped_strides: _Strides,
        batch: int,
        joints: int,
        height: int,
        width: int,
        dtype: int,
        shift: bool,
        refine: int,
        blur: Sequence[float],
    ) -> None: ...

def assign_cpu(params: AssignParams, threads: int) -> None: ...
def decode_cpu(params: DecodeParams, threads: int) -> None: ...

# Only where has_cuda is true; the integers returned are values of cudaError_t.
def assign_cuda(params: AssignParams, device: int, stream: int) -> int: ...
def decode_cuda(params: DecodeParams, device: int, stream: int) -> int: ...
def decode_cuda_status(device: int) -> int: ...
def cuda_error_text(code: int) -> str: ...
