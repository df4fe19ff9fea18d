"""Layers that somebody replaced, patched or hooked run as they stand, and no fused sum takes their place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from test_nn_fuse import DOUBLE, WIDTHS, Uses, assert_same, branches, by_moments, random_parameters
from torch import Tensor, nn

from fastpose.nn import Bottleneck, Exchange
from fastpose.nn.exchange import ExchangeRow

__all__ = ["by_moments"]  # a fixture
# PyTorch says so of modules that take or give lists, as a row and an exchange do.
pytestmark = pytest.mark.filterwarnings("ignore:.*backward hook:UserWarning")
Change = Callable[[nn.Module], None]


class LeakyRow(ExchangeRow):
    def forward(self, branches: list[Tensor]) -> Tensor:
        return F.leaky_relu(super().forward([-x for x in branches]) - 1.0)


class Doubled(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, branches: list[Tensor]) -> Tensor:
        return branches[self.number] * 2.0


def doubled(module: nn.Module) -> None:
    """As people patch an instance."""
    forward = module.forward
    module.forward = lambda *args: forward(*args) * 2.0


def replaced_norm(exchange: nn.Module) -> None:
    exchange[0][1][1] = nn.GroupNorm(1, WIDTHS[0], dtype=DOUBLE)


def with_bias(exchange: nn.Module) -> None:
    exchange[0][2][0] = nn.Conv2d(WIDTHS[2], WIDTHS[0], 1, dtype=DOUBLE)


def longer_path(exchange: nn.Module) -> None:
    exchange[0][2].append(nn.Dropout2d(0.0))


def other_eps(exchange: nn.Module) -> None:
    exchange[1][0][0][1].eps = 1e-3


def parametrized(exchange: nn.Module) -> None:
    nn.utils.parametrizations.weight_norm(exchange[0][1][0])


def bilinear(exchange: nn.Module) -> None:
    exchange[0][1][2] = nn.Upsample(scale_factor=2, mode="bilinear")


def other_mode(exchange: nn.Module) -> None:
    exchange[0][1][2].mode = "bilinear"


def fixed_size(exchange: nn.Module) -> None:
    exchange[0][2][2] = nn.Upsample(size=(8, 16), mode="nearest")


def subclassed_row(exchange: nn.Module) -> None:
    exchange[0].__class__ = LeakyRow


def foreign_row(exchange: nn.Module) -> None:
    exchange[0] = Doubled(0)


def foreign_last_row(exchange: nn.Module) -> None:
    exchange[2] = Doubled(2)


def scaled_identity(exchange: nn.Module) -> None:
    exchange[0][0] = nn.Sequential(nn.Conv2d(3, 3, 1, dtype=DOUBLE))


def second_identity(exchange: nn.Module) -> None:
    class Pool(nn.Identity):
        def forward(self, x: Tensor) -> Tensor:
            return F.avg_pool2d(x, 2)[:, :1]

    exchange[1][0] = Pool()


def patched(name: str) -> Change:
    return lambda exchange: doubled(exchange.get_submodule(name))


CHANGES: dict[str, Change] = {
    change.__name__: change
    for change in (
        replaced_norm, with_bias, longer_path, other_eps, parametrized, bilinear, other_mode, fixed_size,
        subclassed_row, foreign_row, foreign_last_row, scaled_identity, second_identity,
    )
}  # fmt: skip
PARTS = ["0", "0.0", "0.1", "0.1.0", "0.1.1", "0.1.2", "1.0", "1.0.0", "1.0.0.1", "2.0.1", "2.0.1.1"]
CHANGES |= {f"patched {name}": patched(name) for name in PARTS}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_exchange(by_moments: Uses, name: str) -> None:
    exchange, inputs = random_parameters(Exchange(WIDTHS)).eval(), branches()
    before = [row(inputs) for row in exchange]
    CHANGES[name](exchange)
    with torch.no_grad():
        expected = [row(inputs) for row in exchange]
        assert_same(list(exchange(inputs)), expected)
    assert by_moments.count == 0
    if name not in ("with_bias", "longer_path", "parametrized", "fixed_size"):
        assert not all(torch.allclose(a, b) for a, b in zip(expected, before, strict=True))


def test_rows_in_another_order_and_all_replaced(by_moments: Uses) -> None:
    exchange, inputs = random_parameters(Exchange(WIDTHS)).eval(), branches()
    first = exchange[0]
    del exchange[0]
    with torch.no_grad():
        assert_same(list(exchange(inputs)), [row(inputs) for row in exchange])
        exchange[0], exchange[1] = Doubled(0), first
        assert_same(list(exchange(inputs)), [inputs[0] * 2.0, first(inputs)])
        exchange[1] = Doubled(1)
        assert_same(list(exchange(inputs)), [inputs[0] * 2.0, inputs[1] * 2.0])
    assert by_moments.count == 0


def test_a_scale_that_does_not_fit_fails_as_in_the_layers(by_moments: Uses) -> None:
    exchange, inputs = random_parameters(Exchange(WIDTHS)).eval(), branches()
    exchange[0][1][2] = nn.Upsample(scale_factor=4)
    with pytest.raises(RuntimeError, match="must match the size"):
        exchange(inputs)
    assert by_moments.count == 0


def test_five_branches_are_too_coarse_to_fuse(by_moments: Uses) -> None:
    widths = [2, 3, 2, 3, 2]
    exchange = random_parameters(Exchange(widths)).eval()
    inputs = [torch.randn(1, c, 16 >> i, 16 >> i, dtype=DOUBLE) for i, c in enumerate(widths)]
    assert_same(list(exchange(inputs)), [row(inputs) for row in exchange])
    assert by_moments.count == 0


def not_in_place(module: nn.Module) -> nn.Module:
    """PyTorch's backward hooks forbid a ReLU in place."""
    for relu in module.modules():
        if isinstance(relu, nn.ReLU):
            relu.inplace = False
    return module


@pytest.mark.parametrize(
    "name",
    ["0", "0.0", "0.1", "0.1.0", "0.1.1", "0.1.2", "1.1", "2.0", "2.0.0", "2.0.0.1", "2.0.1", "2.0.1.1"],
)
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward_pre"])
def test_hooks_of_an_exchange_fire(by_moments: Uses, name: str, kind: str) -> None:
    exchange, seen = random_parameters(not_in_place(Exchange(WIDTHS))), []
    register = getattr(exchange.get_submodule(name), f"register_{kind}_hook")
    handle = register(lambda *_: seen.append(1))
    sum(y.sum() for y in exchange(branches())).backward()
    called = name.startswith("2.0.0")  # comes before the fused end
    assert (len(seen), by_moments.count) == (1, int(called))
    handle.remove()
    exchange(branches())
    assert by_moments.count == int(called) + 1


GLOBAL_HOOKS = ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"]


@pytest.mark.parametrize("kind", GLOBAL_HOOKS)
def test_hooks_of_all_modules_fire(by_moments: Uses, kind: str) -> None:
    exchange, block = (random_parameters(not_in_place(m)) for m in (Exchange(WIDTHS), Bottleneck(8, 4)))
    seen: list[nn.Module] = []
    x = torch.randn(2, 8, 6, 4, dtype=DOUBLE).requires_grad_()
    handle = getattr(nn.modules.module, f"register_module_{kind}")(lambda module, *_: seen.append(module))
    try:
        sum(y.sum() for y in exchange(branches())).backward()
        block(x).sum().backward()
    finally:
        handle.remove()
    wanted = [m for m in (*exchange.modules(), *block.modules()) if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    assert {id(module) for module in wanted} <= {id(module) for module in seen}
    assert by_moments.count == 0
    exchange(branches())
    block(x)
    assert by_moments.count == 2


def other_relu(block: nn.Module) -> None:
    block.relu = nn.LeakyReLU(0.3)


def subclassed_relu(block: nn.Module) -> None:
    class Shifted(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - 0.5)

    block.relu = Shifted()


def longer_downsample(block: nn.Module) -> None:
    block.downsample.append(nn.Tanh())


BLOCK_CHANGES: dict[str, Change] = {
    change.__name__: change for change in (other_relu, subclassed_relu, longer_downsample)
}
BLOCK_PARTS = ["relu", "conv3", "bn3", "downsample", "downsample.0", "downsample.1"]
BLOCK_CHANGES |= {f"patched {name}": patched(name) for name in BLOCK_PARTS}


def by_layers(block: nn.Module, x: Tensor) -> Tensor:
    out = block.relu(block.bn1(block.conv1(x)))
    out = block.bn3(block.conv3(block.relu(block.bn2(block.conv2(out)))))
    return block.relu(out + block.downsample(x))


@pytest.mark.parametrize("name", BLOCK_CHANGES)
def test_changed_bottleneck(by_moments: Uses, name: str) -> None:
    block, x = random_parameters(Bottleneck(8, 4)).eval(), torch.randn(2, 8, 6, 4, dtype=DOUBLE)
    with torch.no_grad():
        before = block(x)
        assert by_moments.count == 1
        BLOCK_CHANGES[name](block)
        got = block(x)
        assert_same([got], [by_layers(block, x)])
    assert by_moments.count == 1
    assert not torch.allclose(got, before)


@pytest.mark.parametrize("name", BLOCK_PARTS)
def test_hooks_of_a_bottleneck_fire(by_moments: Uses, name: str) -> None:
    block, seen = random_parameters(Bottleneck(8, 4)), []
    block.get_submodule(name).register_forward_hook(lambda *_: seen.append(1))
    block(torch.randn(2, 8, 6, 4, dtype=DOUBLE))
    assert (len(seen), by_moments.count) == (3 if name == "relu" else 1, 0)
