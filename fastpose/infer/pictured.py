"""What results of all kinds have in common: the picture that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastpose.errors import DataError, FastposeError


class Pictured:
    """Gives a result its `image` and `stem`; `pixels` is the array, what reads it once more, or None."""

    name: str
    path: Path | None
    index: int
    frame: int | None
    error: FastposeError | None
    pixels: np.ndarray | Callable[[], np.ndarray] | None

    @property
    def image(self) -> np.ndarray:
        """The picture (H, W, 3) uint8 BGR, read once more where it came from a file.

        Raises the picture's own error, and DataError for a video's frame that a list did not keep.
        """
        if self.error is not None:
            raise self.error
        if self.pixels is None:
            raise DataError(
                f"{self.name}: a list does not keep the frames of a video; "
                "use stream=True, or hand the picture to plot(image)"
            )
        return self.pixels if isinstance(self.pixels, np.ndarray) else self.pixels()

    @property
    def stem(self) -> str:
        """A name for files: the picture's without folder and extension, with the number of a frame."""
        stem = self.path.stem if self.path else f"picture_{self.index:06d}"
        return stem if self.frame is None or not self.path else f"{stem}_{self.frame:06d}"
