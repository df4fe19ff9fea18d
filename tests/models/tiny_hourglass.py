"""A very small stacked hourglass for tests of everything but its accuracy."""

from __future__ import annotations

from typing import Any

from golden_models import fill

from fastpose.models import Hourglass, HourglassConfig, ModelMeta

VARIANTS: dict[str, dict[str, Any]] = {
    "official": {},
    "stem": {"stem_widths": (6, 8)},
    "two_modules": {"num_modules": 2},
    "post": {"residual": "post"},
    "separable": {"residual": "separable"},
    "post_two_modules": {"residual": "post", "num_modules": 2},
}


def tiny_hourglass(
    variant: str = "official", stacks: int = 2, num_joints: int = 3, **options: Any
) -> Hourglass:
    """Two halvings deep and eight channels wide, filled as the golden models are."""
    values = {"depth": 2, "width": 8, "stem_widths": (6, 6), **VARIANTS[variant], **options}
    model = Hourglass(HourglassConfig(stacks, **values), ModelMeta("tiny", num_joints))
    fill(model)
    return model
