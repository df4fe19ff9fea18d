"""States of a run on disk: written in the background, found again, resumed bit for bit."""
