"""Geometry of a convolution's adjoint along one axis, and the cutting of loops into tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Phase", "Tile", "border", "phases", "tile_sizes", "tiles"]


@dataclass(frozen=True)
class Phase:
    """Elements ``stride j + first`` of the input, j below ``count``: each is read by the results ``j + t``.

    Attributes:
        taps: pairs (t, kernel index), t ascending by one.
    """

    first: int
    count: int
    taps: tuple[tuple[int, int], ...]


def phases(size: int, kernel: int, stride: int, padding: int) -> list[Phase]:
    """The input's elements by their place within a stride; those that nothing reads have no taps.

    Result o reads input ``stride o - padding + k`` through k, so that element i is read by result
    ``(i + padding - k) / stride`` where that is whole.
    """
    found = []
    for first in range(min(stride, size)):
        taps = sorted(
            ((first + padding - k) // stride, k) for k in range(kernel) if (first + padding - k) % stride == 0
        )
        found.append(Phase(first, -(-(size - first) // stride), tuple(taps)))
    return found


def border(parts: Sequence[Phase], results: int) -> tuple[int, int]:
    """How many results before the first and after the last one are read, as zeros."""
    taps = [(part, t) for part in parts for t, _ in part.taps]
    before = max([0, *(-t for _, t in taps)])
    after = max([0, *(part.count + t - results for part, t in taps)])
    return before, after


@dataclass(frozen=True)
class Tile:
    """``count`` pieces of ``size`` elements, from ``start`` on."""

    start: int
    count: int
    size: int


def tiles(extent: int, size: int) -> list[Tile]:
    """``extent`` elements in pieces of ``size``, and one with what is left."""
    whole, rest = divmod(extent, size)
    found = [Tile(0, whole, size)] if whole else []
    return [*found, Tile(whole * size, 1, rest)] if rest else found


def tile_sizes(pixels: int, channels: int, accumulators: int) -> tuple[int, int]:
    """Pixels and channels of a register tile: the pair with the least cost of loads, multiplications and latency.

    A step of a tile loads a vector per pixel and a weight per channel and multiplies each by each, two of either in a
    cycle; a result can be added to only every fourth cycle. Pixels are a power of two: one wide vector.
    """

    def cost(p: int, c: int) -> float:
        return sum(
            a.count * b.count * max(a.size * b.size / 2, (a.size + b.size) / 2, 4.0)
            for a in tiles(pixels, p)
            for b in tiles(channels, c)
        ) + 0.01 * (len(tiles(pixels, p)) + len(tiles(channels, c)))

    pairs = [
        (p, c)
        for p in (1, 2, 4, 8)
        for c in range(1, min(channels, accumulators) + 1)
        if p <= pixels and p * c <= accumulators
    ]
    return min(pairs, key=lambda pair: (cost(*pair), pair[0] * pair[1], pair[0]))
