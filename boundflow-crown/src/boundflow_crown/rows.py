"""Rows: linear functions of a network's value, one per specification row or neuron, and the regions they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Dim, Shape

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows:
    """How rows are laid out in front of a sample's axes.

    Attributes:
        front: (B, S) for S rows in each of B regions; (R,) for rows of any regions.
        region: for rows of any regions, the index [R] of each row's region.
    """

    b: Builder
    front: tuple[Dim, ...]
    region: Value | None = None

    def lift(self, value: Value) -> Value:
        """A value per region [B, *sample] as one that broadcasts against rows [*front, *sample]."""
        if self.region is not None:
            return self.b.gather_rows(value, self.region)
        return self.b.reshape(value, (value.shape[0], 1, *value.shape[1:]))

    def sum(self, x: Value) -> Value:
        """``x`` [*front, *sample] summed over the sample: [*front]. Innermost axes first: loses least in float32."""
        for axis in range(x.rank - 1, len(self.front) - 1, -1):
            x = self.b.reduce_sum(x, (axis,))
        return x

    def doubled(self, one: Value, other: Value) -> Value:
        """The rows of ``one`` followed by those of ``other``, within each region."""
        return self.b.concat((one, other), len(self.front) - 1)

    def mirrored(self, x: Value) -> Value:
        """The rows of ``x`` followed by their negatives."""
        return self.doubled(x, -x)

    def twice(self) -> Rows:
        """The layout of :meth:`mirrored` rows."""
        region = None if self.region is None else self.b.concat((self.region, self.region), 0)
        return Rows(self.b, (*self.front[:-1], 2 * self.front[-1]), region)

    def halves(self, x: Value) -> tuple[Value, Value]:
        """The two halves of mirrored rows ``x``, whose layout this is not (it is that of one half)."""
        axis, count = len(self.front) - 1, self.front[-1]
        zero: Sequence[Dim] = (0,) * x.rank

        def part(start: Dim, stop: Dim) -> Value:
            starts, stops = list(zero), list(x.shape)
            starts[axis], stops[axis] = start, stop
            return self.b.slice(x, starts, stops, (1,) * x.rank)

        return part(0, count), part(count, 2 * count)

    def merged(self, x: Value) -> Value:
        """``x`` [*front, ...] as it is; windows have more axes in front, see :mod:`.windows`."""
        return x

    def inside(self, x: Value, shape: Shape) -> Value:
        """``x`` as it is; of windows, what lies inside of a map of ``shape`` [C, H, W]."""
        return x

    def flat(self, x: Value, sample: Shape) -> Value:
        """``x`` [*front, *sample] with the front axes merged into one."""
        return x if len(self.front) == 1 else self.b.reshape(x, (self.front[0] * self.front[1], *sample))

    def unflat(self, x: Value) -> Value:
        """The inverse of :meth:`flat`."""
        return x if len(self.front) == 1 else self.b.reshape(x, (*self.front, *x.shape[1:]))
