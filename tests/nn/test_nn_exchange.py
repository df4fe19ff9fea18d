"""The exchange of branches against its formula, written with functions and the official names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastpose.nn import BasicBlock, Bottleneck, Exchange, residual_layer
from fastpose.nn.exchange import ExchangeRow

WIDTHS = [3, 5, 7, 9]


def random_exchange(num_outputs: int | None = None) -> Exchange:
    exchange = Exchange(WIDTHS, num_outputs).double().eval()
    for name, tensor in exchange.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if name.endswith("running_var") else tensor.normal_()
    return exchange


def random_branches(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(2, c, 16 >> i, 24 >> i, dtype=dtype) for i, c in enumerate(WIDTHS)]


def conv_bn(state: dict[str, Tensor], name: str, x: Tensor, stride: int, padding: int) -> Tensor:
    x = F.conv2d(x, state[f"{name}.0.weight"], stride=stride, padding=padding)
    mean, var = state[f"{name}.1.running_mean"], state[f"{name}.1.running_var"]
    weight, bias = state[f"{name}.1.weight"], state[f"{name}.1.bias"]
    return (x - mean[:, None, None]) / (var + 1e-5).sqrt()[:, None, None] * weight[:, None, None] + bias[
        :, None, None
    ]


def term(state: dict[str, Tensor], row: int, source: int, x: Tensor) -> Tensor:
    if source > row:
        x = conv_bn(state, f"{row}.{source}", x, stride=1, padding=0)
        return x.repeat_interleave(2 ** (source - row), 2).repeat_interleave(2 ** (source - row), 3)
    for step in range(row - source):
        x = conv_bn(state, f"{row}.{source}.{step}", x, stride=2, padding=1)
        x = x if step == row - source - 1 else x.clamp(min=0)
    return x


@pytest.mark.parametrize("num_outputs", [None, 1, 3])
def test_every_output_is_the_relu_of_the_sum_over_all_branches(num_outputs: int | None) -> None:
    exchange, branches = random_exchange(num_outputs), random_branches()
    before = [branch.clone() for branch in branches]
    state = exchange.state_dict()
    outputs = exchange(branches)
    assert len(outputs) == (num_outputs or len(WIDTHS))
    for row, output in enumerate(outputs):
        want = sum(term(state, row, j, x) for j, x in enumerate(before)).clamp(min=0)
        torch.testing.assert_close(output, want, rtol=1e-10, atol=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(branches, before, strict=True)), "an input was changed"


def test_names_are_the_official_ones() -> None:
    names = {n.rsplit(".", 1)[0] for n in Exchange([2, 4, 8]).state_dict()}
    up = {"0.1", "0.2", "1.2"}
    down = {"1.0.0", "2.0.0", "2.0.1", "2.1.0"}
    assert names == {f"{path}.{part}" for path in up | down for part in (0, 1)}


def test_sum_runs_from_left_to_right() -> None:
    row = ExchangeRow([1, 1, 1], 0)
    row[1], row[2] = nn.Identity(), nn.Identity()
    values = [torch.full((1, 1, 1, 1), v) for v in (1e8, -1e8, 1.0)]
    assert row(values).item() == 1.0  # added to either of the others first, 1 is lost


def test_wrong_number_of_branches_is_refused() -> None:
    with pytest.raises(ValueError, match="joins 4 branches, got 3"):
        random_exchange()(random_branches()[:3])


def test_gradient_reaches_every_branch_and_parameter() -> None:
    exchange = Exchange(WIDTHS).train()
    branches = [x.requires_grad_() for x in random_branches(torch.float32)]
    sum(output.square().sum() for output in exchange(branches)).backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in branches)
    assert all(p.grad is not None for p in exchange.parameters())


@pytest.mark.parametrize(
    ("block", "inputs", "stride", "has_shortcut"),
    [
        (BasicBlock, 6, 1, False),
        (BasicBlock, 6, 2, True),
        (BasicBlock, 5, 1, True),
        (Bottleneck, 24, 1, False),
        (Bottleneck, 6, 1, True),
        (Bottleneck, 24, 2, True),
    ],
)
def test_residual_layer(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, stride: int, has_shortcut: bool
) -> None:
    layer = residual_layer(block, inputs, 6, blocks=2, stride=stride)
    output = layer(torch.randn(2, inputs, 8, 8))
    assert output.shape == (2, 6 * block.expansion, 8 // stride, 8 // stride)
    shortcuts = {name.split(".")[0] for name in layer.state_dict() if "downsample" in name}
    assert shortcuts == ({"0"} if has_shortcut else set())


def test_a_block_whose_last_norm_is_zero_is_the_relu_of_its_input() -> None:
    block = BasicBlock(4, 4)
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x.clamp(min=0))
