"""Boxes that wait to be bounded, the least bounded first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Boxes", "Frontier"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of a search.

    Attributes:
        lower, upper: [B, *input] float64.
        bound: [B], the least that is known of the worst group on each.
    """

    lower: Array
    upper: Array
    bound: Array

    def __len__(self) -> int:
        return len(self.bound)

    def __getitem__(self, index: Any) -> Boxes:
        return Boxes(self.lower[index], self.upper[index], self.bound[index])

    @staticmethod
    def joined(*parts: Boxes) -> Boxes:
        return Boxes(
            np.concatenate([part.lower for part in parts]),
            np.concatenate([part.upper for part in parts]),
            np.concatenate([part.bound for part in parts]),
        )


class Frontier:
    """A queue by worst bound; arrays that grow, since there may be millions of boxes."""

    def __init__(self, boxes: Boxes) -> None:
        self._store, self._count = boxes, len(boxes)

    def __len__(self) -> int:
        return self._count

    @property
    def worst(self) -> float:
        """The least bound of all that wait."""
        return float(self._store.bound[: self._count].min())

    def add(self, boxes: Boxes) -> None:
        needed = self._count + len(boxes)
        if needed > len(self._store):
            spare = np.zeros(max(needed, 2 * len(self._store)) - self._count, dtype=np.int64)
            filler = boxes if len(boxes) else self._store
            self._store = Boxes.joined(self._store[: self._count], filler[spare])
        into = slice(self._count, needed)
        self._store.lower[into], self._store.upper[into] = boxes.lower, boxes.upper
        self._store.bound[into] = boxes.bound
        self._count = needed

    def take(self, count: int) -> Boxes:
        """Takes out at most ``count`` boxes, those of the least bounds."""
        held = self._store[: self._count]
        if count >= self._count:
            self._count = 0
            return held[np.arange(len(held))]
        order = np.argpartition(held.bound, count - 1)
        taken = held[order[:count]]
        # Those at the end fill the gaps.
        left = self._count - count
        gaps = order[:count][order[:count] < left]
        kept = np.setdiff1d(np.arange(left, self._count), order[:count], assume_unique=True)
        for array in (self._store.lower, self._store.upper, self._store.bound):
            array[gaps] = array[kept]
        self._count = left
        return taken
