"""The parts of a crop cache while it is built: a shard, its rows, and a note that both are on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastpose.data.crop_cache import FORMAT, INDEX, MANIFEST, ROW, shard_path
from fastpose.data.encode import EncodedPerson
from fastpose.errors import OutputError
from fastpose.files import sha256 as file_sha256
from fastpose.files import write_atomic, write_text

_PERSON_ROW = np.dtype([("person", "<i8"), *ROW.descr])


def write_part(
    folder: Path, number: int, pictures: Iterator[list[EncodedPerson]], shard_bytes: int, first: int
) -> dict[str, Any]:
    """Fills shard `number` with pictures until it has `shard_bytes` or they end; returns its note.

    The note: `pictures` done in all when the shard ends, given that `first` were before it, `bytes`,
    `sha256`, `rows_sha256` and `unreadable`, which lists the persons without a picture and why. OutputError
    when something cannot be written.
    """
    note: dict[str, Any] = {"pictures": first, "unreadable": {}}
    rows: list[tuple[Any, ...]] = []

    def write_shard(temporary: Path) -> None:
        with temporary.open("wb") as file:
            note.update(_fill(file, number, pictures, shard_bytes, note, rows))

    write_atomic(shard_path(folder, number), write_shard)
    table = np.array(rows, _PERSON_ROW)
    write_atomic(_rows_path(folder, number), lambda temporary: _save(temporary, table))
    note["rows_sha256"] = file_sha256(_rows_path(folder, number))
    write_text(_note_path(folder, number), json.dumps(note))
    return note


def finished_parts(folder: Path) -> list[dict[str, Any]]:
    """Notes of the shards from the first on that are there with the right bytes; deletes all other parts."""
    notes: list[dict[str, Any]] = []
    while note := _read_note(folder, len(notes)):
        notes.append(note)
    keep = {path(folder, n) for n in range(len(notes)) for path in (shard_path, _rows_path, _note_path)}
    for path in folder.glob("shard_*"):
        if path not in keep:
            path.unlink()
    return notes


def write_manifest(folder: Path, recipe: dict[str, Any], notes: list[dict[str, Any]]) -> None:
    """Joins the rows to the index and writes the manifest, which makes the cache a finished one."""
    index = np.zeros(recipe["persons"], ROW)
    for number in range(len(notes)):
        rows = np.load(_rows_path(folder, number), allow_pickle=False)
        for name in ROW.fields or ():
            index[name][rows["person"]] = rows[name]
    write_atomic(folder / INDEX, lambda temporary: _save(temporary, index))
    manifest = {
        "format": FORMAT,
        "recipe": recipe,
        "index_sha256": file_sha256(folder / INDEX),
        "pictures": notes[-1]["pictures"],
        "reduced": int((index["factor"] > 1).sum()),
        "unreadable": {person: why for note in notes for person, why in note["unreadable"].items()},
        "shards": [{key: note[key] for key in ("bytes", "sha256")} for note in notes],
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1))


def remove_notes(folder: Path) -> None:
    """Deletes what a finished cache does not need."""
    for pattern in ("shard_*.json", "shard_*.npy"):
        for path in folder.glob(pattern):
            path.unlink()


def _fill(
    file: BinaryIO,
    number: int,
    pictures: Iterator[list[EncodedPerson]],
    shard_bytes: int,
    note: dict[str, Any],
    rows: list[tuple[Any, ...]],
) -> dict[str, Any]:
    digest, offset, done, unreadable = sha256(), 0, note["pictures"], {}
    for persons in pictures:
        for one in persons:
            file.write(one.data)
            digest.update(one.data)
            place = (one.person, number, offset, len(one.data), one.crc32)
            rows.append((*place, *one.corner, *one.size, *one.picture, one.factor, *one.source))
            offset += len(one.data)
            if one.problem:
                unreadable[str(one.person)] = one.problem
        done += 1
        if offset >= shard_bytes:
            break
    return {"pictures": done, "bytes": offset, "sha256": digest.hexdigest(), "unreadable": unreadable}


def _read_note(folder: Path, number: int) -> dict[str, Any] | None:
    try:
        note = json.loads(_note_path(folder, number).read_text(encoding="utf-8"))
        whole = file_sha256(shard_path(folder, number)) == note["sha256"]
        if not whole or file_sha256(_rows_path(folder, number)) != note["rows_sha256"]:
            return None
        rows = np.load(_rows_path(folder, number), mmap_mode="r", allow_pickle=False)
        return note if rows.dtype == _PERSON_ROW else None  # else of an older fastpose
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{folder}: shard {number} cannot be read: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError):
        return None


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _rows_path(folder: Path, number: int) -> Path:
    return folder / f"shard_{number:05d}.npy"


def _note_path(folder: Path, number: int) -> Path:
    return folder / f"shard_{number:05d}.json"
