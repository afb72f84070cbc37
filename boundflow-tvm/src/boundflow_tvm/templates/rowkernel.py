"""The kernel of a row program: blocks of rows, one row a lane, taken through all steps before the next block.

A block of as many rows as a vector has lanes is turned into vectors, one for each element of the map: slopes and
weights are then one number for all lanes, and any number of channels fills the vectors. What is done element by
element happens where an element is made. Convolutions read a copy of the map with zeros around it, [H, C, W, lanes],
and gather: each element of their input sums over the taps of its phase, in registers, for a few pixels and channels
at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_tvm.templates import Input, Operand, Output, Packed, Scratch
from boundflow_tvm.templates.lanes import transposed
from boundflow_tvm.templates.machine import Machine
from boundflow_tvm.templates.rowsteps import (
    Add,
    Adjoint,
    ChannelBias,
    Concretize,
    Linear,
    MapShape,
    Relu,
    RowProgram,
    Step,
    VectorBias,
    made,
    shapes_of,
)
from boundflow_tvm.templates.taps import Phase, Tile, border, phases, tile_sizes, tiles
from boundflow_tvm.templates.writer import Writer

__all__ = ["build_rows", "multiplications", "row_operands"]

SUMS = 4  # sums of one kind side by side, so that an addition need not wait for the one before


@dataclass(frozen=True)
class _Storage:
    """Where a map is kept for later steps: [H, C, W, lanes] with a border, or [elements, lanes] without."""

    shape: MapShape
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    spatial: bool = False

    def array(self, lanes: int) -> tuple[int, ...]:
        c, h, w = self.shape
        if not self.spatial:
            return c * h * w, lanes
        return h + self.before[0] + self.after[0], c, w + self.before[1] + self.after[1], lanes

    def index(self, c: Any, y: Any, x: Any) -> tuple[Any, ...]:
        if not self.spatial:
            return ((c * self.shape[1] + y) * self.shape[2] + x, 0)
        return y + self.before[0], c, x + self.before[1], 0


def _storages(program: RowProgram) -> dict[int, list[_Storage]]:
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
            before, after = (tuple(max(side[a][k] for side in sides) for a in (0, 1)) for k in (0, 1))
            kept.append(_Storage(shape, before, after, spatial=True))
        linear = any(isinstance(s, Linear) and s.source == number for s in program.steps)
        # Operands of a sum: the one that is made first is kept until the other one is.
        first = any(isinstance(s, Add) and number == min(s.one, s.other) for s in program.steps)
        if linear or number == program.result or (first and not adjoints):
            kept.append(_Storage(shape))
        found[number] = kept
    return found


def _maps_per_region(program: RowProgram) -> list[int]:
    """Operands [B, *map], in order and once."""
    found: dict[int, None] = {}
    for step in program.steps:
        if isinstance(step, Relu):
            numbers = [step.lower, step.upper, step.bias, *([step.below] if step.below is not None else [])]
        elif isinstance(step, Concretize):
            numbers = [step.centre, step.radius]
        else:
            continue
        found.update(dict.fromkeys(numbers))
    return list(found)


def row_operands(program: RowProgram, dtype: str, machine: Machine) -> tuple[Operand, ...]:
    """The kernel's parameters, in order."""
    lanes, shapes = machine.lanes(dtype), shapes_of(program)
    found: list[Operand] = [Input(0), *([Input(1)] if program.ragged else [])]
    found += [Input(number) for number in _maps_per_region(program)]
    for step in program.steps:
        if isinstance(step, (ChannelBias, VectorBias)):
            found.append(Input(step.bias))
        elif isinstance(step, (Adjoint, Linear)):
            found.append(_weight(step, shapes[step.source], machine, dtype))
    found.append(Scratch((_largest(program), lanes), dtype))
    for kept in _storages(program).values():
        found += [Scratch(storage.array(lanes), dtype) for storage in kept]
    found += [Output(k) for k in range((program.result is not None) + program.value)]
    return tuple(found)


def _largest(program: RowProgram) -> int:
    """Elements of the largest map that is made anew."""
    onto = [step.onto for step in program.steps if isinstance(step, (Adjoint, Linear))]
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
class _Part:
    """The phases of an adjoint in both axes, its register tile, and where its weights lie."""

    rows: Phase
    columns: Phase
    pixels: int
    channels: int
    start: int
    depth: int


def _parts(step: Adjoint, channels: int, accumulators: int) -> list[_Part]:
    found, at = [], 0
    axes = [phases(step.onto[1 + a], step.kernel[a], step.stride[a], step.padding[a]) for a in (0, 1)]
    for rows, columns in product(*axes):
        pixels, count = tile_sizes(columns.count, step.onto[0], accumulators)
        found.append(_Part(rows, columns, pixels, count, at, len(columns.taps) * channels))
        at += len(rows.taps) * len(columns.taps) * channels * step.onto[0]
    return found


def _weight(step: Adjoint | Linear, source: MapShape, machine: Machine, dtype: str) -> Packed:
    if isinstance(step, Linear):
        size = machine.accumulators
        return Packed((step.weight,), lambda w: _pack_linear(w, size), f"rows/linear/{size}")

    def pack(weight: NDArray[Any]) -> NDArray[Any]:
        return _pack_adjoint(weight, _parts(step, source[0], machine.accumulators))

    geometry = (step.kernel, step.stride, step.padding, step.onto)
    return Packed((step.weight,), pack, f"rows/adjoint/{geometry}/{machine.accumulators}")


def _pack_linear(weight: NDArray[Any], size: int) -> NDArray[Any]:
    """[inputs, columns] as a row of [inputs, columns of a tile], tile after tile."""
    cut = [weight[:, t.start + k * t.size : t.start + (k + 1) * t.size] for t in tiles(weight.shape[1], size) for k in range(t.count)]
    return np.concatenate([np.ascontiguousarray(part).reshape(-1) for part in cut])


def _pack_adjoint(weight: NDArray[Any], parts: list[_Part]) -> NDArray[Any]:
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


# -- code -------------------------------------------------------------------------------------------------------------


class _Rows:
    """Writes one kernel."""

    def __init__(self, program: RowProgram, dtype: str, machine: Machine) -> None:
        self.program, self.machine, self.lanes = program, machine, machine.lanes(dtype)
        self.w = w = Writer(dtype)
        self.shapes, self.storages = shapes_of(program), _storages(program)
        self.made = made(program)
        start = program.start
        regions, rows = w.size("B"), w.size("R")
        front = (rows,) if program.ragged else (regions, rows)
        self.front = front
        self.rows = w.param((*front, *start))
        self.region_of = w.param((rows,), "int64") if program.ragged else None
        per_region = {number: self._shape_of(number) for number in _maps_per_region(program)}
        self.maps = {number: w.param((regions, *shape)) for number, shape in per_region.items()}
        self.constants: dict[int, Any] = {}
        for number, step in enumerate(program.steps):
            if isinstance(step, ChannelBias):
                self.constants[number] = w.param((self.shapes[step.source][0],))
            elif isinstance(step, VectorBias):
                self.constants[number] = w.param(self.shapes[step.source])
            elif isinstance(step, (Adjoint, Linear)):
                self.constants[number] = w.param((_weight_size(step, self.shapes[step.source]),))
        self.raw = w.param((_largest(program), self.lanes))
        self.kept = {m: [w.param(s.array(self.lanes)) for s in found] for m, found in self.storages.items()}
        self.result = w.param((*front, *self.shapes[program.result])) if program.result is not None else None
        self.value = w.param(front) if program.value else None
        self.kinds = sum(
            1 + (step.below is not None) if isinstance(step, Relu) else 1
            for step in program.steps
            if isinstance(step, (Relu, ChannelBias, VectorBias, Concretize))
        )

    def _shape_of(self, operand: int) -> MapShape:
        for step in self.program.steps:
            if isinstance(step, Relu) and operand in (step.lower, step.upper, step.bias, step.below):
                return self.shapes[step.source]
            if isinstance(step, Concretize) and operand in (step.centre, step.radius):
                return self.shapes[step.source]
        raise AssertionError(operand)

    # -- blocks of rows -----------------------------------------------------------------------------------------------

    def write(self) -> Any:
        w, lanes = self.w, self.lanes
        if self.region_of is None:
            regions, rows = self.front
            with w.loop(regions) as region, w.loop((rows + lanes - 1) // lanes) as block:
                first = w.keep(block * lanes)
                self._block((region,), region, first, w.minimum(rows - first, w.integer(lanes)))
        else:
            (rows,) = self.front
            place = w.local(1, "int64")
            w.store(w.integer(0), place, 0)
            with w.repeat(w.load(place, 0) < rows):
                first = w.keep(w.load(place, 0))
                region = w.keep(w.load(self.region_of, first))
                count = w.local(1, "int64")
                w.store(w.integer(1), count, 0)
                with w.loop(lanes - 1) as more:
                    following = first + more + 1
                    in_line = w.both(w.load(count, 0) == more + 1, following < rows)
                    with w.when(in_line), w.when(w.load(self.region_of, following) == region):
                        w.store(more + 2, count, 0)
                length = w.keep(w.load(count, 0))
                self._block((), region, first, length)
                w.store(first + length, place, 0)
        return w.function()

    def _block(self, front: tuple[Any, ...], region: Any, first: Any, count: Any) -> None:
        w, lanes = self.w, self.lanes
        self.region = region
        self.sums = w.local(max(1, self.kinds) * SUMS * lanes)
        self.total = w.local(lanes)
        w.store(w.spread(0.0, lanes), self.total, 0, lanes=lanes)
        self._kind_of: dict[tuple[int, str], int] = {}
        self._turn_in(front, first, count)
        self._start()
        for number, step in self.made:
            if isinstance(step, Adjoint):
                assert number is not None
                self._adjoint(number, step)
            elif isinstance(step, Linear):
                assert number is not None
                self._linear(number, step)
        if self.result is not None:
            self._turn_out(front, first, count)
        if self.value is not None:
            with w.loop(count) as lane:
                w.store(w.load(self.total, lane), self.value, *front, first + lane)

    def _turn_in(self, front: tuple[Any, ...], first: Any, count: Any) -> None:
        """Rows into lanes; the last row stands in for those that are missing."""
        w, lanes, size = self.w, self.lanes, int(np.prod(self.program.start))
        rows = [w.keep(first + w.minimum(w.integer(lane), count - 1)) for lane in range(lanes)]
        with w.loop(size // lanes) as square:
            vectors = [w.keep(w.load(self.rows, *front, row, 0, 0, square * lanes, lanes=lanes)) for row in rows]
            for k, vector in enumerate(transposed(w, vectors)):
                w.store(vector, self.raw, square * lanes + k, 0, lanes=lanes)
        for element in range(size - size % lanes, size):
            for lane, row in enumerate(rows):
                w.store(w.load(self.rows, *front, row, 0, 0, element), self.raw, element, lane)

    def _turn_out(self, front: tuple[Any, ...], first: Any, count: Any) -> None:
        assert self.program.result is not None
        w, lanes, size = self.w, self.lanes, int(np.prod(self.shapes[self.program.result]))
        source = self.kept[self.program.result][-1]
        with w.loop(size // lanes) as square:
            vectors = [w.keep(w.load(source, square * lanes + k, 0, lanes=lanes)) for k in range(lanes)]
            for lane, vector in enumerate(transposed(w, vectors)):
                with w.when(count > lane):
                    w.store(vector, self.result, *front, first + lane, 0, 0, square * lanes, lanes=lanes)
        for element in range(size - size % lanes, size):
            with w.loop(count) as lane:
                w.store(w.load(source, element, lane), self.result, *front, first + lane, 0, 0, element)

    # -- element by element -------------------------------------------------------------------------------------------

    @contextmanager
    def _summing(self) -> Iterator[None]:
        """What elements add to the value within comes to the total at the end; short sums lose less."""
        w, lanes = self.w, self.lanes
        self._used: set[int] = set()
        places = range(0, self.kinds * SUMS * lanes, lanes)
        for place in places:
            w.store(w.spread(0.0, lanes), self.sums, place, lanes=lanes)
        yield
        for kind in sorted(self._used):
            parts = [w.load(self.sums, (kind * SUMS + k) * lanes, lanes=lanes) for k in range(SUMS)]
            total = (parts[0] + parts[1]) + (parts[2] + parts[3])
            w.store(w.load(self.total, 0, lanes=lanes) + total, self.total, 0, lanes=lanes)

    def _add(self, step: int, what: str, slot: int, term: Any) -> None:
        kind = self._kind_of.setdefault((step, what), len(self._kind_of))
        self._used.add(kind)
        place = (kind * SUMS + slot % SUMS) * self.lanes
        w = self.w
        w.store(w.load(self.sums, place, lanes=self.lanes) + term, self.sums, place, lanes=self.lanes)

    def _finish(self, number: int, c: Any, y: Any, x: Any, value: Any, slot: int) -> None:
        """What is done with an element of map ``number`` when it is known."""
        w, lanes = self.w, self.lanes
        value = w.keep(value)
        for place, (target, step) in enumerate(self.made):
            if isinstance(step, Add):
                if number == max(step.one, step.other):
                    assert target is not None
                    other = min(step.one, step.other)
                    held = value
                    if other != number:
                        storage, array = self.storages[other][0], self.kept[other][0]
                        held = w.load(array, *storage.index(c, y, x), lanes=lanes)
                    self._finish(target, c, y, x, value + held, slot)
            elif step.source != number:
                continue
            elif isinstance(step, Relu):
                assert target is not None
                lower, upper, bias = (self._of_region(part, c, y, x) for part in (step.lower, step.upper, step.bias))
                above, below = w.keep(w.positive(value, lanes)), w.keep(w.negative(value, lanes))
                self._add(place, "upper", slot, below * bias)
                if step.below is not None:
                    self._add(place, "lower", slot, above * self._of_region(step.below, c, y, x))
                self._finish(target, c, y, x, above * lower + below * upper, slot)
            elif isinstance(step, ChannelBias):
                self._add(place, "", slot, value * w.spread(w.load(self.constants[place], c), lanes))
            elif isinstance(step, VectorBias):
                self._add(place, "", slot, value * w.spread(w.load(self.constants[place], c, y, x), lanes))
            elif isinstance(step, Concretize):
                centre, radius = self._of_region(step.centre, c, y, x), self._of_region(step.radius, c, y, x)
                self._add(place, "", slot, value * centre - w.absolute(value) * radius)
        for storage, array in zip(self.storages[number], self.kept[number], strict=True):
            w.store(value, array, *storage.index(c, y, x), lanes=lanes)

    def _of_region(self, operand: int, c: Any, y: Any, x: Any) -> Any:
        return self.w.spread(self.w.load(self.maps[operand], self.region, c, y, x), self.lanes)

    def _elements(self, number: int, element: Callable[[Any], Any]) -> None:
        """All elements of a map, ``element(number in the flattened map)`` gives them."""
        w, (channels, height, width) = self.w, self.shapes[number]
        if height * width == 1:
            with self._summing():
                for tile in tiles(channels, SUMS):
                    with w.loop(tile.count) as k:
                        for j in range(tile.size):
                            c = w.keep(w.integer(tile.start + j) + k * tile.size)
                            self._finish(number, c, w.integer(0), w.integer(0), element(c), j)
            return
        with w.loop(channels) as c, w.loop(height) as y, self._summing():
            for tile in tiles(width, SUMS):
                with w.loop(tile.count) as k:
                    for j in range(tile.size):
                        x = w.keep(w.integer(tile.start + j) + k * tile.size)
                        self._finish(number, c, y, x, element((c * height + y) * width + x), j)

    def _start(self) -> None:
        self._elements(0, lambda place: self.w.load(self.raw, place, 0, lanes=self.lanes))

    # -- products -----------------------------------------------------------------------------------------------------

    def _tile(self, count: int, lanes: int) -> Any:
        """Sums of a register tile, zero."""
        w = self.w
        sums = w.local(count * lanes)
        for k in range(count):
            w.store(w.spread(0.0, lanes), sums, k * lanes, lanes=lanes)
        return sums

    def _multiply(self, sums: Any, vector: Any, weights: list[Any], lanes: int) -> None:
        """Adds a vector, of one register or several, times each weight to the tile."""
        w = self.w
        vector = w.keep(vector)
        for c, weight in enumerate(weights):
            term = vector * w.spread(weight, lanes)
            w.store(w.load(sums, c * lanes, lanes=lanes) + term, sums, c * lanes, lanes=lanes)

    def _adjoint(self, number: int, step: Adjoint) -> None:
        w = self.w
        for part in _parts(step, self.shapes[step.source][0], self.machine.accumulators):
            used = part.start
            for group in tiles(step.onto[0], part.channels):
                for pixels in tiles(part.columns.count, part.pixels):
                    with w.loop(part.rows.count) as j, w.loop(group.count) as g, w.loop(pixels.count) as q:
                        self._phase_tile(step, part, group, pixels.size, (j, g, q * pixels.size + pixels.start), used)
                used += group.count * group.size * len(part.rows.taps) * part.depth
        self._elements(number, lambda place: w.load(self.raw, place, 0, lanes=self.lanes))

    def _phase_tile(
        self, step: Adjoint, part: _Part, group: Tile, pixels: int, at: tuple[Any, Any, Any], weights: int
    ) -> None:
        """A register tile of one phase: row ``j``, group of channels ``g``, pixels from ``first`` on."""
        w, (j, g, first) = self.w, at
        weight = self.constants[self.program.steps.index(step)]
        storage, source = self.storages[step.source][0], self.kept[step.source][0]
        first, down, across = w.keep(first), part.rows, part.columns
        sums = self._tile(group.size, pixels * self.lanes)
        if down.taps and across.taps:
            row = w.keep(j + (down.taps[0][0] + storage.before[0]))
            column = w.keep(first + (across.taps[0][0] + storage.before[1]))
            base = w.keep(g * (len(down.taps) * part.depth * group.size) + weights)
            channels, width = self.shapes[step.source][0], len(across.taps)
            with w.loop(len(down.taps)) as t, w.loop(channels) as k:
                place = w.keep(base + (t * part.depth + k * width) * group.size)
                for x in range(width):
                    vector = w.load(source, row + t, k, column + x, 0, lanes=pixels * self.lanes)
                    weights = [w.load(weight, place + (x * group.size + c)) for c in range(group.size)]
                    self._multiply(sums, vector, weights, pixels * self.lanes)
        _, height, width = step.onto
        corner = (g * group.size + group.start) * height + j * step.stride[0] + down.first
        corner = w.keep(corner * width + first * step.stride[1] + across.first)
        for p, c in product(range(pixels), range(group.size)):
            value = w.load(sums, (c * pixels + p) * self.lanes, lanes=self.lanes)
            place = corner + (c * height * width + p * step.stride[1])
            w.store(value, self.raw, place, 0, lanes=self.lanes)

    def _linear(self, number: int, step: Linear) -> None:
        w = self.w
        source, weight = self.kept[step.source][-1], self.constants[self.program.steps.index(step)]
        depth = int(np.prod(self.shapes[step.source]))
        for group in tiles(int(np.prod(step.onto)), self.machine.accumulators):
            with w.loop(group.count) as g:
                sums = self._tile(group.size, self.lanes)
                base = w.keep(g * (depth * group.size) + group.start * depth)
                with w.loop(depth) as k:
                    weights = [w.load(weight, base + k * group.size + c) for c in range(group.size)]
                    self._multiply(sums, w.load(source, k, 0, lanes=self.lanes), weights, self.lanes)
                for c in range(group.size):
                    value = w.load(sums, c * self.lanes, lanes=self.lanes)
                    w.store(value, self.raw, g * group.size + (group.start + c), 0, lanes=self.lanes)
        self._elements(number, lambda place: w.load(self.raw, place, 0, lanes=self.lanes))


def _weight_size(step: Adjoint | Linear, source: MapShape) -> int:
    if isinstance(step, Linear):
        return int(np.prod(source)) * int(np.prod(step.onto))
    axes = [phases(step.onto[1 + a], step.kernel[a], step.stride[a], step.padding[a]) for a in (0, 1)]
    taps = [sum(len(phase.taps) for phase in axis) for axis in axes]
    return max(1, taps[0] * taps[1] * source[0] * step.onto[0])


def build_rows(program: RowProgram, dtype: str, machine: Machine) -> Any:
    """The TVM function; its parameters are those of :func:`row_operands`."""
    return _Rows(program, dtype, machine).write()
