"""What is known of values that depend on rows: the words of :mod:`.rowreading`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from boundflow_core.ir.program import Op, Value
from boundflow_core.ir.types import Shape
from boundflow_tvm.templates.rowsteps import MapShape, Step

__all__ = ["Chain", "MapState", "Operand", "Partial", "State", "Sum", "map_shape"]


@dataclass(frozen=True)
class Operand:
    """What a step reads, beside maps.

    Attributes:
        kind: "constant" as it is; "region" for a map per region; "row" for one per row; "window" for windows of
            ``value`` [B, C, H, W], cut out by the operation ``cut``.
    """

    value: Value
    kind: str
    cut: Op | None = None


@dataclass(eq=False)
class Chain:
    """Steps on the rows ``start`` [*front, *map].

    Attributes:
        mirrored: the negatives of the rows go through too, behind them.
        region: index [R] of the region of each row, where a step needs it and there is only one axis of rows.
        shapes: of each map, by number.
        operands: by number; 0 is ``start`` itself.
    """

    start: Value
    front: Shape
    mirrored: bool
    channels_last: bool
    shapes: list[MapShape]
    steps: list[Step] = field(default_factory=list)
    operands: list[tuple[Operand, int]] = field(default_factory=list)
    region: Value | None = None
    broken: bool = False

    @property
    def ragged(self) -> bool:
        return len(self.front) == 1

    @property
    def out(self) -> Shape:
        """Leading axes of the results."""
        return (*self.front[:-1], self.front[-1] * (2 if self.mirrored else 1))

    def made(self, step: Step, shape: MapShape) -> int:
        self.steps.append(step)
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def operand(self, operand: Operand, of: int) -> int:
        """Its number, as read together with map ``of``."""
        if (operand, of) not in self.operands:
            self.operands.append((operand, of))
        return self.operands.index((operand, of)) + 1


@dataclass(frozen=True)
class MapState:
    """A map; behind the axes of the rows lie those of ``axes``: "chw", "hwc" or, of all elements in order, "n"."""

    chain: Chain
    number: int
    axes: str


@dataclass(frozen=True)
class Partial:
    """On the way from a map to a sum per row; ``kind`` says how far."""

    chain: Chain
    number: int
    kind: str
    factor: Value | None = None


@dataclass(frozen=True)
class Sum:
    """A sum per row of ``terms``: values that hold one, with their chains, and of other values, ``rest``."""

    terms: tuple[tuple[Chain, Value], ...]
    rest: tuple[Value, ...] = ()


State = MapState | Partial | Sum


def map_shape(sample: Shape, axes: str) -> MapShape | None:
    """The map that elements of these axes make up."""
    dims = [dim for dim in sample if isinstance(dim, int)]
    if len(dims) < len(sample) or 0 in dims:
        return None
    if len(dims) == 3:
        return (dims[2], dims[0], dims[1]) if axes == "hwc" else (dims[0], dims[1], dims[2])
    return int(np.prod(dims)), 1, 1
