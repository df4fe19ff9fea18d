"""One network of each family against the official implementation's numbers (golden/README.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from conftest import shared_path
from golden_models import Golden, fill, read_golden, relative_error, standard_normal
from tiny_prtr import outputs_of
from torch import Tensor, nn

from fastpose.models import hourglass2, hrnet_seg_w48, hrnet_w32, pose_resnet50, prtr_hrnet_w32


@dataclass(frozen=True)
class Official:
    """`dead` counts the official network's parameters that nothing calls, which this one does not have."""

    golden: str
    build: Callable[[], nn.Module]
    outputs: Callable[[Any], list[Tensor]] = lambda output: [output]
    image: Callable[[Tensor], Tensor] = lambda image: image
    dead: int = 0


NETWORKS = {
    "hrnet_w32": Official("pose_hrnet_w32_coco", hrnet_w32),
    "pose_resnet50": Official("pose_resnet50_coco", pose_resnet50),
    "hourglass2": Official(
        "hourglass2_princeton",
        hourglass2,
        image=lambda image: image.permute(0, 3, 1, 2),  # the official network takes (B, H, W, 3)
        dead=1_858_688,
    ),
    "prtr_hrnet_w32": Official("prtr_hrnet_w32_mpii_256", lambda: prtr_hrnet_w32(16), outputs_of),
    "hrnet_seg_w48": Official("seg_hrnet_w48_cityscapes", hrnet_seg_w48),
}


@pytest.fixture(scope="module", params=list(NETWORKS))
def official(request: pytest.FixtureRequest) -> Official:
    return NETWORKS[request.param]


@pytest.fixture(scope="module")
def golden(official: Official) -> Golden:
    return read_golden(shared_path("golden", "models", f"{official.golden}.json"))


@pytest.fixture(scope="module")
def model(official: Official) -> nn.Module:
    model = official.build()
    fill(model)
    return model


def test_names_and_shapes_are_the_official_ones_in_the_official_order(
    official: Official, golden: Golden, model: nn.Module
) -> None:
    dead = {name for name, norm in golden.grad_norm.items() if norm is None}
    assert sum(int(np.prod(golden.state_dict[name])) for name in dead) == official.dead
    assert len(golden.state_dict) == golden.info["num_keys"]
    state = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert list(state.items()) == [item for item in golden.state_dict.items() if item[0] not in dead]


def test_float32_evaluation_matches(official: Official, golden: Golden, model: nn.Module) -> None:
    with torch.no_grad():
        found = official.outputs(model.eval()(official.image(golden.input)))
    assert [list(output.shape) for output in found] == golden.info["outputs"]
    check_outputs(found, golden, "eval", 1e-5)


def test_float64_outputs_loss_and_gradients_match(
    official: Official, golden: Golden, model: nn.Module
) -> None:
    """The last test of the module: it leaves the network in float64, trained for a step."""
    model, x = model.double(), official.image(golden.input).double()
    with torch.no_grad():
        check_outputs(official.outputs(model.eval()(x)), golden, "eval", 1e-6)
    found = official.outputs(model.train()(x))
    check_outputs(found, golden, "train", 1e-6)
    targets = [standard_normal(10 + i, out.shape) for i, out in enumerate(found)]
    loss = torch.stack(
        [((out - target) ** 2).mean() for out, target in zip(found, targets, strict=True)]
    ).sum()
    loss.backward()
    assert loss.item() == pytest.approx(golden.info["train_loss"], rel=1e-9)
    largest = max(norm for norm in golden.grad_norm.values() if norm is not None)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        want = golden.grad_norm[name]
        assert parameter.grad.norm().item() == pytest.approx(want, rel=1e-6, abs=1e-9 * largest), name


def check_outputs(found: list[Tensor], golden: Golden, mode: str, tolerance: float) -> None:
    assert len(found) == len(golden.info["outputs"])
    for i, output in enumerate(found):
        assert relative_error(output, golden.arrays[f"{mode}_{i}"]) < tolerance, i
