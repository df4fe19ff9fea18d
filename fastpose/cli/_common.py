"""What several verbs share."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastpose.train.config import Config


def new_verb(verbs: Any, name: str, help_line: str, epilog: str) -> argparse.ArgumentParser:
    """A sub-parser whose description is its help line and whose examples keep their line breaks."""
    return verbs.add_parser(
        name,
        help=help_line,
        description=help_line[0].upper() + help_line[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def config_or_run(name: str, overrides: list[str]) -> tuple[Config, Path | None]:
    """A configuration by name or file, or that of a run folder (returned beside it)."""
    from fastpose.train.config_io import load_config

    folder = Path(name)
    if (folder / "config.yaml").is_file():
        return load_config(folder / "config.yaml", overrides), folder
    return load_config(name, overrides), None


def free_folder(folder: Path) -> Path:
    """`folder`, or `folder`-2, -3, ...: the first that does not exist."""
    candidate, number = folder, 2
    while candidate.exists():
        candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return candidate


def latest_folder(folder: Path) -> Path:
    """The last of `folder`, `folder`-2, -3, ... that exists, or `folder`."""
    candidate, number = folder, 2
    while (following := folder.with_name(f"{folder.name}-{number}")).exists():
        candidate, number = following, number + 1
    return candidate


def print_left_out(table: Any) -> None:
    """A line for each reason why a reader left something out."""
    for reason, count in sorted((+table.skipped).items()):
        print(f"  left out: {count} x {reason}")


def worker_count(text: str) -> int | str:
    """An option's value for a number of threads: "auto", or the number."""
    if text == "auto":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected auto or a whole number from 0 on, got {text!r}")
    return int(text)


def blur_kernel(text: str) -> int | str:
    """An option's value for the blur of `refine="dark"`: "auto", or the number of taps."""
    from fastpose.reference.dark import check_blur_kernel

    if text == "auto":
        return text
    kernel = int(text)
    try:
        check_blur_kernel(kernel)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return kernel


def tell_missing_pckh(headline: str) -> None:
    """Says why MPII data were scored otherwise."""
    if headline == "PCK@0.2":
        print("no PCKh: that takes the head sizes of MPII's gt_valid.mat beside the annotations")


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Nothing below a warning from the loggers under `name`."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
