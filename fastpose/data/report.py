"""What a check of a dataset found, and the look at its pictures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastpose.data.images import FolderImages, MissingImageError, ZipImages, open_images, unsafe_name
from fastpose.errors import ImageError

Size = tuple[int, int]


class Problem(NamedTuple):
    """One thing that is wrong: its kind, where it is, and what to know about it."""

    kind: str
    where: str
    message: str


@dataclass
class DataReport:
    """All problems of annotation files and their pictures.

    `persons` are those a reader would hand over, or pictures where `things` says so; `skipped` counts the
    others by reason.
    """

    name: str
    problems: list[Problem] = field(default_factory=list)
    images: int = 0
    persons: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    things: str = "persons"

    @property
    def counts(self) -> Counter[str]:
        """Problems by kind."""
        return Counter(problem.kind for problem in self.problems)

    def add(self, kind: str, where: str, message: str) -> None:
        self.problems.append(Problem(kind, where, message))

    def lines(self, limit: int | None = None) -> Iterator[str]:
        """The report as text, at most `limit` lines per kind of problem; the last line has the totals."""
        yield self.name
        shown: Counter[str] = Counter()
        for problem in self.problems:
            shown[problem.kind] += 1
            if limit is None or shown[problem.kind] <= limit:
                message = problem.message.removeprefix(f"{problem.where}: ")
                yield f"  {problem.kind}: {problem.where}: {message}"
        for kind, count in self.counts.items():
            if limit is not None and count > limit:
                yield f"  {kind}: {count - limit} more"
        for title, counter in (("problems", self.counts), (f"{self.things} left out", self.skipped)):
            if counter:
                yield f"{title}: " + ", ".join(f"{what} {count}" for what, count in counter.most_common())
        yield f"{self.images} images, {self.persons} usable {self.things}, {len(self.problems)} problems"

    def __str__(self) -> str:
        return "\n".join(self.lines())


def merge_reports(name: str, reports: list[DataReport]) -> DataReport:
    """One report on several files; each problem says which file it is in."""
    merged = DataReport(name, things=reports[0].things)
    for report in reports:
        merged.problems += [
            Problem(kind, f"{os.path.basename(report.name)}: {where}", message)
            for kind, where, message in report.problems
        ]
        merged.images += report.images
        merged.persons += report.persons
        merged.skipped += report.skipped
    return merged if len(reports) > 1 else reports[0]


def open_source(root: str | os.PathLike[str], report: DataReport) -> FolderImages | ZipImages | None:
    """The pictures, or None with a problem added."""
    try:
        return open_images(root)
    except ImageError as error:
        report.add("image root", os.fspath(root), str(error))
        return None


def check_pictures(
    names: list[str], source: FolderImages | ZipImages, report: DataReport, *, decode: bool
) -> list[Size | None]:
    """(width, height) of every picture, None where it cannot be used and a problem was added.

    Without `decode` path, existence and header are looked at, with it every pixel is decoded.
    """

    def look(name: str) -> Size | ImageError:
        try:
            if not decode:
                return source.size(name)
            height, width = source.read(name).shape[:2]
            return width, height
        except ImageError as error:
            return error

    sizes: list[Size | None] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, found in zip(names, pool.map(look, names), strict=True):
            if isinstance(found, ImageError):
                report.add(_kind(name, found), f"image {name!r}"[:200], str(found))
            sizes.append(None if isinstance(found, ImageError) else found)
    return sizes


def _kind(name: str, error: ImageError) -> str:
    if isinstance(error, MissingImageError):
        return "image missing"
    return "image path" if unsafe_name(name) or "refused" in str(error) else "image unreadable"


def check_joints(
    joints: np.ndarray, shown: np.ndarray, names: Sequence[str], size: Size, where: str, report: DataReport
) -> None:
    """Adds a problem when a shown joint of (K, 2) lies outside the image of `size`, borders included."""
    outside = shown & ((joints < 0) | (joints > size)).any(1)
    if outside.any():
        told = ", ".join(
            f"{names[k]} ({joints[k, 0]:g}, {joints[k, 1]:g})" for k in np.flatnonzero(outside).tolist()
        )
        report.add("joints", where, f"outside the image of {size[0]}x{size[1]}: {told}")
