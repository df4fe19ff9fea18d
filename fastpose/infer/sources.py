"""From what a user types (files, folders, globs) to a list of pictures."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path

from fastpose.errors import ImageError

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
NOT_FETCHED = "URLs are not fetched; download the file and name that"


def find_images(sources: str | Path | Iterable[str | Path]) -> list[Path]:
    """The pictures that files, folders and globs name, sorted, each once.

    A folder gives the pictures directly in it (`folder/**/*.jpg` for those below, in quotes so that the
    shell leaves it alone); hidden files and other kinds of file in a folder or a glob are passed over. A file
    named outright is among them whatever its extension: reading it shows whether it is a picture. Raises
    ImageError, naming the source, when it does not exist, or is a folder or glob that holds no picture.
    """
    if isinstance(sources, (str, Path)):
        sources = [sources]
    found: set[Path] = set()
    for source in sources:
        try:
            found.update(_expand(source))
        except ImageError:
            raise
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ImageError(f"{source!s}: cannot be read: {reason}") from error
    if not found:
        raise ImageError("sources: no picture was named; give files, folders or globs")
    return sorted(found)


def _expand(source: str | Path) -> list[Path]:
    if source == "":
        raise ImageError("source: an empty name; the working folder is '.'")
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        shown = [child for child in path.iterdir() if not child.name.startswith(".")]
        pictures = [child for child in shown if _is_picture(child) and child.is_file()]
        if not pictures:
            raise ImageError(f"{path}: no picture in this folder; for those below it give '{path}/**/*.jpg'")
        return pictures
    if is_address(source):
        raise ImageError(f"{source}: {NOT_FETCHED}")
    if not glob.has_magic(str(source)):
        raise ImageError(f"{path}: no such file or folder")
    matches = [Path(match) for match in glob.iglob(str(source), recursive=True)]
    pictures = [match for match in matches if _is_picture(match) and match.is_file()]
    if not pictures:
        what = f"matches {len(matches)} names, none of them a picture" if matches else "matches nothing"
        raise ImageError(f"{source}: this pattern {what} ({', '.join(EXTENSIONS)})")
    return pictures


def is_address(source: str | Path) -> bool:
    """Whether this is a URL, such as https://example.org/photo.jpg, of which a Path keeps one slash."""
    return re.match(r"[a-z][a-z0-9+.-]+:/", str(source), re.IGNORECASE) is not None


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS
