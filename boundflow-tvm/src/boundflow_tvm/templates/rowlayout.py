"""How the kernel of a row program lays out its parameters: operands, packed weights, memory of its own."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_tvm.templates.interface import Input, Operand, Output, Packed, Scratch
from boundflow_tvm.templates.machine import Machine
from boundflow_tvm.templates.rowsteps import (
    Add,
    Adjoint,
    ChannelBias,
    Enter,
    Linear,
    MapShape,
    Pad,
    RowProgram,
    VectorBias,
    maps_read,
    shapes_of,
)
from boundflow_tvm.templates.taps import Phase, border, phases, tile_sizes, tiles

__all__ = [
    "Part",
    "Storage",
    "largest",
    "multiplications",
    "origins",
    "parts_of",
    "row_operands",
    "storages_of",
    "weight_size",
]


@dataclass(frozen=True)
class Storage:
    """Where a map is kept for later steps: [H, C, W, lanes] with a border, or [elements, lanes] without."""

    shape: MapShape
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    spatial: bool = False
    channels_last: bool = False

    def array(self, lanes: int) -> tuple[int, ...]:
        c, h, w = self.shape
        if not self.spatial:
            return c * h * w, lanes
        return h + self.before[0] + self.after[0], c, w + self.before[1] + self.after[1], lanes

    def index(self, c: Any, y: Any, x: Any) -> tuple[Any, ...]:
        if self.channels_last:
            return ((y * self.shape[2] + x) * self.shape[0] + c, 0)
        if not self.spatial:
            return ((c * self.shape[1] + y) * self.shape[2] + x, 0)
        return y + self.before[0], c, x + self.before[1], 0


def storages_of(program: RowProgram) -> dict[int, list[Storage]]:
    """What is kept of each map, the first kind also for sums."""
    shapes, found = shapes_of(program), {}
    for number, shape in enumerate(shapes):
        kept = []
        adjoints = [s for s in program.steps if isinstance(s, Adjoint) and s.source == number]
        if adjoints:
            sides = [
                [border(phases(s.onto[1 + a], s.kernel[a], s.stride[a], s.padding[a]), shape[1 + a]) for a in (0, 1)]
                for s in adjoints
            ]
            before, after = ([max(side[a][k] for side in sides) for a in (0, 1)] for k in (0, 1))
            kept.append(Storage(shape, (before[0], before[1]), (after[0], after[1]), spatial=True))
        linear = any(isinstance(s, (Linear, Pad)) and s.source == number for s in program.steps)
        # Operands of a sum: the one that is made first is kept until the other one is.
        first = any(isinstance(s, Add) and number == min(s.one, s.other) for s in program.steps)
        handed_on = number in program.results
        if linear or (first and not adjoints) or (handed_on and not program.channels_last):
            kept.append(Storage(shape))
        if handed_on and program.channels_last:
            kept.append(Storage(shape, channels_last=True))
        found[number] = kept
    return found


def row_operands(program: RowProgram, dtype: str, machine: Machine) -> tuple[Operand, ...]:
    """The kernel's parameters, in order."""
    lanes, shapes, gathered = machine.lanes(dtype), shapes_of(program), dict(program.gathered)
    found: list[Operand] = [Input(0), *([Input(program.region)] if program.region is not None else [])]
    found += [Input(number) for number in maps_read(program)]
    found += [Input(number) for number in origins(program)]
    found += [Input(step.rows) for step in program.steps if isinstance(step, Enter)]
    for step in program.steps:
        if isinstance(step, (ChannelBias, VectorBias)):
            found.append(Input(step.bias))
        elif isinstance(step, (Adjoint, Linear)):
            found.append(_weight(step, shapes[step.source], machine, dtype))
    found += [Scratch((int(np.prod(shape)), lanes), dtype) for n, shape in maps_read(program).items() if n in gathered]
    found.append(Scratch((largest(program), lanes), dtype))
    for kept in storages_of(program).values():
        found += [Scratch(storage.array(lanes), dtype) for storage in kept]
    found += [Output(k) for k in range(len(program.results) + program.value)]
    return tuple(found)


def origins(program: RowProgram) -> list[int]:
    """Operands with the origins of windows, once each."""
    return list(dict.fromkeys(g.origin for _, g in program.gathered if g.origin is not None))


def largest(program: RowProgram) -> int:
    """Elements of the largest map that is made anew."""
    onto = [step.onto for step in program.steps if isinstance(step, (Adjoint, Linear, Enter, Pad))]
    return max(int(np.prod(shape)) for shape in (program.start, *onto))


def multiplications(program: RowProgram) -> int:
    """Of one row, in convolutions and products."""
    shapes, total = shapes_of(program), 0
    for step in program.steps:
        if isinstance(step, Adjoint):
            total += int(np.prod(shapes[step.source])) * step.kernel[0] * step.kernel[1] * step.onto[0]
        elif isinstance(step, Linear):
            total += int(np.prod(shapes[step.source])) * int(np.prod(step.onto))
    return total


# -- weights ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The phases of an adjoint in both axes, its register tile, and where its weights lie."""

    rows: Phase
    columns: Phase
    pixels: int
    channels: int
    start: int
    depth: int


def parts_of(step: Adjoint, channels: int, accumulators: int) -> list[Part]:
    found, at = [], 0
    axes = [phases(step.onto[1 + a], step.kernel[a], step.stride[a], step.padding[a]) for a in (0, 1)]
    for rows, columns in product(*axes):
        pixels, count = tile_sizes(columns.count, step.onto[0], accumulators)
        found.append(Part(rows, columns, pixels, count, at, len(columns.taps) * channels))
        at += len(rows.taps) * len(columns.taps) * channels * step.onto[0]
    return found


def _weight(step: Adjoint | Linear, source: MapShape, machine: Machine, dtype: str) -> Packed:
    if isinstance(step, Linear):
        size = machine.accumulators
        return Packed((step.weight,), lambda w: _pack_linear(w, size), f"rows/linear/{size}")

    def pack(weight: NDArray[Any]) -> NDArray[Any]:
        return _pack_adjoint(weight, parts_of(step, source[0], machine.accumulators))

    geometry = (step.kernel, step.stride, step.padding, step.onto)
    return Packed((step.weight,), pack, f"rows/adjoint/{geometry}/{machine.accumulators}")


def _pack_linear(weight: NDArray[Any], size: int) -> NDArray[Any]:
    """[inputs, columns] as a row of [inputs, columns of a tile], tile after tile."""
    cut = [
        weight[:, t.start + k * t.size : t.start + (k + 1) * t.size]
        for t in tiles(weight.shape[1], size)
        for k in range(t.count)
    ]
    return np.concatenate([np.ascontiguousarray(part).reshape(-1) for part in cut])


def _pack_adjoint(weight: NDArray[Any], parts: list[Part]) -> NDArray[Any]:
    """[O, C, kh, kw] as [rows, O, columns, channels of a tile], tile after tile and phase after phase."""
    found = []
    for part in parts:
        rows, columns = [k for _, k in part.rows.taps], [k for _, k in part.columns.taps]
        chosen = weight[:, :, rows][:, :, :, columns].transpose(2, 0, 3, 1)
        for tile in tiles(weight.shape[1], part.channels):
            for k in range(tile.count):
                first = tile.start + k * tile.size
                found.append(np.ascontiguousarray(chosen[..., first : first + tile.size]).reshape(-1))
    return np.concatenate(found)


def weight_size(step: Adjoint | Linear, source: MapShape) -> int:
    if isinstance(step, Linear):
        return int(np.prod(source)) * int(np.prod(step.onto))
    axes = [phases(step.onto[1 + a], step.kernel[a], step.stride[a], step.padding[a]) for a in (0, 1)]
    taps = [sum(len(phase.taps) for phase in axis) for axis in axes]
    return max(1, taps[0] * taps[1] * source[0] * step.onto[0])
