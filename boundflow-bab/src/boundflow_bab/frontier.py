"""What waits to be bounded, or to be split, the least bounded first; on disk, where it is too much for memory."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, fields
from typing import IO, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Boxes", "Frontier", "Items", "Leaves", "joined"]

Array = NDArray[Any]
T = TypeVar("T", bound="Items")

# Bytes of items in memory.
LIMIT = 4 << 30


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
        signs: what is assumed of neurons that are split at zero, [B, N] int8; 0 for all others.
        ends: between which ends the M neurons lie that are split at points, [B, 2, M] float32; infinite where nothing
            is assumed.
        alpha, beta: slopes, and multipliers, [B, S, N].
    """

    box: Array
    group: Array
    signs: Array
    ends: Array
    alpha: Array
    beta: Array


def joined(*parts: T) -> T:
    """All items of ``parts``, of the types of the first."""
    first = parts[0]
    columns = zip(*(part.arrays for part in parts), strict=True)
    return type(first)(*(np.concatenate(column).astype(column[0].dtype, copy=False) for column in columns))


@dataclass(frozen=True, eq=False)
class _Spilled:
    """Items in a temporary file, which vanishes with this.

    Attributes:
        least: of their bounds.
    """

    file: IO[bytes]
    count: int
    least: float

    @staticmethod
    def of(items: Items) -> _Spilled:
        file = tempfile.TemporaryFile(prefix="boundflow-")  # noqa: SIM115, it is closed once it is read back
        for array in items.arrays:
            np.save(file, array, allow_pickle=False)
        return _Spilled(file, len(items), float(items.bound.min()))

    def items(self, like: T) -> T:
        """All of them, of the type of ``like``."""
        self.file.seek(0)
        return type(like)(*(np.load(self.file, allow_pickle=False) for _ in like.arrays))


class Frontier(Generic[T]):
    """A queue by worst bound; arrays that grow, since there may be millions of items.

    Args:
        limit: bytes that items may take in memory; of more, those that are needed last go to temporary files.
    """

    def __init__(self, items: T, limit: int = LIMIT) -> None:
        self._store, self._count, self._limit = items, len(items), limit
        self._spilled: list[_Spilled] = []

    def __len__(self) -> int:
        return self._count + sum(part.count for part in self._spilled)

    @property
    def worst(self) -> float:
        """The least bound of all that wait."""
        inside = float(self._store.bound[: self._count].min()) if self._count else np.inf
        return min([inside, *(part.least for part in self._spilled)])

    @property
    def held(self) -> T:
        """All that wait, in memory."""
        self._fetch(len(self))
        return self._store[: self._count]

    @property
    def spilled(self) -> int:
        """How many wait on disk."""
        return len(self) - self._count

    def distinct(self, field: str) -> Array:
        """The values that a field [B] takes, of all that wait."""
        found = [np.unique(getattr(self._store, field)[: self._count])]
        found += [np.unique(getattr(part.items(self._store), field)) for part in self._spilled]
        return np.unique(np.concatenate(found))

    def add(self, items: T) -> None:
        self._append(items)
        size = sum(array[:1].nbytes for array in self._store.arrays)
        if self._count * size > self._limit and self._count > 1:
            self._spill(max(self._limit // (2 * size), 1))

    def take(self, count: int) -> T:
        """Takes out at most ``count`` items, those of the least bounds."""
        self._fetch(count)
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

    def _append(self, items: T) -> None:
        needed = self._count + len(items)
        if needed > len(self._store):
            spare = np.zeros(max(needed, 2 * len(self._store)) - self._count, dtype=np.int64)
            filler = items if len(items) else self._store
            self._store = joined(self._store[: self._count], filler[spare])
        into = slice(self._count, needed)
        for array, new in zip(self._store.arrays, items.arrays, strict=True):
            array[into] = new
        self._count = needed

    def _spill(self, kept: int) -> None:
        """All but the worst go to a file."""
        order = np.argsort(self._store.bound[: self._count], kind="stable")
        self._spilled.append(_Spilled.of(self._store[order[kept:]]))
        self._store, self._count = self._store[order[:kept]], kept

    def _fetch(self, count: int) -> None:
        """Reads back files until the ``count`` worst of all are in memory."""
        while self._spilled:
            bounds = self._store.bound[: self._count]
            first = min(self._spilled, key=lambda part: part.least)
            if self._count >= count and first.least >= np.partition(bounds, count - 1)[count - 1]:
                return
            self._spilled.remove(first)
            self._append(first.items(self._store))
            first.file.close()
