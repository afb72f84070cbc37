"""Points that attacks have met, as a check on bounds: no point of a box lies below what is shown of the box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.problem import Part, Rows
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.types import DType

__all__ = ["Refuted", "Samples"]

Array = NDArray[Any]

# Numbers that are kept of a part's points, at most; of larger parts none.
MOST_NUMBERS = 1 << 24
# Points that bounds are compared with, those nearest to them.
COMPARED = 32
# What the evaluation of a point in float64 may be off by, as a part of the numbers that are compared, and of 1.
SLACK = 1e-9


class Refuted(Exception):
    """Bounds that are said to hold do not: a rule, or what runs it, is wrong."""


@dataclass(frozen=True, eq=False)
class Samples:
    """The best point so far for each of B boxes and G groups.

    Attributes:
        margin: [B, G], the largest row of the group there, in float32; infinite where there is no point.
        x: [B, G, *input].
    """

    margin: Array
    x: Array

    @staticmethod
    def of(part: Part) -> Samples | None:
        """Without any points yet; None: there would be too many of them."""
        shape = (len(part.lower), part.rows.groups)
        if np.prod(shape) * np.prod(part.lower.shape[1:]) > MOST_NUMBERS:
            return None
        return Samples(np.full(shape, np.inf, np.float32), np.zeros((*shape, *part.lower.shape[1:])))

    def note(self, box: Array, group: Array, x: Array, margin: Array) -> None:
        """Points ``x`` [N, *input] of boxes [N] with their margins [N] for groups [N]."""
        order = np.argsort(-margin, kind="stable")  # the least one of each pair is written last
        box, group, x, margin = box[order], group[order], x[order], margin[order]
        better = margin < self.margin[box, group]
        self.margin[box[better], group[better]] = margin[better]
        self.x[box[better], group[better]] = x[better]

    def select(self, boxes: Array, groups: Array) -> Samples:
        """Those of the boxes and groups of these numbers."""
        return Samples(self.margin[np.ix_(boxes, groups)], self.x[np.ix_(boxes, groups)])

    def check(self, graph: PrimalGraph, rows: Rows, best: Array) -> None:
        """Compares with lower bounds ``best`` [B, G] of the groups' largest rows, which hold in exact arithmetic.

        Raises:
            Refuted: the network takes a value below its bound.
        """
        above = np.where(np.isfinite(self.margin), best - self.margin, -np.inf)
        box, group = np.unravel_index(np.argsort(-above, axis=None)[:COMPARED], above.shape)
        kept = above[box, group] > -np.inf
        box, group = box[kept], group[kept]
        if not len(box):
            return
        y = evaluate_graph(graph, self.x[box, group], DType.FLOAT64).reshape(len(box), -1)
        each = y @ rows.C.T + rows.offset
        true = np.where(rows.group[None] == group[:, None], each, -np.inf).max(axis=1)
        claimed = best[box, group]
        size = 1 + np.abs(y).max(axis=1) * np.abs(rows.C).sum(axis=1).max() + np.abs(true)
        if (claimed > true + SLACK * size).any():
            raise Refuted
