"""Where a run stands, counted in samples, so that another number of processes can go on from there."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_NAME = re.compile(r"state-(\d{5,})-(\d{7,})")


@dataclass
class Progress:
    """The next batch to do, the sums of the epoch under way, and what is done.

    `step_samples` is how many samples a step takes in all processes together; 1 counts in batches. `unusable`
    samples were replaced, and `skipped` steps changed nothing, in the epoch under way.
    `best_epoch` is how many epochs were done when `best` was reached.
    """

    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    step_samples: int = 1
    unusable: int = 0
    skipped: int = 0

    @property
    def samples(self) -> int:
        """Of the epoch under way, done."""
        return self.batch * self.step_samples

    @property
    def place(self) -> tuple[int, int]:
        """Epochs done, and samples of the next: larger is later, whatever the steps were."""
        return self.epoch, self.samples

    def in_steps_of(self, step_samples: int) -> None:
        """Goes on in steps of another size: at the last step of that size that is wholly done.

        Less than one step of samples is then seen twice in this epoch, and a warning says how many; none
        where the sizes divide.
        """
        samples = self.samples
        self.batch, again = divmod(samples, step_samples)
        if again:
            logger.warning(
                "epoch %d goes on in steps of %d samples instead of %d: %d samples are seen twice",
                self.epoch + 1,
                step_samples,
                self.step_samples,
                again,
            )
        self.step_samples = step_samples


def lower_to_best_file(progress: Progress, note: Path) -> None:
    """Takes the best score from `note`, the file beside the best weights, where it is lower or gone.

    So it is where they could not be written, or somebody took them away: the next weights that are better
    than what is there shall be kept.
    """
    if progress.best is None:
        return
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        score, epoch = float(found["score"]), int(found["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        logger.warning("%s: unreadable or gone, so the best weights are those of the next evaluation", note)
        progress.best = progress.best_epoch = None
        return
    if score < progress.best:
        logger.warning("%s: has the score %g, and the run has seen %g", note, score, progress.best)
        progress.best, progress.best_epoch = score, epoch


def state_name(place: tuple[int, int]) -> str:
    """Of the folder of a training state."""
    return f"state-{place[0]:05d}-{place[1]:07d}"


def state_place(path: Path) -> tuple[int, int] | None:
    """Inverse of `state_name`; None for anything else's name."""
    match = _NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2])) if match else None


def list_states(folder: Path) -> list[Path]:
    """Training states, oldest first; they come into being by a rename, so each was complete once."""
    found = [(place, path) for path in folder.glob("state-*") if (place := state_place(path))]
    return [path for _, path in sorted(found)]
