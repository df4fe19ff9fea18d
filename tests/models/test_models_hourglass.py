"""The stacked hourglass and its variants: their sizes, metadata and refusals."""

from __future__ import annotations

import pytest
import torch
from tiny_hourglass import tiny_hourglass
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fastpose.errors import ConfigError
from fastpose.models import (
    Hourglass,
    HourglassConfig,
    ModelMeta,
    create_model,
    hourglass8_paper,
    list_models,
)

LAST_MERGES = (256 * 256 + 256) + (16 * 256 + 256)
"""Parameters of the layers that some implementations give the last stack, which nobody calls."""


def size(name: str) -> tuple[Hourglass, int]:
    with torch.device("meta"):
        model = create_model(name)
    return model, sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "official", "dead"),
    [("hourglass2", 8_429_088, 1_858_688), ("hourglass8", 32_819_328, 7_385_216)],
    ids=["2", "8"],
)
def test_official_counts_are_met_without_dead_parameters(name: str, official: int, dead: int) -> None:
    assert size(name)[1] == official - dead


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [("hourglass2_paper", 6_730_912, 684), ("hourglass8_paper", 25_594_624, 2526)],
    ids=["2", "8"],
)
def test_counts_of_the_paper_variant(name: str, parameters: int, tensors: int) -> None:
    model, count = size(name)
    assert (count, len(model.state_dict())) == (parameters, tensors)


@pytest.mark.parametrize(
    ("name", "keras"),
    [
        ("hourglass2_post", 6_672_800),
        ("hourglass8_post", 25_625_600),
        ("hourglass2_mobile", 2_852_256),
        ("hourglass8_mobile", 10_924_032),
    ],
)
def test_counts_of_the_keras_variants(name: str, keras: int) -> None:
    """Keras counts BatchNorm's moving statistics, and its last stack has layers that hand on to nobody."""
    model, count = size(name)
    moving = sum(buffer.numel() for key, buffer in model.named_buffers() if "running" in key)
    assert count + moving + LAST_MERGES == keras


@pytest.mark.parametrize(
    ("stacks", "modules", "published"),
    [(2, 1, 6_640_422), (8, 1, 25_504_134), (2, 2, 12_647_206), (8, 2, 49_531_270)],
)
def test_counts_with_more_residuals_at_each_place(stacks: int, modules: int, published: int) -> None:
    """The implementation behind the figures normalises the raw image instead of the stem's 64 channels, and
    its last stack hands on to nobody."""
    with torch.device("meta"):
        model = Hourglass(HourglassConfig(stacks, num_modules=modules), ModelMeta("any", 16))
    count = sum(p.numel() for p in model.parameters())
    assert count - 2 * 64 + 2 * 3 + LAST_MERGES == published


@pytest.mark.parametrize(
    ("name", "published"),
    [("hourglass2", 8.34), ("hourglass8", 27.44), ("hourglass2_paper", 8.99), ("hourglass8_paper", 28.09)],
)
def test_multiplications_are_the_published_ones(name: str, published: float) -> None:
    """In units of 10^9 for one image of 256x256."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        create_model(name).eval()(torch.empty(1, 3, 256, 256))
    assert counter.get_total_flops() / 2e9 == pytest.approx(published, abs=0.01)


def test_initialisation_by_name() -> None:
    torch.manual_seed(0)
    model = tiny_hourglass(width=32)
    model.reset_parameters()
    conv = model.get_submodule("features.0.1.conv")
    assert conv.weight.std().item() == pytest.approx(
        (1 / 32 / 3) ** 0.5, rel=0.1
    )  # uniform up to 1 / sqrt(32)
    assert (conv.bias != 0).any()
    model.reset_parameters("kaiming")
    assert conv.weight.std().item() == pytest.approx((2 / 32) ** 0.5, rel=0.1)
    assert model.get_submodule("outs.1.conv").weight.std().item() < 0.002
    post = tiny_hourglass("post", width=32)
    post.reset_parameters()
    conv = post.get_submodule("features.0.0.conv")
    assert conv.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    assert conv.weight.abs().max().item() <= (6 / 64) ** 0.5
    for one in (model, post):
        assert all(
            (m.bias == 0).all() for m in one.modules() if isinstance(m, nn.Conv2d) and m.bias is not None
        )
        assert all((m.weight == 1).all() for m in one.modules() if isinstance(m, nn.BatchNorm2d))
    with pytest.raises(ConfigError, match="init must be 'official' or 'kaiming', got 'zeros'"):
        model.reset_parameters("zeros")


def test_models_are_listed_and_say_how_to_be_fed() -> None:
    names = [f"hourglass{stacks}{kind}" for stacks in (2, 8) for kind in ("", "_mobile", "_paper", "_post")]
    assert set(names) <= set(list_models("pose"))
    with torch.device("meta"):
        models = {name: create_model(name) for name in names}
        told = hourglass8_paper(17, input_size=(192, 256), channel_order="bgr", mean=(0.5, 0.5, 0.5))
    for name, model in models.items():
        mean = (0.0, 0.0, 0.0) if name in ("hourglass2", "hourglass8") else (0.4404, 0.4440, 0.4327)
        assert model.meta == ModelMeta(name, 16, (256, 256), "rgb", None, mean, (1.0, 1.0, 1.0))
        assert len(model.hgs) == int(name[9])
    assert told.meta == ModelMeta(
        "hourglass8_paper", 17, (192, 256), "bgr", None, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stacks": 0}, "stacks must be a whole number of at least 1, got 0"),
        ({"num_modules": True}, "num_modules must be a whole number of at least 1, got True"),
        ({"depth": 0}, "depth must be"),
        ({"width": 1}, "width must be a whole number of at least 2, got 1"),
        ({"stem_widths": (128,)}, "stem_widths must be two widths, got (128,)"),
        ({"stem_widths": (128, 0.5)}, "stem_widths must be a whole number of at least 2, got 0.5"),
        ({"residual": "mobile"}, "residual must be 'pre', 'post' or 'separable', got 'mobile'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_wrong_configurations_are_explained(values: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HourglassConfig(**{"stacks": 2, **values})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("hourglass2", (192, 224), "hourglass2: input_size must be multiples of 64, got (192, 224)"),
        ("hourglass2_post", (240, 256), "hourglass2_post: input_size must be multiples of 32"),
    ],
    ids=["pre", "post"],
)
def test_input_sizes_that_cannot_be_halved_are_refused(name: str, size: tuple, message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError) as caught:
        create_model(name, input_size=size)
    assert message in str(caught.value)
