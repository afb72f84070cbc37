"""Row programs: what a block of rows goes through on its way back, step by step.

Rows are linear functions of a map [C, H, W] (a vector is a map [n, 1, 1]). Each step takes maps by number, the rows
that the program is given being number 0, and either makes the map with the next number or adds to the rows' value.
``operand`` numbers count the operands of the operation. Maps per region are [B, C, H, W] in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Add",
    "Adjoint",
    "ChannelBias",
    "Concretize",
    "Enter",
    "Gathered",
    "Linear",
    "MapShape",
    "Pad",
    "Relu",
    "RowProgram",
    "Step",
    "VectorBias",
    "made",
    "maps_read",
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
class Enter:
    """More rows: an operand like the results, [*rows, *onto]."""

    rows: int
    onto: MapShape


@dataclass(frozen=True)
class Pad:
    """A map with zeros around it: ``low`` rows and columns before, as many after as make it ``onto``."""

    source: int
    low: tuple[int, int]
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


Step = Relu | Adjoint | Linear | Enter | Pad | Add | ChannelBias | VectorBias | Concretize


@dataclass(frozen=True)
class Gathered:
    """How a map's elements for a row are found, where they are not those of the row's region.

    Attributes:
        origin: operand [rows] with the number of the first place of each row's window in a map of ``extent``; None for
            maps of the rows' own, [*front, *map].
        extent: height and width of the maps that windows are cut out of, which have their channels last. Maps of all
            regions are one after another if rows are ragged.
    """

    origin: int | None = None
    extent: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class RowProgram:
    """Steps on rows over a map of shape ``start``.

    Attributes:
        results: the maps that are handed on.
        value: whether the value is, behind them.
        ragged: rows [R, *start]; otherwise [B, S, *start], with operands of region b for [b].
        region: operand [R] with the region of each row, if ragged and needed.
        shared: rows that are not ragged are the same ones in every region: [S, *start].
        mirrored: behind the rows given, their negatives go through too: results are [2 R] or [B, 2 S].
        channels_last: rows, results and maps of the rows' own are [*, H, W, C] in memory, not [*, C, H, W].
        gathered: operands that are not per region, by number.
    """

    start: MapShape
    steps: tuple[Step, ...]
    results: tuple[int, ...]
    value: bool
    ragged: bool = False
    region: int | None = None
    shared: bool = False
    mirrored: bool = False
    channels_last: bool = False
    gathered: tuple[tuple[int, Gathered], ...] = ()


def shapes_of(program: RowProgram) -> list[MapShape]:
    """Shape of each map."""
    found = [program.start]
    for step in program.steps:
        if isinstance(step, Relu):
            found.append(found[step.source])
        elif isinstance(step, (Adjoint, Linear, Enter, Pad)):
            found.append(step.onto)
        elif isinstance(step, Add):
            found.append(found[step.one])
    return found


def made(program: RowProgram) -> list[tuple[int | None, Step]]:
    """Each step with the number of the map that it makes, None where it makes none."""
    number = 0
    found: list[tuple[int | None, Step]] = []
    for step in program.steps:
        if isinstance(step, (ChannelBias, VectorBias, Concretize)):
            found.append((None, step))
        else:
            number += 1
            found.append((number, step))
    return found


def maps_read(program: RowProgram) -> dict[int, MapShape]:
    """Operands with a number for each element of a map, and that map's shape."""
    shapes = shapes_of(program)
    found: dict[int, MapShape] = {}
    for step in program.steps:
        if isinstance(step, Relu):
            numbers = [step.lower, step.upper, step.bias, *([step.below] if step.below is not None else [])]
        elif isinstance(step, Concretize):
            numbers = [step.centre, step.radius]
        else:
            continue
        found.update(dict.fromkeys(numbers, shapes[step.source]))
    return found
