"""Building a crop cache that a kill at any moment leaves whole, or ready to be gone on with."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastpose.data.annotations import OnBad
from fastpose.data.augment import Augmentation
from fastpose.data.crop_cache import MANIFEST, CropCache, read_manifest, table_digest
from fastpose.data.encode import ALIGN, EncodedPerson, Encoding, RegionEncoder
from fastpose.data.loader import in_workers
from fastpose.data.persons import PersonTable
from fastpose.data.shards import finished_parts, remove_notes, write_manifest, write_part
from fastpose.errors import ConfigError, DataError, OutputError
from fastpose.files import make_folder, remove_leftovers, write_text

SHARD_BYTES = 256 << 20
RECIPE, _LOCK = "recipe.json", ".lock"


def prepare_crops(
    table: PersonTable,
    folder: Path,
    *,
    augmentation: Augmentation | None,
    aspect_ratio: float,
    encoding: Encoding | None = None,
    shard_bytes: int = SHARD_BYTES,
    workers: int = 0,
    on_bad: OnBad = "skip",
    advance: Callable[[int], None] = lambda pictures: None,
) -> CropCache:
    """Writes the crop cache of `table` to `folder`, or goes on with one begun there; returns it.

    Each picture is decoded once, whatever the number of its persons. A shard ends with the picture that fills
    it to `shard_bytes`; a note that it is whole follows it to the disk, and the manifest comes last. The
    files depend neither on the number of workers nor on interruptions. `advance(pictures)` is told of
    pictures done. Raises ConfigError where the folder holds a cache by another recipe or, finished, of
    pictures that have changed since, OutputError where it
    cannot be written, is in use or holds other things, and with `on_bad="stop"` the ImageError of a picture
    that cannot be read.
    """
    if shard_bytes < 1:
        raise ConfigError(f"shard_bytes must be at least 1, got {shard_bytes}")
    encoding = encoding or Encoding()
    encoder = RegionEncoder(table, augmentation, aspect_ratio, encoding, on_bad)
    recipe = make_recipe(table, augmentation, aspect_ratio, encoding, shard_bytes)
    with _locked(make_folder(folder)):
        _check_folder(folder, recipe)
        remove_leftovers(folder)
        finished = (folder / MANIFEST).is_file()
        if not finished:
            write_text(folder / RECIPE, json.dumps(recipe, indent=1))
            _write_shards(folder, recipe, encoder, workers, advance)
        remove_notes(folder)
        (folder / RECIPE).unlink(missing_ok=True)
    cache = CropCache(folder)
    if finished:
        cache.check_sources(table)
    return cache


def make_recipe(
    table: PersonTable,
    augmentation: Augmentation | None,
    aspect_ratio: float,
    encoding: Encoding,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """What a cache's bytes depend on, as its manifest keeps it."""
    options = augmentation or Augmentation(scale_factor=0, rotation_prob=0, half_body_prob=0)
    return {
        "persons": len(table),
        "table": table_digest(table),
        "reach": {
            "aspect_ratio": aspect_ratio,
            "scale_factor": options.scale_factor,
            "rotation_degrees": 2 * options.rotation_factor if options.rotation_prob else 0,
            "half_body_joints": options.half_body_joints if options.half_body_prob else None,
        },
        "align": ALIGN,
        **encoding.recipe(),
        "shard_bytes": shard_bytes,
    }


def _write_shards(
    folder: Path,
    recipe: dict[str, Any],
    encoder: RegionEncoder,
    workers: int,
    advance: Callable[[int], None],
) -> None:
    notes = finished_parts(folder)
    done = notes[-1]["pictures"] if notes else 0
    advance(done)
    pictures = _counted(in_workers(encoder, range(done, len(encoder)), workers), advance)
    try:
        while done < len(encoder):
            notes.append(write_part(folder, len(notes), pictures, recipe["shard_bytes"], done))
            done = notes[-1]["pictures"]
    finally:
        pictures.close()
    write_manifest(folder, recipe, notes)


def _counted(
    pictures: Iterator[list[EncodedPerson]], advance: Callable[[int], None]
) -> Generator[list[EncodedPerson], None, None]:
    for persons in pictures:
        advance(1)
        yield persons


def _check_folder(folder: Path, recipe: dict[str, Any]) -> None:
    if (folder / MANIFEST).is_file():
        before = read_manifest(folder)["recipe"]
    elif (folder / RECIPE).is_file():
        before = _read_recipe(folder / RECIPE)
    elif any(not path.name.startswith(".") for path in folder.iterdir()):
        raise OutputError(f"{folder}: holds files that are no crop cache; choose an empty or a new folder")
    else:
        return
    changed = [
        f"{key} {json.dumps(before.get(key))}, here {json.dumps(value)}"
        for key, value in recipe.items()
        if before.get(key) != value
    ]
    if changed:
        raise ConfigError(
            f"{folder}: holds a crop cache by another recipe ({'; '.join(changed)}); choose another "
            "folder, or delete this one"
        )


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete the folder and begin again") from None
    return recipe if isinstance(recipe, dict) else {}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        handle = (folder / _LOCK).open("a")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    with handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # workers do not inherit it, unlike a flock
        except OSError as error:
            raise OutputError(f"{folder}: another `fastpose prepare` is writing here; wait for it") from error
        yield
