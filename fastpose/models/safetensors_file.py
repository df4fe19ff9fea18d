"""safetensors with a model's meta and a SHA-256 of everything in its header's metadata.

The format itself does not notice a flipped bit; the digest covers meta, names, dtypes, shapes and values, so
that a damaged file is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fastpose.errors import CheckpointError, ConfigError
from fastpose.models.meta import Meta, meta_from_json

META_KEY, DIGEST_KEY = "fastpose", "fastpose.sha256"

_UNREADABLE = (safetensors.SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], Meta | None]:
    """Tensors on the CPU and the meta, None where the file is not fastpose's; CheckpointError if damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    meta = _meta(path, metadata)
    if meta is not None and metadata[DIGEST_KEY] != _digest(tensors, metadata[META_KEY]):
        raise CheckpointError(f"{path}: damaged, its SHA-256 does not match; fetch or save it again")
    return tensors, meta


def read_safetensors_meta(path: Path) -> Meta | None:
    """The meta alone: reads the header, not the tensors, and so cannot check the digest."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    return _meta(path, metadata)


def to_safetensors(tensors: Mapping[str, Tensor], meta: Meta) -> bytes:
    """The bytes of a file that `read_safetensors` reads."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = meta.to_json()
    metadata = {"format": "pt", META_KEY: text, DIGEST_KEY: _digest(plain, text)}
    return _sorted_header(safetensors.torch.save(plain, metadata))


def _sorted_header(data: bytes) -> bytes:
    """The same file with its header in one order: the library's varies, and equal weights should be equal
    files."""
    length = int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _meta(path: Path, metadata: Mapping[str, str]) -> Meta | None:
    present = [key in metadata for key in (META_KEY, DIGEST_KEY)]
    if not any(present):
        return None
    if not all(present):
        raise CheckpointError(f"{path}: damaged, its metadata is incomplete; fetch or save it again")
    try:
        return meta_from_json(metadata[META_KEY])
    except ConfigError as error:
        raise CheckpointError(f"{path}: damaged metadata: {error}; fetch or save it again") from error


def _digest(tensors: Mapping[str, Tensor], meta_text: str) -> str:
    digest = hashlib.sha256(meta_text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: not a readable safetensors file ({error}); fetch or save it again")
