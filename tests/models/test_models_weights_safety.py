"""Weights files that are broken or hostile: a typed error that names the file, and no code of theirs runs."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny_models import same, tiny

from fastpose.errors import CheckpointError
from fastpose.models import HRNet, hrnet_w18_small, load_model, load_weights, read_meta, save_weights


@pytest.fixture(scope="module")
def filled() -> HRNet:
    return tiny(filled=True)


class Payload:
    """Unpickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def payloads(canary: Path) -> dict[str, Payload]:
    return {
        "os.system": Payload(os.system, f"touch {canary}"),
        "subprocess": Payload(subprocess.check_call, ["touch", str(canary)]),
        "exec": Payload(exec, f"open({str(canary)!r}, 'w')"),
        "open": Payload(open, str(canary), "w"),
        "path": Payload(Path.touch, canary),
        "getattr": Payload(getattr, Payload(__import__, "os"), "system"),
        "torch.load": Payload(torch.hub.load, str(canary)),
    }


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("container", ["zip", "legacy", "bare", "in_state_dict"])
@pytest.mark.parametrize("payload", payloads(Path("unused")))
def test_no_code_of_a_file_runs(tmp_path: Path, payload: str, container: str, name: str) -> None:
    path, canary = tmp_path / name, tmp_path / "canary"
    attack = payloads(canary)[payload]
    if container == "bare":
        path.write_bytes(pickle.dumps(attack, protocol=2))
    elif container == "in_state_dict":
        torch.save({"state_dict": {"conv1.weight": attack}}, path)
    else:
        torch.save(attack, path, _use_new_zipfile_serialization=container == "zip")
    for load in (lambda: load_weights(tiny(), path), lambda: load_model(path)):
        with pytest.raises(CheckpointError) as caught:
            load()
        assert str(path) in str(caught.value)
    assert not canary.exists()


def test_a_refused_pickle_says_what_it_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {}, "config": Payload(exec, "1")}, path)
    with pytest.raises(CheckpointError, match=r"more than tensors \(\S*exec\).*save the state_dict alone"):
        load_weights(tiny(), path)


def broken_files(model: HRNet) -> dict[str, bytes]:
    pth, old = io.BytesIO(), io.BytesIO()
    torch.save(model.state_dict(), pth)
    torch.save(model.state_dict(), old, _use_new_zipfile_serialization=False)
    ours = safetensors.torch.save(model.state_dict())
    two = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    overlap = two + b'"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
    return {
        "empty.pth": b"",
        "text.pth": b"hello, this is a page that says 404",
        "half.pth": pth.getvalue()[: len(pth.getvalue()) // 2],
        "half_legacy.pth": old.getvalue()[: len(old.getvalue()) // 2],
        "empty.safetensors": b"",
        "half.safetensors": ours[: len(ours) // 2],
        "pth_inside.safetensors": pth.getvalue(),
        "huge_header.safetensors": (2**62).to_bytes(8, "little") + b"{}",
        "big_header.safetensors": (99_000_000).to_bytes(8, "little") + b"{}",
        "overlap.safetensors": len(overlap).to_bytes(8, "little") + overlap + bytes(12),
    }


@pytest.mark.parametrize("name", broken_files(tiny()))
def test_a_broken_file_is_named(tmp_path: Path, filled: HRNet, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(broken_files(filled)[name])
    with pytest.raises(CheckpointError, match="not a readable") as caught:
        load_weights(tiny(), path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "no state_dict in it, but list"),
        ({}, "no state_dict"),
        ({"epoch": 1}, "'epoch' is int, not a dense tensor"),
        ({"state_dict": {"a": torch.eye(2).to_sparse()}}, "'a' is Tensor, not a dense tensor"),
        ({"state_dict": {1: torch.eye(2)}}, "1 is Tensor"),
        ({"perf": np.float64(1)}, "not a state_dict"),
        ({"final_layer.weight": torch.tensor(1.0)}, "does not fit tiny"),
    ],
    ids=["list", "empty", "numbers", "sparse", "integer_names", "numpy", "scalar_head"],
)
def test_a_file_without_weights_is_explained(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "a.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        load_weights(tiny(), path)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for load in (lambda path: hrnet_w18_small(weights=path), read_meta, load_model):
        for path, message in (
            (tmp_path / "none.pth", "no such file"),
            (tmp_path, "it has no best.safetensors"),
        ):
            with pytest.raises(CheckpointError, match=message):
                load(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"fastpose": tiny().meta.to_json()}, "metadata is incomplete"),
        ({"fastpose.sha256": "0"}, "metadata is incomplete"),
        ({"fastpose": tiny().meta.to_json(), "fastpose.sha256": "0"}, "its SHA-256 does not match"),
        ({"fastpose": "{", "fastpose.sha256": "0"}, "damaged metadata"),
    ],
    ids=["no_digest", "no_meta", "wrong_digest", "bad_json"],
)
def test_damaged_metadata_is_refused(
    tmp_path: Path, filled: HRNet, metadata: dict[str, str], message: str
) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(filled.state_dict(), path, metadata)
    with pytest.raises(CheckpointError, match=message):
        load_weights(tiny(), path)


def test_no_single_flipped_bit_goes_unnoticed(tmp_path: Path, filled: HRNet) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(filled, path)
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(0)
    places = [*rng.integers(0, 8, 8), *rng.integers(8, 700, 50), *rng.integers(8, header, 20)]
    places += [*rng.integers(header, len(data), 20)]
    noticed = 0
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        model = tiny()
        try:
            load_weights(model, path)
        except CheckpointError:
            noticed += 1
        else:  # such as another letter in a note that nobody reads
            assert same(model, filled), place
            assert model.meta == filled.meta, place
    assert noticed > 0.9 * len(places)
