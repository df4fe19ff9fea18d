"""What all hourglass variants compute, in the modes people run them in."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from golden_models import relative_error
from tiny_hourglass import VARIANTS, tiny_hourglass
from torch import Tensor

from fastpose.models import Hourglass
from fastpose.models.hourglass_blocks import PreResidual
from fastpose.nn.streams import use_branch_streams
from fastpose.ops import heatmap_loss

variants = pytest.mark.parametrize("variant", VARIANTS)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@variants
def test_every_stack_predicts_a_quarter_of_the_input(variant: str, training: bool) -> None:
    model = tiny_hourglass(variant, stacks=3).train(training)
    output = model(torch.rand(2, 3, 32, 48))
    assert output.shape == (2, 3, 3, 8, 12)
    maps = model.heatmaps(output)
    assert [tuple(one.shape) for one in maps] == [(2, 3, 8, 12)] * 3
    assert all(torch.equal(one, output[:, i]) for i, one in enumerate(maps))


@variants
def test_every_parameter_gets_a_gradient(variant: str) -> None:
    """Parameters without one stop DistributedDataParallel."""
    model = tiny_hourglass(variant).double()
    model(torch.rand(2, 3, 48, 32).double()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    still = [name for name, p in model.named_parameters() if not p.grad.any()]
    assert all(name.endswith("bias") for name in still)  # before a BatchNorm, where it cancels out


def test_each_stack_is_supervised_and_only_earlier_ones_learn_from_it() -> None:
    model = tiny_hourglass(stacks=3).double()
    x = torch.rand(2, 3, 32, 32).double()
    joints, weight = torch.rand(2, 3, 2) * 32, torch.ones(2, 3)
    maps = model.heatmaps(model(x))
    loss = heatmap_loss(maps, joints, weight, input_size=(32, 32), sigma=1.0)
    single = [
        heatmap_loss(one, joints, weight, input_size=(32, 32), sigma=1.0) for one in model.heatmaps(model(x))
    ]
    assert loss.item() == pytest.approx(sum(one.item() for one in single), rel=1e-12)
    single[1].backward()
    reached = {
        name.split(".")[1] for name, p in model.named_parameters() if name.startswith("hgs") and p.grad.any()
    }
    assert reached == {"0", "1"}
    assert model.get_parameter("merge_preds.0.conv.conv.weight").grad.any()
    assert not model.get_parameter("merge_preds.1.conv.conv.weight").grad.any()


def test_a_residual_that_adds_nothing_changes_nothing() -> None:
    """Two residuals at each place are one where the second one's last convolution is zero."""
    one, two = tiny_hourglass().eval(), tiny_hourglass("two_modules").eval()
    same = ["pre", "outs", "merge_features", "merge_preds", "features.0.0", "features.1.0"]
    places = {name: name for name in same} | {f"features.{i}.1": f"features.{i}.2" for i in (0, 1)}
    added = ["features.0.1", "features.1.1"]
    for name, module in one.hgs.named_modules(prefix="hgs"):
        if isinstance(module, PreResidual):
            places[name] = f"{name}.0"
            added.append(f"{name}.1")
    for name, place in places.items():
        two.get_submodule(place).load_state_dict(one.get_submodule(name).state_dict())
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(two(x), one(x))
        for name in added:
            two.get_parameter(f"{name}.conv3.conv.weight").zero_()
            two.get_parameter(f"{name}.conv3.conv.bias").zero_()
        torch.testing.assert_close(two(x), one(x))


def by_hand(model: Hourglass, x: Tensor) -> Tensor:
    """The post-activation network in evaluation, two halvings deep, written out over its tensors by name."""
    state = model.state_dict()

    def conv(x: Tensor, name: str, stride: int = 1, relu: bool = True, norm: bool = True) -> Tensor:
        if f"{name}.conv.weight" in state:
            weight = state[f"{name}.conv.weight"]
            x = F.conv2d(x, weight, state[f"{name}.conv.bias"], stride, weight.shape[-1] // 2)
        else:
            depthwise = state[f"{name}.conv.depthwise.weight"]
            x = F.conv2d(x, depthwise, None, 1, depthwise.shape[-1] // 2, groups=x.shape[1])
            x = F.conv2d(x, state[f"{name}.conv.pointwise.weight"], state[f"{name}.conv.pointwise.bias"])
        x = x.clamp(min=0) if relu else x
        if not norm:
            return x
        mean, var, gamma, beta = (
            state[f"{name}.bn.{key}"].view(-1, 1, 1)
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gamma + beta

    def block(x: Tensor, name: str) -> Tensor:
        shortcut = x
        if any(key.startswith(f"{name}.skip_layer") for key in state):
            shortcut = conv(x, f"{name}.skip_layer", norm=False)
        return conv(conv(conv(x, f"{name}.conv1"), f"{name}.conv2"), f"{name}.conv3") + shortcut

    def enlarge(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    x = F.max_pool2d(block(conv(x, "pre.0", stride=2), "pre.1"), 2)
    x = block(block(x, "pre.3"), "pre.4")
    outputs = []
    for i in range(len(model.hgs)):
        top = f"hgs.{i}.0"
        lefts = [block(x, f"{top}.left")]
        for name in (f"{top}.low", f"{top}.low.low"):
            lefts.append(block(F.max_pool2d(lefts[-1], 2), f"{name}.left"))
        bottom = functools.reduce(block, [f"{top}.low.low.low.{j}" for j in range(3)], lefts[2])
        right = block(lefts[2], f"{top}.low.low.skip") + bottom
        for left, name in ((lefts[1], f"{top}.low"), (lefts[0], top)):
            right = block(block(left, f"{name}.skip") + enlarge(right), f"{name}.right")
        found = conv(right, f"features.{i}.0")
        outputs.append(conv(found, f"outs.{i}", relu=False, norm=False))
        if i + 1 < len(model.hgs):
            x = x + conv(found, f"merge_features.{i}.conv", relu=False, norm=False)
            x = x + conv(outputs[-1], f"merge_preds.{i}.conv", relu=False, norm=False)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("variant", ["post", "separable"])
def test_post_activation_network_as_written_out(variant: str) -> None:
    model = tiny_hourglass(variant).double().eval()
    x = torch.rand(1, 3, 32, 48).double()
    with torch.no_grad():
        torch.testing.assert_close(model(x), by_hand(model, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 64, 40), "multiple of 16 wide and high, got width 40, height 64"),
        ((1, 3, 0, 32), "width 32, height 0"),
        ((1, 4, 64, 64), "(1, 4, 64, 64)"),
        ((3, 64, 64), "(3, 64, 64)"),
    ],
    ids=str,
)
def test_other_input_is_refused_with_its_size(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match="Hourglass") as caught:
        tiny_hourglass()(torch.rand(shape))
    assert message in str(caught.value)


@pytest.mark.parametrize("variant", ["official", "separable"])
def test_compiles_as_one_graph(variant: str) -> None:
    torch.compiler.reset()
    model = tiny_hourglass(variant, depth=1).train()
    twin = copy.deepcopy(model)
    x = torch.rand(2, 3, 32, 32)
    want, got = model(x), torch.compile(twin, fullgraph=True, backend="eager")(x)
    torch.testing.assert_close(got, want)
    got.sum().backward()
    assert all(p.grad is not None for p in twin.parameters())


@variants
def test_channels_last_gives_the_same(variant: str) -> None:
    model = tiny_hourglass(variant).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        want = model(x)
        layouts: list[bool] = []
        model.hgs[1].register_forward_hook(
            lambda _, inputs, output: layouts.append(output.is_contiguous(memory_format=torch.channels_last))
        )
        got = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert layouts == [True]


@variants
def test_bf16_autocast_is_close_and_trains(variant: str) -> None:
    model = tiny_hourglass(variant)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        want = model.eval()(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x)
    assert output.dtype == torch.bfloat16
    assert relative_error(output.float(), want.numpy()) < 0.03
    output.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_an_empty_batch_gives_empty_heatmaps() -> None:
    assert tiny_hourglass().eval()(torch.rand(0, 3, 32, 32)).shape == (0, 2, 3, 8, 8)


def test_loss_over_stacks_trains_the_network() -> None:
    torch.manual_seed(0)
    model = tiny_hourglass("two_modules", depth=1)
    model.reset_parameters("kaiming")
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2.5e-3)
    x, weight = torch.rand(4, 3, 32, 32), torch.ones(4, 3)
    joints = torch.rand(4, 3, 2) * 24 + 4
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = heatmap_loss(model.heatmaps(model(x)), joints, weight, input_size=(32, 32), sigma=1.0)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("variant", ["official", "separable"])
def test_same_results_with_and_without_streams(variant: str) -> None:
    model = tiny_hourglass(variant, width=64, depth=4).cuda().to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 128, 128, device="cuda").to(memory_format=torch.channels_last)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    results = []
    for mode in (False, True):
        model.load_state_dict(start)
        model.zero_grad()
        with use_branch_streams(mode):
            output = model(x)
            output.square().mean().backward()
        results.append([output.detach(), *(p.grad.clone() for p in model.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
