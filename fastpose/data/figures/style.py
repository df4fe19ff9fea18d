"""What rendered pictures are like, as far as the caller chooses."""

from __future__ import annotations

from dataclasses import dataclass

from fastpose.errors import ConfigError

MAX_PEOPLE = 8


@dataclass(frozen=True)
class FigureStyle:
    """The choices; shares are in [0, 1]. Raises ConfigError when one is out of range.

    people: fewest and most persons in a picture, at most MAX_PEOPLE.
    occluders: put one or two things (pole, box, plant, rails) in front of people in every third picture.
    truncation: share of persons cut by the border on purpose, as close-ups or at a side.
    lying: share of persons who lie.
    facing: shares of persons seen from the front, from the side and from behind; they need not sum to 1.
    noise: half the spread of the grain in percent of a pixel's brightness.
    """

    people: tuple[int, int] = (1, 4)
    occluders: bool = True
    truncation: float = 0.12
    lying: float = 0.04
    facing: tuple[float, float, float] = (0.55, 0.25, 0.20)
    noise: float = 3.0

    def __post_init__(self) -> None:
        low, high = self.people
        if not 1 <= low <= high <= MAX_PEOPLE:
            raise ConfigError(f"figures: people is (fewest, most) within 1..{MAX_PEOPLE}, got {self.people}")
        for name in ("truncation", "lying"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"figures: {name} is a share between 0 and 1, got {getattr(self, name)}")
        if len(self.facing) != 3 or min(self.facing) < 0 or sum(self.facing) <= 0:
            raise ConfigError(f"figures: facing is three shares (front, side, back), got {self.facing}")
        if not 0 <= self.noise <= 50:
            raise ConfigError(f"figures: noise is between 0 and 50 percent, got {self.noise}")
