"""What is to be shown: rows of specification, in groups, over boxes.

An output is unsafe if all rows ``C y + d <= 0`` of one conjunction hold. So a box is safe if in every conjunction, a
*group* of rows here, one row is positive on all of the box (or on each part of it, another one).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.constraints import ConstraintStore
from boundflow_core.errors import PropertyError
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.types import concrete_shape, format_shape
from boundflow_core.property import LinearConstraints, Property
from boundflow_core.specs import LinearSpec

__all__ = ["Part", "Rows", "check_sizes", "parts_of"]

Array = NDArray[Any]

# The value that rows of specification are on.
OUTPUT = "output"


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows on the outputs, those of a group one after another.

    Attributes:
        C: [S, n] float64.
        offset: [S] float64.
        starts: number [G] of each group's first row.
    """

    C: Array
    offset: Array
    starts: Array

    @property
    def groups(self) -> int:
        """Number of groups G."""
        return len(self.starts)

    @cached_property
    def group(self) -> Array:
        """The group [S] of each row."""
        return np.repeat(np.arange(self.groups), np.diff([*self.starts, len(self.offset)]))

    @property
    def spec(self) -> LinearSpec:
        return LinearSpec(self.C, self.offset)

    def best(self, lower: Array) -> Array:
        """How far each group is shown, [B, G], from lower bounds [B, S]: positive where one of its rows is.

        What is not a number shows nothing.
        """
        known = np.where(np.isnan(lower), -np.inf, lower)
        return np.maximum.reduceat(known, self.starts, axis=1)

    def select(self, groups: Array) -> Rows:
        """Only the groups numbered [g], in ascending order."""
        if len(groups) == self.groups:
            return self
        rows = np.isin(self.group, groups)
        lengths = np.diff([*self.starts, len(self.offset)])[groups]
        return Rows(self.C[rows], self.offset[rows], np.cumsum([0, *lengths[:-1]]))

    def constraints(self) -> ConstraintStore:
        """What unsafe outputs satisfy, group by group; rows of zeros fill up those that have less."""
        place = np.arange(len(self.offset)) - self.starts[self.group]
        C = np.zeros((self.groups, int(place.max()) + 1, self.C.shape[1]))
        offset = np.zeros(C.shape[:2])
        C[self.group, place], offset[self.group, place] = self.C, self.offset
        return ConstraintStore({OUTPUT: (C, offset)})

    def mixed(self) -> Rows:
        """With one more row for each group of several: their sum, which is no more than their number times the largest.

        It may be positive on all of a box where each of them is so on a part of it.
        """
        C, offset = self.constraints().summed(OUTPUT)
        more = np.flatnonzero((np.bincount(self.group) > 1) & (C != 0).any(axis=1))
        if not len(more):
            return self
        group = np.concatenate([self.group, more])
        order = np.argsort(group, kind="stable")
        rows, offsets = np.concatenate([self.C, C[more]]), np.concatenate([self.offset, offset[more]])
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        return Rows(rows[order], offsets[order], starts)

    @staticmethod
    def of(unsafe: tuple[LinearConstraints, ...]) -> Rows:
        """The rows of a disjunction. A conjunction without rows, which always holds, becomes the row 0 <= 0."""
        n = unsafe[0].C.shape[1]
        parts = [(one.C, one.d) if len(one.d) else (np.zeros((1, n)), np.zeros(1)) for one in unsafe]
        starts = np.cumsum([0, *(len(d) for _, d in parts[:-1])])
        return Rows(np.concatenate([C for C, _ in parts]), np.concatenate([d for _, d in parts]), starts)


@dataclass(frozen=True, eq=False)
class Part:
    """Boxes ``lower``, ``upper`` [B, *input] float64 over which the same rows are to be shown."""

    lower: Array
    upper: Array
    rows: Rows


def check_sizes(graph: PrimalGraph, prop: Property) -> None:
    """
    Raises:
        PropertyError: the property is made for another network.
    """
    for what, count, shape in (
        ("inputs", prop.n_in, graph.input_type.shape),
        ("outputs", prop.n_out, graph.output_type.shape),
    ):
        if count != np.prod(np.array(concrete_shape(shape, {}), dtype=np.int64)):
            raise PropertyError(
                f"{prop.source}: a property of {count} {what}, but {graph.name} has {format_shape(shape)}"
            )


def parts_of(graph: PrimalGraph, prop: Property) -> tuple[Part, ...]:
    """The property's boxes, together where they share what is unsafe; boxes on which nothing is unsafe are left out.

    Raises:
        PropertyError: the property is made for another network.
    """
    check_sizes(graph, prop)
    shape = concrete_shape(graph.input_type.shape, {})
    shared: dict[int, list[int]] = {}
    for number, case in enumerate(prop.cases):
        if case.unsafe:
            shared.setdefault(id(case.unsafe), []).append(number)
    lower, upper = prop.boxes()
    return tuple(
        Part(
            lower[numbers].reshape(-1, *shape),
            upper[numbers].reshape(-1, *shape),
            Rows.of(prop.cases[numbers[0]].unsafe),
        )
        for numbers in shared.values()
    )
