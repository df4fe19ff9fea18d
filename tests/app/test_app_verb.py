"""`fastpose app`: which weights, which address, and what is said when it cannot be served."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from app_stubs import spots_predictor

from fastpose.app.headers import PolicyMiddleware
from fastpose.app.serve import LOCAL, PORTS, free_port, is_local, served
from fastpose.cli import main
from fastpose.cli.app import newest_demo
from fastpose.errors import CheckpointError, ConfigError
from fastpose.infer.predictor import Predictor
from fastpose.keypoints import MPII_16
from fastpose.models import create_model, save_weights

needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="the extra app is not installed")


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["app", *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastpose: error: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A file of weights that a quick predictor stands for."""
    predictor = spots_predictor()
    monkeypatch.setattr("fastpose.infer.predictor.Predictor", lambda *names, **options: predictor)
    (tmp_path / "w.safetensors").write_bytes(b"")
    return str(tmp_path / "w.safetensors")


def test_the_demo_that_ended_last(tmp_path: Path) -> None:
    for age, name in ((10, "demo-2"), (5, "demo-3"), (20, "demo"), (1, "other")):
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        (folder / "best.safetensors").write_bytes(b"")
        os.utime(folder / "best.safetensors", (1e9 - age, 1e9 - age))
    (tmp_path / "train" / "demo-4").mkdir()  # a run that has no weights yet
    assert newest_demo(tmp_path) == tmp_path / "train" / "demo-3" / "best.safetensors"
    with pytest.raises(CheckpointError, match="make demo"):
        newest_demo(tmp_path / "elsewhere")


def test_without_weights_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "make demo" in fails(capsys)
    assert "nothing.safetensors: no such file" in fails(capsys, "nothing.safetensors")


class Taken(Exception):
    """Raised in place of a page: what the predictor was made of is known by then."""


@pytest.mark.parametrize("named", [["--model", "hrnet_w18_small"], ["--config", "small.yaml"]])
def test_what_the_predictor_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(create_model("hrnet_w18_small", 16).state_dict(), "w.pth")
    Path("small.yaml").write_text(
        "model: {name: hrnet_w18_small}\ndata: {format: mpii, input_size: [64, 96]}\n"
    )
    taken: list[Predictor] = []

    def serve(predictor: Predictor, announce: object, **options: object) -> None:
        taken.append(predictor)
        raise Taken

    monkeypatch.setattr("fastpose.app.serve.serve", serve)
    with pytest.raises(Taken):
        main(["app", "w.pth", *named, "--device", "cpu", "--amp", "bf16", "--no-flip"])
    (predictor,) = taken
    assert predictor.keypoints == MPII_16
    assert predictor.meta.input_size == ((64, 96) if "--config" in named else (192, 256))
    assert predictor.options.dtype == torch.bfloat16
    assert not predictor.options.flip_test
    assert predictor.model.conv1.weight.dtype == torch.bfloat16, "folded, as the page's own"
    assert predictor.detector is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--config coco/"),
        (["--model", "hrnet_w18_small"], "14 joints and does not say which"),
        (["--model", "hrnet_w18_small", "--engine", "onnx"], "14 joints"),
        (["--amp", "fp16", "--device", "cpu", "--model", "hrnet_w18_small"], "joints"),
    ],
    ids=["nothing", "fourteen", "engine", "half"],
)
def test_weights_that_cannot_be_used_have_a_remedy_for_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    torch.save(create_model("hrnet_w18_small", 14).state_dict(), tmp_path / "w.pth")
    error = fails(capsys, str(tmp_path / "w.pth"), *words)
    assert message in error
    assert "Predictor(" not in error


def test_without_gradio_the_extra_is_named(
    weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "fastpose.app.page", raising=False)
    assert "pip install 'fastpose[app]'" in fails(capsys, weights)


def test_a_port_that_is_taken_and_a_host_of_others(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((LOCAL, 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} on 127.0.0.1 cannot be used" in fails(capsys, weights, "--port", port)
    assert "on 192.0.2.7" in fails(capsys, weights, "--host", "192.0.2.7")
    assert "port 70000" in fails(capsys, weights, "--port", "70000")
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize("detector", ["whole", "robots", "ultralytics:x.pt"])
def test_a_detector_that_cannot_be_had(
    weights: str, detector: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    assert "detector" in fails(capsys, weights, "--detector", detector)


def test_another_address_is_warned_of(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", weights, "--host", "192.0.2.7"]) == 2
    assert "warning: 192.0.2.7 is not a local address" in capsys.readouterr().out


def test_the_next_free_port() -> None:
    first = free_port(LOCAL)
    with socket.create_server((LOCAL, first)):
        second = free_port(LOCAL)
        assert PORTS.start <= first < second < PORTS.stop
        with pytest.raises(ConfigError, match="--port"):
            free_port(LOCAL, first)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", "")),
    ],
)
def test_what_counts_as_local(host: str, local: bool) -> None:
    assert is_local(host) is local


def test_a_page_without_people_to_look_for_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="button"), served(spots_predictor(), detector="whole"):
        pytest.fail("it was served")


@pytest.mark.parametrize(
    ("path", "reached"),
    [
        ("/gradio_api/file=https://example.org/a", False),
        ("/gradio_api/file=HTTP://example.org/a", False),
        ("/gradio_api/proxy=https://example.org/", False),
        ("/gradio_api/file=/a/http.png", True),
        ("/", True),
    ],
)
def test_the_layer_refuses_to_fetch_and_adds_the_policy(path: str, reached: bool) -> None:
    sent = []

    async def app(scope: dict, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})

    async def send(message: dict) -> None:
        sent.append(message)

    layer = PolicyMiddleware(app, "none")
    call = layer({"type": "http", "path": path}, None, send)
    with pytest.raises(StopIteration):
        call.send(None)
    assert sent[0]["status"] == (200 if reached else 403)
    assert (b"content-security-policy", b"none") in sent[0]["headers"]
    assert ((b"a", b"b") in sent[0]["headers"]) == reached


@needs_gradio
def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "w.safetensors"
    save_weights(create_model("hrnet_w18_small", input_size=(64, 64)), weights)
    command = [sys.executable, "-m", "fastpose", "app", str(weights), "--device", "cpu"]
    (tmp_path / "tmp").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    try:
        lines = [running.stdout.readline(), running.stdout.readline()]
        assert lines[0] == f"{weights}: hrnet_w18_small, crops 64x64 rgb, cpu\n"
        address = lines[1].split()[1]
        assert address.startswith("http://127.0.0.1:78")
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert b"gradio_config" in answer.read()
        assert list((tmp_path / "tmp").glob("fastpose-app-*"))
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=30) == 0
        assert not list((tmp_path / "tmp").glob("fastpose-app-*")), "uploads are deleted"
    finally:
        running.kill()
        running.wait()
