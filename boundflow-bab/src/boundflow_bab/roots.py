"""The boxes and rows that subproblems of a search share, and the bounds inside of the network on each box."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.neurons import Neurons
from boundflow_bab.problem import Rows
from boundflow_bab.tighten import outward32
from boundflow_crown import Subproblems

__all__ = ["Roots"]

Array = NDArray[Any]
Bounds = Mapping[str, tuple[Array, Array]]

# find(lower, upper) -> bounds [B, *value] by name
Find = Callable[[Array, Array], Bounds]


@dataclass
class Roots:
    """Boxes ``lower``, ``upper`` [b, *input] float64 and the rows of groups.

    Attributes:
        C, offset: [G, S, n] and [G, S]; rows of groups that have less are repeated.
        bounds: in float32, of values inside of the network on the boxes [b, *value].
        find, find_exact: give such bounds, and some that hold in exact arithmetic; None: nothing is confirmed.
    """

    lower: Array
    upper: Array
    C: Array
    offset: Array
    bounds: Bounds
    find: Find
    find_exact: Find | None

    def __post_init__(self) -> None:
        self._exact: Bounds | None = None
        self._boxes: tuple[Array, Array] = self.lower[:0], self.upper[:0]

    @staticmethod
    def of(lower: Array, upper: Array, rows: Rows, find: Find, find_exact: Find | None) -> Roots:
        ends = [*rows.starts[1:], len(rows.offset)]
        most = max(end - start for start, end in zip(rows.starts, ends, strict=True))
        numbers = np.array(
            [np.minimum(np.arange(start, start + most), end - 1) for start, end in zip(rows.starts, ends, strict=True)]
        )
        return Roots(lower, upper, rows.C[numbers], rows.offset[numbers], find(lower, upper), find, find_exact)

    @property
    def exact(self) -> Bounds:
        """Bounds that hold in exact arithmetic, found when they are first asked for."""
        assert self.find_exact is not None
        known = 0 if self._exact is None else len(next(iter(self._exact.values()))[0])
        if known < len(self.lower):
            more = self.find_exact(self.lower[known:], self.upper[known:])
            self._exact = more if self._exact is None else _joined(self._exact, more)
        assert self._exact is not None
        return self._exact

    @property
    def boxes(self) -> tuple[Array, Array]:
        """The boxes in float32, rounded outwards."""
        if len(self._boxes[0]) < len(self.lower):
            self._boxes = outward32({"": (self.lower, self.upper)})[""]
        return self._boxes

    def tighten(self, bounds: Bounds, exact: Bounds | None) -> None:
        """Takes other bounds of the boxes; ``exact`` ones hold in exact arithmetic."""
        self.bounds, self._exact = bounds, exact

    def refined(self, bounds: Bounds, exact: Bounds | None) -> Roots:
        """The first box alone, with other bounds, ``exact`` ones of which hold in exact arithmetic."""
        one = replace(self, lower=self.lower[:1], upper=self.upper[:1], bounds=bounds)
        one.tighten(bounds, exact)
        return one

    def add(self, lower: Array, upper: Array, parent: Array) -> None:
        """More boxes [k, *input], parts of those numbered ``parent`` [k]."""
        self.lower, self.upper = np.concatenate([self.lower, lower]), np.concatenate([self.upper, upper])
        found = self.find(lower, upper)
        tighter = {
            name: (np.maximum(low, self.bounds[name][0][parent]), np.minimum(high, self.bounds[name][1][parent]))
            for name, (low, high) in found.items()
        }
        self.bounds = _joined(self.bounds, tighter)

    def problems(
        self,
        neurons: Neurons,
        box: Array,
        group: Array,
        signs: Array,
        ends: Array,
        unit: Mapping[str, Array],
        alpha: Array,
        beta: Array,
        *,
        exact: bool = False,
    ) -> Subproblems:
        """Subproblems on the boxes numbered ``box`` [B] with the rows of the groups ``group`` [B].

        Args:
            signs, ends, alpha, beta: of the neurons, [B, N], [B, 2, M], [B, S, N] and [B, S, N].
            unit: of multipliers, by value, [B].
        """
        known = self.exact if exact else self.bounds
        lower, upper = (self.lower, self.upper) if exact else self.boxes
        if len(self.lower) > 1:
            known = {name: (low[box], high[box]) for name, (low, high) in known.items()}
        # Of other neurons slopes are those of the function, as crown would take them in the box.
        rest = {n: (known[n][0] + known[n][1] > 0)[:, None] for n in neurons.shapes}
        kind = np.float64 if exact else np.float32
        return Subproblems(
            lower[box],
            upper[box],
            self.C[group],
            self.offset[group],
            known,
            neurons.split(signs, ends),
            unit,
            neurons.spread(alpha.astype(kind), rest),
            neurons.spread(beta.astype(kind)),
        )


def _joined(one: Bounds, other: Bounds) -> Bounds:
    return {
        name: (np.concatenate([low, other[name][0]]), np.concatenate([high, other[name][1]]))
        for name, (low, high) in one.items()
    }
