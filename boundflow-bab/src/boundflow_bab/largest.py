"""Conjunctions of several rows as one row each: that of their largest, which is a network itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.problem import Rows
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import Operand, Tensor
from boundflow_core.normalize.rebuild import Rewriter, extended

__all__ = ["with_largest"]

Array = NDArray[Any]


def with_largest(graph: PrimalGraph, rows: Rows) -> tuple[PrimalGraph, Rows]:
    """``graph`` followed by ``rows`` and the largest of each group, and one row for each group of the new outputs.

    Which row of a conjunction is positive may depend on the place. ``max(a, b) = b + relu(a - b)``, pair by pair, makes
    that a matter of neurons, which are split, relaxed and given multipliers as all others are: where none is left
    undecided the bound reaches the least value of the largest row, by duality.
    """
    sizes = np.bincount(rows.group)
    if sizes.max() == 1:
        return graph, rows

    def write(g: Rewriter, output: Tensor) -> Operand:
        with g.at("rows"):
            flat = g.op("reshape", output, shape=(rows.C.shape[1],)) if len(output.shape) != 1 else output
            found: Operand = g.op("linear", flat, rows.C, rows.offset)
        left = sizes
        while left.max() > 1:
            differences, kept, spread = _pairs(left)
            with g.at("largest"):
                over = g.op("relu", g.op("linear", found, differences))
                found = g.op("add", g.op("linear", found, kept), g.op("linear", over, spread))
            left = (left + 1) // 2
        return found

    groups = rows.groups
    return extended(graph, write), Rows(np.eye(groups), np.zeros(groups), np.arange(groups))


def _pairs(sizes: Array) -> tuple[Array, Array, Array]:
    """Of groups of ``sizes`` [G] values, one after another, the first and the second half made pairs.

    Returns:
        a - b for each pair [P, n], b, or the value that has no partner [m, n], and which of these each pair belongs
        to [m, P]; all entries are -1, 0 or 1, so that linear layers of these are exact.
    """
    firsts, seconds, alone, starts = [], [], [], np.cumsum([0, *sizes[:-1]])
    place, pairs = 0, []
    for start, size in zip(starts, sizes, strict=True):
        half = size // 2
        firsts += list(range(start, start + half))
        seconds += list(range(start + half, start + 2 * half))
        pairs += list(range(place, place + half))
        alone += [*range(start + half, start + size)]
        place += size - half
    identity = np.eye(int(sizes.sum()))
    spread = np.zeros((place, len(pairs)))
    spread[pairs, np.arange(len(pairs))] = 1.0
    return identity[firsts] - identity[seconds], identity[alone], spread
