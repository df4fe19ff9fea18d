"""What is to be written, compared with what is read: a name for both would cost the user the file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastpose.errors import ConfigError, FastposeError, OutputError
from fastpose.infer.sources import EXTENSIONS, find_images
from fastpose.infer.video_in import is_video


def check_outputs(read: Iterable[Path], *, video: Path | None = None, jsonl: Path | None = None) -> None:
    """OutputError where a file of the names `video` and `jsonl` is one of those that are `read`, by whatever
    path or link, or where `video` is a folder that holds one of these pictures; ConfigError where both are
    one file."""
    if video is not None and jsonl is not None and video.resolve() == jsonl.resolve():
        raise ConfigError(f"{video}: cannot be both the video and the lines of JSON; choose another name")
    files = list(read)
    for output in filter(None, (video, jsonl)):
        check_output(output, files)
    if video is not None and not video.suffix:
        _check_folder(video, files)


def check_output(output: Path, read: Iterable[Path]) -> None:
    """OutputError where a file of this name would take the place of one that is read."""
    place = _identity(output)
    same = next((file for file in read if place is not None and _identity(file) == place), None)
    if same is not None:
        told = "" if same == output else f" ({same})"
        raise OutputError(f"{output}: is what is read{told} and would be written over; choose another name")


def output_stems(files: Sequence[Path], out: Path, *folders: str) -> dict[Path, str]:
    """A name for each picture, of which `out`/NAME.png and `out`/FOLDER/NAME.png are written: its stem, with
    a number added where two pictures share one.

    None of these is one of the pictures that are read, nor, in a folder with such pictures, a file that is
    there already.
    """
    places = [out, *(out / folder for folder in folders)]
    taken = {file.resolve() for file in files}
    sources = {file.parent for file in taken}
    kept = [place for place in places if place.resolve() in sources]
    stems = {}
    for file in files:
        stem, number = file.stem, 2
        while taken & _pngs(places, stem) or any(path.exists() for path in _pngs(kept, stem)):
            stem, number = f"{file.stem}-{number}", number + 1
        taken |= _pngs(places, stem)
        stems[file] = stem
    return stems


def _pngs(folders: Iterable[Path], stem: str) -> set[Path]:
    return {(folder / f"{stem}.png").resolve() for folder in folders}


def source_files(source: Any) -> list[Path]:
    """The files that a source of `Predictor` names, as far as that is known before it is read."""
    if isinstance(source, (str, Path)):
        source = [source]
    return list(_named(source)) if isinstance(source, (list, tuple)) else []


def _named(members: Iterable[Any]) -> Iterator[Path]:
    for member in members:
        if not isinstance(member, (str, Path)):
            continue
        if is_video(member) or os.path.isfile(member):
            yield Path(member)
            continue
        try:
            yield from find_images(member)
        except FastposeError:  # the predictor says it in its place
            continue


def _check_folder(folder: Path, read: Iterable[Path]) -> None:
    place = _identity(folder)
    for file in read:
        picture = file.suffix.lower() in EXTENSIONS
        if place is not None and picture and _identity(file.parent) == place:
            raise OutputError(f"{folder}: holds {file.name}, which is read; choose another folder")


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others; None where there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
