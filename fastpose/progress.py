"""A progress bar on a terminal, silence elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(
    title: str, total: int | None, console: Console | None = None
) -> Iterator[Callable[..., None]]:
    """Yields `advance(count, note="")`, whose note is shown behind the bar; the bar goes away at the end.

    total: of the counts, None where nobody knows.
    """
    console = console or Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total, note="")

        def advance(count: int, note: str = "") -> None:
            progress.update(task, advance=count, note=note)

        yield advance
