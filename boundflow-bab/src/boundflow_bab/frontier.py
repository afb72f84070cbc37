"""What waits to be bounded, or to be split, the least bounded first."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Boxes", "Frontier", "Items", "Leaves", "joined"]

Array = NDArray[Any]
T = TypeVar("T", bound="Items")


@dataclass(frozen=True, eq=False)
class Items:
    """A batch: arrays [B, ...].

    Attributes:
        bound: [B], the least that is known of the worst group of each.
    """

    bound: Array

    def __len__(self) -> int:
        return len(self.bound)

    def __getitem__(self: T, index: Any) -> T:
        return type(self)(*(array[index] for array in self.arrays))

    @property
    def arrays(self) -> list[Array]:
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True, eq=False)
class Boxes(Items):
    """Boxes of a search.

    Attributes:
        lower, upper: [B, *input] float64.
    """

    lower: Array
    upper: Array


@dataclass(frozen=True, eq=False)
class Leaves(Items):
    """Subproblems of a search over N neurons.

    Attributes:
        box, group: numbers [B] of the box and of the group of rows.
        signs: what is assumed, [B, N] int8.
        alpha, beta: slopes, and multipliers, [B, S, N].
    """

    box: Array
    group: Array
    signs: Array
    alpha: Array
    beta: Array


def joined(*parts: T) -> T:
    """All items of ``parts``, of the types of the first."""
    first = parts[0]
    columns = zip(*(part.arrays for part in parts), strict=True)
    return type(first)(*(np.concatenate(column).astype(column[0].dtype, copy=False) for column in columns))


class Frontier(Generic[T]):
    """A queue by worst bound; arrays that grow, since there may be millions of items."""

    def __init__(self, items: T) -> None:
        self._store, self._count = items, len(items)

    def __len__(self) -> int:
        return self._count

    @property
    def worst(self) -> float:
        """The least bound of all that wait."""
        return float(self._store.bound[: self._count].min())

    @property
    def held(self) -> T:
        """All that wait."""
        return self._store[: self._count]

    def add(self, items: T) -> None:
        needed = self._count + len(items)
        if needed > len(self._store):
            spare = np.zeros(max(needed, 2 * len(self._store)) - self._count, dtype=np.int64)
            filler = items if len(items) else self._store
            self._store = joined(self._store[: self._count], filler[spare])
        into = slice(self._count, needed)
        for array, new in zip(self._store.arrays, items.arrays, strict=True):
            array[into] = new
        self._count = needed

    def take(self, count: int) -> T:
        """Takes out at most ``count`` items, those of the least bounds."""
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
        for array in self._store.arrays:
            array[gaps] = array[kept]
        self._count = left
        return taken
