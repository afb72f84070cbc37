"""How many neurons to look at before one is split."""

from __future__ import annotations

__all__ = ["Looks"]

# Splits that come first: all of a search lies below them, so that they are worth the most looks.
FIRST = 512
# Fewer looks than this are not worth while.
LEAST = 8
# The weight of the latest batch in averages.
LATEST = 0.2


class Looks:
    """The number of looks at splits: at first the most, then so many that they take no longer than all the rest.

    Args:
        most: never more looks than this.
    """

    def __init__(self, most: int) -> None:
        self.most, self._splits = most, 0
        self._seconds = 0.0  # that the latest looks took
        self._look = self._rest = 0.0  # seconds of one look, and of a split besides

    @property
    def number(self) -> int:
        """How many looks to take before each split."""
        if self._splits < FIRST or self._look == 0:
            return self.most
        return max(min(int(self._rest / self._look), self.most), min(LEAST, self.most))

    def took(self, seconds: float, count: int) -> None:
        """Takes note of what ``count`` looks took."""
        self._seconds = seconds
        self._look = self._averaged(self._look, seconds / count)

    def done(self, seconds: float, splits: int) -> None:
        """Takes note of what ``splits`` took, the latest looks among it."""
        self._splits += splits
        self._rest = self._averaged(self._rest, max(seconds - self._seconds, 0.0) / splits)
        self._seconds = 0.0

    def _averaged(self, old: float, new: float) -> float:
        return new if old == 0 else (1 - LATEST) * old + LATEST * new
