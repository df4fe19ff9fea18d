"""The examples run, learn what they are shown, and print what they did."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TINY = ["--model", "hrnet_w18_small", "--size", "64", "64", "--batch-size", "2", "--steps", "3"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("train_*.py")), ids=lambda path: path.stem)
def test_example_trains(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    losses = module.main(TINY)
    assert len(losses) == 3
    assert all(0 < loss < 1 for loss in losses)
    assert losses[0] != losses[2]
    assert "loss" in capsys.readouterr().out
