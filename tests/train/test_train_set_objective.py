"""The set loss against a plain loop over layers, samples and joints with scipy's matching, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from compile_checks import graph_breaks
from cuda_graph_on_cpu import play_cuda_on_cpu
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fastpose.nn.normalize import normalize_crops
from fastpose.train.config import TrainConfig
from fastpose.train.engine.step import TrainStep
from fastpose.train.optim import build_optimizer
from fastpose.train.set_objective import SetObjective, match_queries, set_loss

LAYERS, BATCH, QUERIES, JOINTS = 3, 4, 9, 5
WIDTH, HEIGHT = 96, 128


def prediction(dtype: torch.dtype = torch.float64, queries: int = QUERIES) -> dict[str, Any]:
    layers = [
        {
            "pred_logits": torch.randn(BATCH, queries, JOINTS + 1, dtype=dtype),
            "pred_coords": torch.rand(BATCH, queries, 2, dtype=dtype),
        }
        for _ in range(LAYERS)
    ]
    return {**layers[-1], "aux_outputs": layers[:-1]}


def batch() -> dict[str, Tensor]:
    weight = torch.tensor([[1.0, 1.5, 0.0, 1.0, 1.2], [0.0] * 5, [1.0] * 5, [0.0, 0.0, 1.0, 1.0, 0.0]])
    return {
        "crop": torch.randint(0, 256, (BATCH, HEIGHT, WIDTH, 3), dtype=torch.uint8),
        "joints": torch.rand(BATCH, JOINTS, 2) * torch.tensor([WIDTH, HEIGHT]) * 1.4 - 20,
        "weight": weight,
    }


def layers_of(output: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    layers = [*output["aux_outputs"], output]
    return [{name: layer[name].numpy() for name in ("pred_logits", "pred_coords")} for layer in layers]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def match(layer: dict[str, np.ndarray], sample: int, joints: np.ndarray, chosen: list[int]) -> dict[int, int]:
    """Joint -> query for the joints `chosen`."""
    shares = np.exp(log_softmax(layer["pred_logits"][sample]))
    places = layer["pred_coords"][sample]
    cost = [[5 * np.abs(place - joints[j]).sum() - share[j] for j in chosen]
            for place, share in zip(places, shares, strict=True)]  # fmt: skip
    queries, columns = linear_sum_assignment(np.array(cost).reshape(len(places), len(chosen)))
    return {chosen[column]: query for query, column in zip(queries, columns, strict=True)}


def plain_loss(output: dict[str, Any], given: dict[str, Tensor], visible_only: bool) -> float:
    joints = given["joints"].double().numpy() / [WIDTH, HEIGHT]
    weight = given["weight"].double().numpy()
    total = 0.0
    for layer in layers_of(output):
        surprise, importance, distance = 0.0, 0.0, 0.0
        for sample in range(BATCH):
            chosen = [j for j in range(JOINTS) if weight[sample, j] > 0 or not visible_only]
            found = match(layer, sample, joints[sample], chosen)
            joint_of = {query: j for j, query in found.items()}
            logs = log_softmax(layer["pred_logits"][sample])
            for query in range(QUERIES):
                own = 1.0 if query in joint_of else 0.1
                surprise -= own * logs[query, joint_of.get(query, JOINTS)]
                importance += own
            for j, query in found.items():
                distance += (
                    weight[sample, j] * np.abs(layer["pred_coords"][sample, query] - joints[sample, j]).sum()
                )
        total += surprise / importance + 5 * JOINTS * distance / (BATCH * JOINTS * 2)
    return total


@pytest.mark.parametrize("visible_only", [False, True], ids=["all", "visible"])
@pytest.mark.parametrize("seed", range(5))
def test_loss_is_that_of_the_loop(seed: int, visible_only: bool) -> None:
    torch.manual_seed(seed)
    output, given = prediction(), batch()
    got = SetObjective(visible_only=visible_only).loss(output, given)
    assert got.dtype == torch.float64
    assert got.item() == pytest.approx(plain_loss(output, given, visible_only), rel=1e-12)


def test_visible_only_changes_the_loss() -> None:
    output, given = prediction(), batch()
    assert SetObjective().loss(output, given) != SetObjective(visible_only=True).loss(output, given)


def test_loss_has_its_gradient() -> None:
    output, given = prediction(), batch()
    logits = torch.stack(
        [layer["pred_logits"] for layer in (*output["aux_outputs"], output)]
    ).requires_grad_()
    coords = torch.stack(
        [layer["pred_coords"] for layer in (*output["aux_outputs"], output)]
    ).requires_grad_()
    target, weight = torch.rand(BATCH, JOINTS, 2).double(), given["weight"].double()
    assert torch.autograd.gradcheck(lambda a, b: set_loss(a, b, target, weight), (logits, coords))


def test_places_outside_the_crop_are_not_clipped() -> None:
    output, given = prediction(), batch()
    given["joints"][2, 0] = torch.tensor([-90.0, 400.0])
    want = plain_loss(output, given, False)
    assert SetObjective().loss(output, given).item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("visible_only", [False, True], ids=["all", "visible"])
def test_joints_without_weight_may_be_anywhere(visible_only: bool) -> None:
    output, given = prediction(), batch()
    given["joints"][given["weight"] == 0] = torch.nan
    loss = SetObjective(visible_only=visible_only).loss(output, given)
    assert loss.isfinite()
    if visible_only:
        assert loss.item() == pytest.approx(plain_loss(output, given, True), rel=1e-12)


def test_inputs_stay_as_they_are() -> None:
    output, given = prediction(torch.float32), batch()
    before = {name: tensor.clone() for name, tensor in given.items()}
    objective = SetObjective()
    objective.loss(output, given)
    objective.score(output, given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.items())


def test_predictions_that_are_not_finite_give_a_loss_that_is_not() -> None:
    output, given = prediction(torch.float32), batch()
    output["pred_coords"][1, 3:] = torch.nan
    output["pred_logits"][1, 3:] = torch.nan
    assert not SetObjective().loss(output, given).isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    output, given = prediction(dtype), batch()
    wide = {name: output[name].float() for name in ("pred_logits", "pred_coords")}
    wide["aux_outputs"] = [{name: x.float() for name, x in layer.items()} for layer in output["aux_outputs"]]
    loss = SetObjective().loss(output, given)
    assert loss.dtype == torch.float32
    assert loss == SetObjective().loss(wide, given)


def test_fewer_queries_than_joints_are_refused() -> None:
    with pytest.raises(ValueError, match="5 joints need as many queries, got 4"):
        SetObjective().loss(prediction(queries=4), batch())


def test_every_layer_is_matched_on_its_own() -> None:
    logits = torch.zeros(2, 1, 3, 3)
    coords = torch.tensor([[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]).expand(2, 1, 3, 2).clone()
    coords[1] = coords[1].flip(1)
    target = torch.tensor([[[0.12, 0.1], [0.8, 0.9]]])
    matched = torch.ones(1, 2, dtype=torch.bool)
    assert match_queries(logits, coords, target, matched).tolist() == [[[0, 2]], [[2, 0]]]


def test_probability_decides_between_equal_places() -> None:
    logits = torch.zeros(1, 1, 4, 2)
    logits[0, 0, 2, 0] = 1.0
    coords, target = torch.full((1, 1, 4, 2), 0.5), torch.full((1, 1, 2), 0.5)
    assert match_queries(logits, coords, target, torch.ones(1, 1, dtype=torch.bool)).item() == 2


def test_score_counts_visible_joints_within_a_tenth_of_the_width() -> None:
    given = batch()
    given["weight"] = torch.zeros(BATCH, JOINTS)
    given["weight"][0, :4] = 1.0
    given["joints"] = torch.full((BATCH, JOINTS, 2), 60.0)
    given["joints"][0] = torch.tensor([[10.0, 10], [50, 20], [20, 90], [70, 110], [5, 60]])
    reach = torch.tensor([[9.5, 0.0], [0.0, 9.5], [9.7, 0.0], [7.0, 7.0], [90.0, 0.0]])  # a tenth is 9.6
    output = prediction(torch.float32)
    output["pred_logits"][:] = 0.0
    places = torch.full((QUERIES, 2), 5.0)
    places[:JOINTS] = (given["joints"][0] + reach) / torch.tensor([WIDTH, HEIGHT])
    output["pred_coords"][0] = places
    score, counted = SetObjective().score(output, given).tolist()
    assert counted == 4
    assert score == 0.5, "9.5 pixels along either axis are near, 9.7 and 7 times the root of 2 are not"


def test_score_of_nothing_visible() -> None:
    given = batch()
    given["weight"][:] = 0.0
    assert SetObjective().score(prediction(), given).tolist() == [0.0, 0.0]


def test_normalises_with_the_networks_statistics() -> None:
    given = batch()
    objective = SetObjective(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    want = normalize_crops(given["crop"], (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert torch.equal(objective.network_input(given), want)


def test_compiles_whole() -> None:
    given = batch()
    assert graph_breaks(lambda output: SetObjective().loss(output, given), prediction(torch.float32)) == 0


class Guess(torch.nn.Module):
    """Three layers of queries from the mean colour of a crop."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, LAYERS * QUERIES * (JOINTS + 3))

    def forward(self, x: Tensor) -> dict[str, Any]:
        values = self.head(x.mean((2, 3))).unflatten(1, (LAYERS, QUERIES, -1))
        logits, coords = values[..., :-2], values[..., -2:].sigmoid()
        layers = [{"pred_logits": logits[:, i], "pred_coords": coords[:, i]} for i in range(LAYERS)]
        return {**layers[-1], "aux_outputs": layers[:-1]}


def trained(steps: int, *, graph: bool) -> tuple[TrainStep, list[float]]:
    torch.manual_seed(3)
    model, device = Guess(), torch.device("cpu")
    config = TrainConfig(optimizer="adamw", lr=1e-2, weight_decay=1e-4, clip_grad=0.1)
    optimizer = build_optimizer(model, config, device)
    step = TrainStep(
        model, optimizer, config, objective=SetObjective(), dtype=None, device=device, graph=graph
    )
    given, losses = batch(), []
    for _ in range(steps):
        step(given, 1e-2)
        step.finish()
        assert step.latest
        losses.append(step.latest.loss)
    return step, losses


def test_step_learns() -> None:
    _, losses = trained(60, graph=False)
    assert losses[-1] < 0.8 * losses[0]


def test_step_can_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay matches anew: its losses are those of ordinary steps, although the matching changes."""
    _, want = trained(12, graph=False)
    play_cuda_on_cpu(monkeypatch)
    step, losses = trained(12, graph=True)
    assert step.graph.reason == ""
    assert step.graph.captured == 1
    assert losses == pytest.approx(want, rel=1e-5)
