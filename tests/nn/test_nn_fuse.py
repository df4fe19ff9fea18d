"""Modules that hand their work to fastpose.ops.fuse: same results, same buffers, and when they keep it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from fastpose.models import create_model
from fastpose.nn import BasicBlock, Bottleneck, Exchange, residual_layer
from fastpose.nn import fuse as nn_fuse

WIDTHS = [3, 5, 7]
DOUBLE = torch.float64


class Uses:
    """How often a fused sum was asked for."""

    count = 0


@pytest.fixture
def by_moments(monkeypatch: pytest.MonkeyPatch) -> Iterator[Uses]:
    """The modules do as on a GPU, with the steps of the fused sum by their reference."""
    uses, fuse = Uses(), nn_fuse.fuse

    def counted(*args: object, **kwargs: object) -> object:
        uses.count += 1
        return fuse(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("fastpose.ops._fuse.fuse_runs_on_triton", lambda *_: True)
    monkeypatch.setattr(nn_fuse, "fuse_runs_on_triton", lambda *_: True)
    monkeypatch.setattr(nn_fuse, "fuse", counted)
    torch._dynamo.reset()
    yield uses
    torch._dynamo.reset()


def random_parameters(module: nn.Module) -> nn.Module:
    for name, tensor in module.double().state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if name.endswith("running_var") else tensor.normal_(std=0.5)
    return module


def branches() -> list[Tensor]:
    return [torch.randn(2, c, 8 >> i, 16 >> i, dtype=DOUBLE).requires_grad_() for i, c in enumerate(WIDTHS)]


def flat(outputs: Tensor | list[Tensor]) -> Tensor:
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    return torch.cat(
        [(y * torch.linspace(-1, 1, y.numel(), dtype=DOUBLE).view_as(y)).flatten() for y in outputs]
    )


def train_twice(module: nn.Module, inputs: list[Tensor], run: Callable[..., object]) -> list[Tensor]:
    """Outputs, gradients and buffers after two steps."""
    results = []
    for _ in range(2):
        outputs = flat(run(module, inputs))
        wanted = [*inputs, *(p for p in module.parameters() if p.requires_grad)]
        results += [outputs.detach(), *torch.autograd.grad(outputs.sum(), wanted)]
    return [*results, *(buffer.double() for buffer in module.buffers())]


def assert_same(a: list[Tensor], b: list[Tensor]) -> None:
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


def momentum_none(exchange: nn.Module) -> None:
    for norm in norms(exchange):
        norm.momentum = None


def mixed_momenta(exchange: nn.Module) -> None:
    for i, norm in enumerate(norms(exchange)):
        norm.momentum = 0.05 * (i + 1)


def not_affine(exchange: nn.Module) -> None:
    for norm in norms(exchange):
        norm.weight = norm.bias = None


def frozen(exchange: nn.Module) -> None:
    for norm in norms(exchange)[::2]:
        norm.eval()


def kept_statistics(exchange: nn.Module) -> None:
    for norm in norms(exchange)[1:]:
        norm.track_running_stats = False


def untracked(exchange: nn.Module) -> None:
    for norm in norms(exchange)[1:]:
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        norm.track_running_stats = False


def frozen_weights(exchange: nn.Module) -> None:
    for parameter in list(exchange.parameters())[::2]:
        parameter.requires_grad_(False)


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


CHANGES = [lambda _: None, momentum_none, mixed_momenta, not_affine, frozen, untracked, kept_statistics,
           frozen_weights]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    CHANGES,
    ids=["plain", "momentum_none", "momenta", "not_affine", "frozen", "untracked", "kept", "frozen_weights"],
)
@pytest.mark.parametrize("num_outputs", [None, 1], ids=["all", "first"])
def test_exchange_trains_as_its_layers(
    by_moments: Uses,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[nn.Module], None],
    num_outputs: int | None,
) -> None:
    plain = random_parameters(Exchange(WIDTHS, num_outputs))
    change(plain)
    fused, inputs = copy.deepcopy(plain), branches()
    got = train_twice(fused, inputs, lambda module, xs: module(xs))
    assert by_moments.count == 2
    expected = train_twice(plain, inputs, lambda module, xs: [row(xs) for row in module])
    assert_same(got, expected)


@pytest.mark.parametrize("change", [lambda _: None, untracked], ids=["tracked", "untracked"])
def test_exchange_evaluates_as_its_layers(by_moments: Uses, change: Callable[[nn.Module], None]) -> None:
    exchange = random_parameters(Exchange(WIDTHS)).eval()
    change(exchange)
    before = copy.deepcopy(exchange.state_dict())
    inputs = branches()
    with torch.no_grad():
        assert_same(list(exchange(inputs)), [row(inputs) for row in exchange])
    assert by_moments.count == 1
    assert all(torch.equal(value, before[name]) for name, value in exchange.state_dict().items())


@pytest.mark.parametrize("inputs", [64, 24], ids=["identity", "shortcut"])
def test_bottleneck_trains_as_its_layers(by_moments: Uses, inputs: int) -> None:
    fused = random_parameters(residual_layer(Bottleneck, inputs, 16, 2))
    plain = copy.deepcopy(fused)
    x = [torch.randn(2, inputs, 6, 4, dtype=DOUBLE).requires_grad_()]
    got = train_twice(fused, x, lambda module, xs: module(xs[0]))
    assert by_moments.count == 4
    for block in plain:
        block._fuses = lambda *_: False
    assert_same(got, train_twice(plain, x, lambda module, xs: module(xs[0])))


def test_wide_bottlenecks_and_strided_shortcuts_keep_their_layers(by_moments: Uses) -> None:
    x = torch.randn(1, 16, 4, 4)
    assert Bottleneck(16, 96).eval()(x).shape == (1, 384, 4, 4)
    assert Bottleneck(16, 4, stride=2).eval()(x).shape == (1, 16, 2, 2)
    assert BasicBlock(16, 16).eval()(x).shape == x.shape
    assert by_moments.count == 0


@pytest.mark.parametrize("fused", [False, True], ids=["layers", "fused"])
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 3, 8, 16), (2, 5, 4, 7), (2, 7, 2, 4)], r"branch 1 .*\(2, 5, 4, 7\) and \(2, 3, 8, 16\)"),
        ([(2, 3, 9, 16), (2, 5, 4, 8), (2, 7, 2, 4)], r"branch 1 .*\(2, 5, 4, 8\) and \(2, 3, 9, 16\)"),
        ([(2, 3, 8, 16), (2, 5, 4, 8), (1, 7, 2, 4)], r"branch 2 .*\(1, 7, 2, 4\) and \(2, 5, 4, 8\)"),
        ([(2, 3, 8, 16), (2, 5, 4, 8)], "joins 3 branches, got 2"),
    ],
    ids=["width", "height", "batch", "missing"],
)
def test_sizes_that_do_not_fit(
    request: pytest.FixtureRequest, fused: bool, shapes: list[tuple[int, ...]], message: str
) -> None:
    if fused:
        request.getfixturevalue("by_moments")
    with pytest.raises(ValueError, match=message):
        Exchange(WIDTHS).eval()([torch.zeros(shape) for shape in shapes])


@pytest.mark.parametrize("sync", [False, True], ids=["plain", "sync"])
def test_a_single_value_per_channel_is_refused_in_training(by_moments: Uses, sync: bool) -> None:
    exchange = Exchange([3, 5])
    small = [torch.zeros(1, 3, 2, 2), torch.zeros(1, 5, 1, 1)]
    if sync:
        exchange = nn.SyncBatchNorm.convert_sync_batchnorm(exchange)
    with pytest.raises(ValueError, match="more than 1 value per channel") as by_layers:
        [row(small) for row in exchange]
    with pytest.raises(ValueError, match="more than 1 value per channel") as refused:
        exchange(small)
    assert str(refused.value) == str(by_layers.value)
    assert by_moments.count == 0
    assert exchange.eval()(small)[0].shape == (1, 3, 2, 2)


@pytest.mark.parametrize("change", [lambda _: None, momentum_none], ids=["momentum", "momentum_none"])
def test_an_empty_batch_leaves_the_running_statistics(
    by_moments: Uses, change: Callable[[nn.Module], None]
) -> None:
    plain = random_parameters(Exchange(WIDTHS))
    change(plain)
    fused, inputs = copy.deepcopy(plain), [x[:0].detach().requires_grad_() for x in branches()]
    got = train_twice(fused, inputs, lambda module, xs: module(xs))
    assert by_moments.count == 2
    assert_same(got, train_twice(plain, inputs, lambda module, xs: [row(xs) for row in module]))


def test_mixed_dtypes_and_foreign_autocast_keep_the_layers(by_moments: Uses) -> None:
    exchange, inputs = Exchange(WIDTHS), [x.detach().float() for x in branches()]
    with torch.autocast("cpu", torch.bfloat16):
        exchange(inputs)
        assert by_moments.count == 0
        outputs = exchange([x.bfloat16() for x in inputs])
    assert by_moments.count == 1
    assert {y.dtype for y in outputs} == {torch.bfloat16}


def test_the_whole_network_compiles_and_trains_as_its_layers(by_moments: Uses) -> None:
    network = create_model("hrnet_w18_small", num_joints=3).double()
    network.reset_parameters("kaiming")
    plain, x = copy.deepcopy(network), [torch.randn(2, 3, 32, 64, dtype=DOUBLE).requires_grad_()]
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    got = train_twice(network, x, lambda _, xs: compiled(xs[0]))
    assert by_moments.count > 0
    for module in plain.modules():
        if isinstance(module, Bottleneck):
            module._fuses = lambda *_: False
        elif isinstance(module, Exchange):
            module.forward = lambda xs, rows=list(module): [row(xs) for row in rows]
    assert_same(got, train_twice(plain, x, lambda module, xs: module(xs[0])))
    assert list(plain.state_dict()) == list(network.state_dict())


def test_shapes_can_be_asked_on_the_meta_device() -> None:
    with torch.device("meta"):
        network = create_model("hrnet_w18_small", num_joints=3)
        assert network(torch.zeros(1, 3, 64, 32)).shape == (1, 3, 16, 8)
