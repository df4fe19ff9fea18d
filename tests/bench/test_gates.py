"""Exact figures against bench/gates.json, and whether a change for the worse is caught."""

import json
import warnings

import pytest
import torch
from torch import nn

from bench import gates
from bench.counting import MODELS, count_graph_breaks, count_modelled, count_passes, count_step, measure
from bench.gates import Baseline, compare, read_baseline, write_baseline
from fastpose.backend import get_backend
from fastpose.nn import BasicBlock, blocks
from fastpose.ops import loss
from fastpose.train.engine.update import Update

SMALL = MODELS[0]


@pytest.mark.parametrize("model", MODELS)
def test_nothing_got_worse(model):
    changes = compare(read_baseline(), {model: measure(model)})
    worse = [str(change) for change in changes if change.worse]
    for change in changes:
        if not change.worse:
            warnings.warn(f"better: {change}", stacklevel=1)
    assert not worse, "\n".join(worse)


def test_the_operators_are_those_of_the_official_network():
    """1,327 and 1,035 in a trace of the official HRNet-W48 (PERFORMANCE.md 2)."""
    figures = read_baseline().figures["hrnet_w48"]
    assert figures["layers forward operators"] == 1327
    assert figures["layers backward operators"] == 1035


def test_the_kernels_are_called_and_need_fewer_operators():
    for model in MODELS:
        figures = read_baseline().figures[model]
        assert figures["kernels step operators"] < figures["layers step operators"]
        assert figures["kernels saved bytes"] < figures["layers saved bytes"]
        # The loss takes two calls besides those of the network.
        calls = figures["kernels forward calls"] + figures["kernels backward calls"]
        assert figures["kernels step calls"] == calls + 2 > 2


def test_a_worse_figure_fails_with_before_and_after():
    before = Baseline(torch.__version__.split("+")[0], {"net": {"layers forward operators": 10, "bytes": 7}})
    changes = compare(before, {"net": {"layers forward operators": 11, "bytes": 6}})
    assert [(change.figure, change.worse) for change in changes] == [
        ("bytes", False),
        ("layers forward operators", True),
    ]
    assert str(changes[1]) == (
        "net: layers forward operators: before 10, after 11, "
        "update with `python -m bench.gates --update` and say why in the commit"
    )
    assert compare(before, {"net": dict(before.figures["net"])}) == []


@pytest.mark.parametrize(
    ("after", "figure"),
    [({"old": 1, "new": 0}, "new: before nothing, after 0"), ({}, "old: before 1, after nothing")],
    ids=["without a baseline", "not measured any more"],
)
def test_a_figure_cannot_come_or_go_in_silence(after, figure):
    (change,) = compare(Baseline("0", {"net": {"old": 1}}), {"net": after})
    assert change.worse
    assert figure in str(change)
    assert "the baseline is of torch 0, this is" in str(change)


def slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator more in every BasicBlock, whose input autograd must keep."""
    forward = BasicBlock.forward
    monkeypatch.setattr(BasicBlock, "forward", lambda self, x: forward(self, x).sigmoid())


def test_an_operator_more_in_the_network_is_caught(monkeypatch):
    baseline = read_baseline()
    slower(monkeypatch)
    found = count_passes(SMALL, "layers")
    after = {f"layers {name}": value for name, value in found.items()}
    worse = {
        change.figure: change for change in compare(baseline, {SMALL: after}) if change.after is not None
    }
    assert set(worse) == {
        f"layers {name}" for name in ("forward operators", "backward operators", "saved bytes")
    }
    assert all(change.worse for change in worse.values())
    basic_blocks = 2 * (2 + 3 * 3 + 2 * 4)
    assert worse["layers forward operators"].after == worse["layers forward operators"].before + basic_blocks


def test_an_operator_more_in_the_network_is_in_the_model(monkeypatch):
    before = read_baseline().figures[SMALL]
    slower(monkeypatch)
    after = count_modelled(SMALL)
    assert after["multiply-adds"] == before["multiply-adds"]
    for scheme in "abfpcx":
        assert after[f"training {scheme} bytes"] > before[f"training {scheme} bytes"]
        assert after[f"training {scheme} kernels"] > before[f"training {scheme} kernels"]


def test_a_kernel_that_is_not_used_any_more_is_caught(monkeypatch):
    before = read_baseline().figures[SMALL]
    monkeypatch.setattr(blocks, "MAX_FUSED_INPUTS", 0)
    after = count_passes(SMALL, "kernels")
    assert after["saved bytes"] > before["kernels saved bytes"]
    assert after["forward calls"] < before["kernels forward calls"]


def test_work_more_in_the_step_is_caught(monkeypatch):
    backward = Update.backward

    def twice(self, loss):
        return backward(self, loss * 1.0)

    monkeypatch.setattr(Update, "backward", twice)
    after = count_step(SMALL, "layers")["step operators"]
    assert after == read_baseline().figures[SMALL]["layers step operators"] + 2  # forward and backward


def test_graph_breaks_are_counted():
    class Broken(nn.Module):
        def forward(self, x):
            torch._dynamo.graph_break()
            return x + 1

    assert count_graph_breaks(Broken(), "layers") > 0
    assert count_graph_breaks(nn.ReLU(), "layers") == 0


def test_a_network_that_is_not_compiled_proves_nothing(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    with pytest.raises(RuntimeError, match="traced nothing"):
        count_graph_breaks(nn.ReLU(), "layers")


def test_the_process_is_left_as_it_was():
    deterministic = torch.are_deterministic_algorithms_enabled()
    count_passes(SMALL, "kernels")
    assert torch.are_deterministic_algorithms_enabled() is deterministic is True  # the fixture's
    assert get_backend() == "auto"
    assert not loss.runs_on_triton("loss", "pred", "auto", "cpu")


def test_the_baseline_is_sorted_and_comes_back(tmp_path):
    path = tmp_path / "gates.json"
    figures = {"b": {"z": 2, "a": 1}, "a": {"x": 3}}
    write_baseline(figures, path)
    assert read_baseline(path).figures == figures
    assert path.read_text() == json.dumps(json.loads(path.read_text()), indent=2, sort_keys=True) + "\n"
    assert read_baseline(tmp_path / "none.json").figures == {}
    committed = gates.BASELINE.read_text()
    assert committed == json.dumps(json.loads(committed), indent=2, sort_keys=True) + "\n"


def test_the_command(monkeypatch, tmp_path, capsys):
    measured = {"operators": 5}
    monkeypatch.setattr(gates, "BASELINE", tmp_path / "gates.json")
    monkeypatch.setattr(gates, "measure", lambda model: dict(measured))
    assert gates.main(["--update"]) == 0
    assert gates.main([]) == 0
    assert "every figure is what it was" in capsys.readouterr().out
    measured["operators"] = 6
    assert gates.main([]) == 1
    assert f"worse: {SMALL}: operators: before 5, after 6, update with" in capsys.readouterr().out
    measured["operators"] = 4
    assert gates.main([]) == 0
    assert f"better: {SMALL}: operators: before 5, after 4" in capsys.readouterr().out
    assert gates.main(["--update"]) == 0
    assert read_baseline(gates.BASELINE).figures[SMALL] == {"operators": 4}
