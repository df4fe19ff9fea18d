"""What a run tells: results.csv, TensorBoard events, progress bars, one line an epoch."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from fastpose.files import write_text
from fastpose.progress import progress_bar

logger = logging.getLogger(__name__)


class RunLog:
    """Writes the history of one run; a resumed run writes on, without double rows."""

    def __init__(self, folder: Path, *, tensorboard: bool, start_epoch: int = 0) -> None:
        self.folder = folder
        self.console = Console()
        self.events = self._events(start_epoch) if tensorboard else None

    def _events(self, start_epoch: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.info("TensorBoard is not installed (pip install tensorboard); results.csv has the curves")
            return None
        return SummaryWriter(str(self.folder), purge_step=start_epoch)

    def epoch(self, history: list[dict[str, Any]], epochs: int) -> None:
        """Publishes the last row of `history` and rewrites results.csv whole."""
        row = history[-1]
        write_text(self.folder / "results.csv", _csv(history))
        if self.events:
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self.events.add_scalar(name, value, row["epoch"])
            self.events.flush()
        parts = [f"epoch {row['epoch']}/{epochs}", f"loss {row['loss']:.6f}", f"acc {row['accuracy']:.3f}"]
        known = ("epoch", "lr", "loss", "accuracy", "seconds", "images_per_second", "unusable", "skipped")
        scores = [name for name in row if name not in known and row[name] is not None]
        parts += [f"{scores[0]} {row[scores[0]]:.3f}"] if scores else []
        parts += [f"{row['images_per_second']:.0f} images/s"] if "images_per_second" in row else []
        self.console.print("  ".join(parts), highlight=False)

    def bar(self, title: str, total: int) -> AbstractContextManager[Callable[..., None]]:
        return progress_bar(title, total, self.console)

    def close(self) -> None:
        if self.events:
            self.events.close()


class SilentLog:
    """What RunLog is in a process that does not speak."""

    def epoch(self, history: list[dict[str, Any]], epochs: int) -> None:
        pass

    def bar(self, title: str, total: int) -> AbstractContextManager[Callable[..., None]]:
        return nullcontext(lambda count, note="": None)

    def close(self) -> None:
        pass


def _csv(history: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
