"""Numbers in messages."""

from __future__ import annotations


def counted(count: int, one: str, many: str | None = None) -> str:
    """'1 picture', '2 pictures'; `many` where that is more than an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"
