"""Which training states stay on the disk."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from fastpose.errors import ConfigError
from fastpose.files import remove_folder
from fastpose.train.saving.progress import list_states, state_place

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """The last `last` states, that of the best epoch, and those of every `every`-th epoch's end (0: none).

    Raises ConfigError for fewer than one state and for a negative `every`.
    """

    last: int = 2
    every: int = 0

    def __post_init__(self) -> None:
        if self.last < 1:
            raise ConfigError(f"train.keep={self.last}: must be at least 1")
        if self.every < 0:
            raise ConfigError(f"train.keep_every={self.every}: must be at least 0")

    def superseded(self, states: list[Path], best_epoch: int | None = None) -> list[Path]:
        """Those of `states`, oldest first, that need not be kept."""
        return [path for path in states[: -self.last] if not self._marked(path, best_epoch)]

    def _marked(self, path: Path, best_epoch: int | None) -> bool:
        epoch, samples = state_place(path) or (0, 0)
        return not samples and (epoch == best_epoch or bool(self.every and epoch % self.every == 0))

    def apply(self, folder: Path, best_epoch: int | None = None) -> None:
        """Deletes what is superseded, once a later state is complete; what resists is told, not raised."""
        for path in self.superseded(list_states(folder), best_epoch):
            try:
                remove_folder(path)
            except OSError as error:
                logger.warning("%s: an old training state cannot be deleted: %s", path, error)

    def describe(self, state: Path) -> str:
        """What the states of a run come to, from the size of one of them and the room on its disk."""
        size = sum(entry.stat().st_size for entry in os.scandir(state))
        marked = f", the best and one every {self.every} epochs" if self.every else " and the best"
        free = shutil.disk_usage(state).free
        text = (
            f"a training state takes {_megabytes(size)}; the last {self.last}{marked} are kept, and "
            f"{_megabytes(free)} are free"
        )
        few = free < (self.last + 1) * size  # the one under way, besides those that are kept
        return f"{text}: too little for that, make room" if few else text


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
