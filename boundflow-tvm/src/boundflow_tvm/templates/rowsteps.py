"""Row programs: what a block of rows goes through on its way back, step by step.

Rows are linear functions of a map [C, H, W] (a vector is a map [n, 1, 1]). Each step takes maps by number, the rows
that the program is given being number 0, and either makes the map with the next number or adds to the rows' value.
``operand`` numbers count the operands of the operation. Maps per region are [B, C, H, W] in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "Add",
    "Adjoint",
    "ChannelBias",
    "Concretize",
    "Linear",
    "MapShape",
    "Relu",
    "RowProgram",
    "Step",
    "VectorBias",
    "shapes_of",
]

MapShape = tuple[int, int, int]


@dataclass(frozen=True)
class Relu:
    """A+ lower + A- upper; sum A- bias goes to the value. With ``below``, sum A+ below does too."""

    source: int
    lower: int
    upper: int
    bias: int
    below: int | None = None


@dataclass(frozen=True)
class Adjoint:
    """Rows through a convolution, onto its input of shape ``onto``."""

    source: int
    weight: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    onto: MapShape


@dataclass(frozen=True)
class Linear:
    """A W for rows A over a vector; ``onto`` has as many elements as W has columns."""

    source: int
    weight: int
    onto: MapShape


@dataclass(frozen=True)
class Add:
    """The sum of two maps."""

    one: int
    other: int


@dataclass(frozen=True)
class ChannelBias:
    """Adds the map's sums times a constant [C] to the value."""

    source: int
    bias: int


@dataclass(frozen=True)
class VectorBias:
    """Adds sum A x to the value, for a constant of the map's elements."""

    source: int
    bias: int


@dataclass(frozen=True)
class Concretize:
    """Adds sum A centre - |A| radius to the value."""

    source: int
    centre: int
    radius: int


Step = Relu | Adjoint | Linear | Add | ChannelBias | VectorBias | Concretize


@dataclass(frozen=True)
class RowProgram:
    """Steps on rows over a map of shape ``start``.

    Attributes:
        ragged: rows [R, *start], with the region of each in operand 1; otherwise [B, S, *start].
        result: the map that is handed on, if any.
        value: whether the value is: [R], or [B, S].
    """

    start: MapShape
    steps: tuple[Step, ...]
    result: int | None
    value: bool
    ragged: bool = False


def shapes_of(program: RowProgram) -> list[MapShape]:
    """Shape of each map."""
    found = [program.start]
    for step in program.steps:
        if isinstance(step, Relu):
            found.append(found[step.source])
        elif isinstance(step, (Adjoint, Linear)):
            found.append(step.onto)
        elif isinstance(step, Add):
            found.append(found[step.one])
    return found


def made(program: RowProgram) -> Sequence[tuple[int | None, Step]]:
    """Each step with the number of the map that it makes, None where it makes none."""
    number, found = 0, []
    for step in program.steps:
        if isinstance(step, (ChannelBias, VectorBias, Concretize)):
            found.append((None, step))
        else:
            number += 1
            found.append((number, step))
    return found
