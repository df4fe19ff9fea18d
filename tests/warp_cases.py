"""Arguments of warp_crops by name: every way to hand over pictures, both modes, every output."""

from typing import Any

import torch
from torch import Tensor

from fastpose.reference.warp import warp_crops as reference

Case = dict[str, Any]
NORMALISED = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
FORMS = ("padded", "padded-sizes", "flat", "parts", "colour", "odd-matrices", "float32-matrices", "outside")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)


def turned(batch: int) -> Tensor:
    """Rotations and scales that keep most of a picture of 50 pixels in view."""
    angle, scale, right, down = torch.rand(4, batch, dtype=torch.float64)
    cos, sin = (0.4 + scale) * (angle - 0.5).cos(), (0.4 + scale) * (angle - 0.5).sin()
    return torch.stack([cos, -sin, 8 * right, sin, cos, 8 * down], -1).view(batch, 2, 3)


def odd(batch: int) -> Tensor:
    """An ordinary matrix, a singular one, one not a number, three whose positions no int32 holds."""
    drawn = turned(batch)
    drawn[1], drawn[2], drawn[3] = 0.0, torch.nan, torch.randn(2, 3) * 1e9
    drawn[4] = torch.tensor([[1e-5, 0.0, -20.96], [0.0, 1.0, 3.0]])
    drawn[5] = torch.tensor([[1.0, 0.0, -(2.0**22) - 3], [0.0, 1.0, 3.0]])  # its low bits lie in the picture
    return drawn


def pictures(form: str, batch: int) -> Case:
    """How the pixels are handed over."""
    if form.startswith("padded"):
        case = {"images": torch.randint(0, 256, (batch, 37, 53, 3), dtype=torch.uint8)}
        sizes = torch.randint(0, 60, (batch, 2))  # some larger than the padding
        return case | ({"sizes": sizes} if form == "padded-sizes" else {})
    sizes = torch.randint(30, 60, (batch, 2), dtype=torch.int32)
    if form != "outside":
        sizes[1], sizes[2] = 1, 0
    lengths = 3 * sizes.long().prod(1)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)[:-1]]) + 7
    total = int(lengths.sum()) + 7
    if form == "outside":
        offsets[1], total = -1, total - 1  # the last picture ends one byte late
    return {
        "images": torch.randint(0, 256, (total,), dtype=torch.uint8),
        "sizes": sizes,
        "offsets": offsets,
    }


def case(form: str, mode: str = "opencv", dtype: torch.dtype = torch.float32) -> Case:
    """The keyword arguments of a call; crops of 41 x 19 pixels fill no tile."""
    batch = 6 if form == "odd-matrices" else 3
    matrices = odd(batch) if form == "odd-matrices" else turned(batch)
    made = pictures(form, batch) | {"matrices": matrices, "output_size": (41, 19)}
    if form in ("parts", "outside", "odd-matrices"):
        made |= {"origins": torch.randint(-9, 9, (batch, 2)), "flip": torch.arange(batch) % 2 == 0}
    if form == "colour":
        made |= {
            "gain": 0.5 + torch.rand(batch, 3),
            "shift": 40 * torch.randn(batch, 3),
            "reverse_channels": True,
        }
    if form == "float32-matrices":
        made["matrices"] = made["matrices"].float()
    return made | NORMALISED | {"mode": mode, "dtype": dtype}


def check_equal(got: Tensor, made: Case) -> None:
    """`got` is what the reference gives on a CPU, bit for bit, and not black."""
    expected = reference(**{name: to(value, "cpu") for name, value in made.items()})
    assert got.dtype == expected.dtype
    assert got.stride() == expected.stride()
    assert torch.equal(got.cpu(), expected)
    assert len(expected.unique()) > 20


def to(value: Any, device: str) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
