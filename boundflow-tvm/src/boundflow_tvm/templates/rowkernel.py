"""The kernel of a row program: blocks of rows, one row a lane, taken through all steps before the next block.

A block of as many rows as a vector has lanes is turned into vectors, one for each element of the map: slopes and
weights are then one number for all lanes, and any number of channels fills the vectors. What is done element by
element happens where an element is made. Convolutions read a copy of the map with zeros around it, [H, C, W, lanes],
and gather: each element of their input sums over the taps of its phase, in registers, for a few pixels and channels
at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from typing import Any, ClassVar

import numpy as np

from boundflow_tvm.templates.lanes import transposed
from boundflow_tvm.templates.machine import Machine
from boundflow_tvm.templates.rowlayout import Part, largest, origins, parts_of, storages_of, weight_size
from boundflow_tvm.templates.rowsteps import (
    Add,
    Adjoint,
    ChannelBias,
    Concretize,
    Enter,
    Linear,
    MapShape,
    Pad,
    Relu,
    RowProgram,
    VectorBias,
    made,
    maps_read,
    shapes_of,
)
from boundflow_tvm.templates.taps import Tile, tiles
from boundflow_tvm.templates.writer import Writer

__all__ = ["build_rows"]

SUMS = 4  # sums of one kind side by side, so that an addition need not wait for the one before


class _Rows:
    """Writes one kernel."""

    def __init__(self, program: RowProgram, dtype: str, machine: Machine) -> None:
        self.program, self.machine, self.lanes = program, machine, machine.lanes(dtype)
        self.w = w = Writer(dtype)
        self.shapes, self.storages = shapes_of(program), storages_of(program)
        self.made = made(program)
        start, order = program.start, self._order
        regions, rows = w.size("B"), w.size("R")
        self.count = rows
        self.front = (rows,) if program.ragged else (regions, rows)
        self.copies = 2 if program.mirrored else 1
        self.rows = w.param((*((rows,) if program.shared else self.front), *order(start)))
        self.region_of = w.param((rows,), "int64") if program.region is not None else None
        self.gathered = dict(program.gathered)
        self.maps: dict[int, Any] = {}
        for number, shape in maps_read(program).items():
            way = self.gathered.get(number)
            if way is None:
                self.maps[number] = w.param((regions, *shape))
            elif way.origin is None:
                self.maps[number] = w.param((*self.front, *order(shape)))
            else:
                self.maps[number] = w.param((regions, *way.extent, shape[0]))
        self.origins = {number: w.param((rows,), "int64") for number in origins(program)}
        out = (*self.front[:-1], rows * self.copies)
        self.more = {
            number: w.param((*out, *order(step.onto)))
            for number, step in enumerate(program.steps)
            if isinstance(step, Enter)
        }
        self.constants: dict[int, Any] = {}
        for number, step in enumerate(program.steps):
            if isinstance(step, ChannelBias):
                self.constants[number] = w.param((self.shapes[step.source][0],))
            elif isinstance(step, VectorBias):
                self.constants[number] = w.param(self.shapes[step.source])
            elif isinstance(step, (Adjoint, Linear)):
                self.constants[number] = w.param((weight_size(step, self.shapes[step.source]),))
        read = maps_read(program)
        self.held = {n: w.param((int(np.prod(read[n])), self.lanes)) for n in read if n in self.gathered}
        self.raw = w.param((largest(program), self.lanes))
        self.kept = {m: [w.param(s.array(self.lanes)) for s in found] for m, found in self.storages.items()}
        self.results = [w.param((*out, *order(self.shapes[number]))) for number in program.results]
        self.value = w.param(out) if program.value else None
        self.kinds = sum(
            1 + (step.below is not None) if isinstance(step, Relu) else 1
            for step in program.steps
            if isinstance(step, (Relu, ChannelBias, VectorBias, Concretize))
        )

    def _order(self, shape: MapShape) -> MapShape:
        """The axes of rows in memory."""
        return (shape[1], shape[2], shape[0]) if self.program.channels_last else shape

    # -- blocks of rows -----------------------------------------------------------------------------------------------

    def write(self) -> Any:
        w, lanes, rows = self.w, self.lanes, self.count
        if self.region_of is None:
            with (
                w.loop(1 if self.program.ragged else self.front[0]) as region,
                w.loop((rows + lanes - 1) // lanes) as n,
            ):
                first = w.keep(n * lanes)
                self._block(region, first, w.keep(w.minimum(rows - first, w.integer(lanes))))
            return w.function()
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
            self._block(region, first, length)
            w.store(first + length, place, 0)
        return w.function()

    def _block(self, region: Any, first: Any, count: Any) -> None:
        """All steps on up to ``lanes`` rows from ``first`` on; the last one stands in for those that are missing."""
        w, lanes, program = self.w, self.lanes, self.program
        self.region = region
        front = () if program.ragged else (region,)
        rows = [w.keep(first + w.minimum(w.integer(lane), count - 1)) for lane in range(lanes)]
        self._gather(front, rows)
        with w.loop(self.copies) as copy:
            self.sums = [w.local(SUMS * lanes) for _ in range(self.kinds)]
            self.total = w.local(lanes)
            w.store(w.spread(0.0, lanes), self.total, 0, lanes=lanes)
            self._kind_of: dict[tuple[int, str], int] = {}
            size = int(np.prod(program.start))
            lead = () if program.shared else front
            sign = w.real(1 - copy * 2) if program.mirrored else None
            self._turn(self.rows, [(*lead, row, 0, 0, 0) for row in rows], self.raw, 0, size, sign)
            self._elements(0, channels_last=program.channels_last)
            target = w.keep(copy * self.count + first) if program.mirrored else first
            for place, (number, step) in enumerate(self.made):
                if isinstance(step, Enter):
                    assert number is not None
                    more = [w.keep(row - first + target) for row in rows]
                    at = [(*front, row, 0, 0, 0) for row in more]
                    self._turn(self.more[place], at, self.raw, 0, int(np.prod(step.onto)))
                    self._elements(number, channels_last=program.channels_last)
                elif isinstance(step, (Adjoint, Linear, Pad)):
                    assert number is not None
                    self._make[type(step)](self, step)
                    self._elements(number)
            for number, result in zip(program.results, self.results, strict=True):
                self._turn_out(number, result, front, target, count)
            if self.value is not None:
                with w.loop(count) as lane:
                    w.store(w.load(self.total, lane), self.value, *front, target + lane)

    def _gather(self, front: tuple[Any, ...], rows: list[Any]) -> None:
        """Maps that differ from row to row into lanes."""
        w = self.w
        shapes = maps_read(self.program)
        for number, way in self.gathered.items():
            (channels, height, width), array = shapes[number], self.maps[number]
            if way.origin is None:
                at = [(*front, row, 0, 0, 0) for row in rows]
                self._turn(array, at, self.held[number], 0, channels * height * width)
                continue
            places = [w.keep(w.load(self.origins[way.origin], row)) for row in rows]
            region = front[0] if front else 0
            with w.loop(height) as y:
                at = [(region, 0, place + y * way.extent[1], 0) for place in places]
                self._turn(array, at, self.held[number], y * (width * channels), width * channels)

    def _turn(
        self, source: Any, at: list[tuple[Any, ...]], target: Any, start: Any, size: int, sign: Any = None
    ) -> None:
        """``size`` elements from places ``at``, one per lane, into vectors of ``target`` from ``start`` on."""
        w, lanes = self.w, self.lanes
        at = [(*place[:-1], w.keep(w.integer(place[-1]))) for place in at]
        if size < lanes:
            with w.loop(size) as element:
                for lane, place in enumerate(at):
                    value = w.load(source, *place[:-1], place[-1] + element)
                    w.store(value if sign is None else value * sign, target, start + element, lane)
            return
        with w.loop(-(-size // lanes)) as square:  # the last one takes elements before it once more
            element = w.keep(w.minimum(square * lanes, w.integer(size - lanes)))
            vectors = [w.keep(w.load(source, *p[:-1], p[-1] + element, lanes=lanes)) for p in at]
            for k, vector in enumerate(transposed(w, vectors)):
                vector = vector if sign is None else vector * w.spread(sign, lanes)
                w.store(vector, target, element + k + start, 0, lanes=lanes)

    def _turn_out(self, number: int, result: Any, front: tuple[Any, ...], first: Any, count: Any) -> None:
        w, lanes, size = self.w, self.lanes, int(np.prod(self.shapes[number]))
        source = self.kept[number][-1]
        if size < lanes:
            with w.loop(size) as element, w.loop(count) as lane:
                w.store(w.load(source, element, lane), result, *front, first + lane, 0, 0, element)
            return
        with w.loop(-(-size // lanes)) as square:
            element = w.keep(w.minimum(square * lanes, w.integer(size - lanes)))
            vectors = [w.keep(w.load(source, element + k, 0, lanes=lanes)) for k in range(lanes)]
            for lane, vector in enumerate(transposed(w, vectors)):
                with w.when(count > lane):
                    w.store(vector, result, *front, first + lane, 0, 0, element, lanes=lanes)

    # -- element by element -------------------------------------------------------------------------------------------

    @contextmanager
    def _summing(self) -> Iterator[None]:
        """What elements add to the value within comes to the total at the end; short sums lose less."""
        w, lanes = self.w, self.lanes
        self._used: set[int] = set()
        for sums in self.sums:
            for slot in range(SUMS):
                w.store(w.spread(0.0, lanes), sums, slot * lanes, lanes=lanes)
        yield
        for kind in sorted(self._used):
            parts = [w.load(self.sums[kind], k * lanes, lanes=lanes) for k in range(SUMS)]
            total = (parts[0] + parts[1]) + (parts[2] + parts[3])
            w.store(w.load(self.total, 0, lanes=lanes) + total, self.total, 0, lanes=lanes)

    def _add(self, step: int, what: str, slot: int, term: Any) -> None:
        kind = self._kind_of.setdefault((step, what), len(self._kind_of))
        self._used.add(kind)
        w, place, sums = self.w, slot % SUMS * self.lanes, self.sums[kind]
        w.store(w.load(sums, place, lanes=self.lanes) + term, sums, place, lanes=self.lanes)

    def _finish(self, number: int, c: Any, y: Any, x: Any, value: Any, slot: int) -> None:
        """What is done with an element of map ``number`` when it is known."""
        w, lanes = self.w, self.lanes
        value = w.keep(value)
        for storage, array in zip(self.storages[number], self.kept[number], strict=True):
            w.store(value, array, *storage.index(c, y, x), lanes=lanes)  # first: sums read it
        self._shape = self.shapes[number]
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
            elif isinstance(step, Enter) or step.source != number:
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

    def _of_region(self, operand: int, c: Any, y: Any, x: Any) -> Any:
        if operand in self.held:
            channels, height, width = self._shape
            last = self.program.channels_last
            place = (y * width + x) * channels + c if last else (c * height + y) * width + x
            return self.w.load(self.held[operand], place, 0, lanes=self.lanes)
        return self.w.spread(self.w.load(self.maps[operand], self.region, c, y, x), self.lanes)

    def _elements(self, number: int, channels_last: bool = False) -> None:
        """What is done with each element of a map that has just been made, in ``raw``."""
        w, (channels, height, width) = self.w, self.shapes[number]
        # Innermost is the longer of the two axes that may be, in pieces of as many elements as there are sums.
        inner, outer = (width, channels) if width > 1 else (channels, width)
        with w.loop(outer) as o, w.loop(height) as y, self._summing():
            for tile in tiles(inner, SUMS):
                with w.loop(tile.count) as k:
                    for j in range(tile.size):
                        i = w.keep(w.integer(tile.start + j) + k * tile.size)
                        c, x = (o, i) if width > 1 else (i, o)
                        place = (y * width + x) * channels + c if channels_last else (c * height + y) * width + x
                        self._finish(number, c, y, x, w.load(self.raw, place, 0, lanes=self.lanes), j)

    # -- products -----------------------------------------------------------------------------------------------------

    def _tile(self, count: int, lanes: int) -> list[Any]:
        """Sums of a register tile, zero: small arrays each, as TVM takes memory from elsewhere for large ones."""
        w = self.w
        sums = [w.local(lanes) for _ in range(count)]
        for part in sums:
            w.store(w.spread(0.0, lanes), part, 0, lanes=lanes)
        return sums

    def _multiply(self, sums: list[Any], vector: Any, weights: list[Any], lanes: int) -> None:
        """Adds a vector, of one register or several, times each weight to the tile."""
        w = self.w
        vector = w.keep(vector)
        for part, weight in zip(sums, weights, strict=True):
            w.store(w.load(part, 0, lanes=lanes) + vector * w.spread(weight, lanes), part, 0, lanes=lanes)

    def _flat(self, number: int) -> Any:
        """Map ``number`` as [elements, lanes]."""
        both = zip(self.storages[number], self.kept[number], strict=True)
        return next(array for kept, array in both if not kept.spatial and not kept.channels_last)

    def _adjoint(self, step: Adjoint) -> None:
        w = self.w
        for part in parts_of(step, self.shapes[step.source][0], self.machine.accumulators):
            used = part.start
            for group in tiles(step.onto[0], part.channels):
                for pixels in tiles(part.columns.count, part.pixels):
                    with w.loop(part.rows.count) as j, w.loop(group.count) as g, w.loop(pixels.count) as q:
                        self._phase_tile(step, part, group, pixels.size, (j, g, q * pixels.size + pixels.start), used)
                used += group.count * group.size * len(part.rows.taps) * part.depth

    def _phase_tile(
        self, step: Adjoint, part: Part, group: Tile, pixels: int, at: tuple[Any, Any, Any], weights: int
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
                    factors = [w.load(weight, place + (x * group.size + c)) for c in range(group.size)]
                    self._multiply(sums, vector, factors, pixels * self.lanes)
        _, height, width = step.onto
        corner = (g * group.size + group.start) * height + j * step.stride[0] + down.first
        corner = w.keep(corner * width + first * step.stride[1] + across.first)
        for p, c in product(range(pixels), range(group.size)):
            value = w.load(sums[c], p * self.lanes, lanes=self.lanes)
            place = corner + (c * height * width + p * step.stride[1])
            w.store(value, self.raw, place, 0, lanes=self.lanes)

    def _linear(self, step: Linear) -> None:
        w = self.w
        source, weight = self._flat(step.source), self.constants[self.program.steps.index(step)]
        depth = int(np.prod(self.shapes[step.source]))
        for group in tiles(int(np.prod(step.onto)), self.machine.accumulators):
            with w.loop(group.count) as g:
                sums = self._tile(group.size, self.lanes)
                base = w.keep(g * (depth * group.size) + group.start * depth)
                with w.loop(depth) as k:
                    weights = [w.load(weight, base + k * group.size + c) for c in range(group.size)]
                    self._multiply(sums, w.load(source, k, 0, lanes=self.lanes), weights, self.lanes)
                for c in range(group.size):
                    value = w.load(sums[c], 0, lanes=self.lanes)
                    w.store(value, self.raw, g * group.size + (group.start + c), 0, lanes=self.lanes)

    def _pad(self, step: Pad) -> None:
        w, (_, low_height, low_width) = self.w, self.shapes[step.source]
        channels, height, width = step.onto
        source = self._flat(step.source)
        with w.loop(channels * height * width) as place:
            w.store(w.spread(0.0, self.lanes), self.raw, place, 0, lanes=self.lanes)
        with w.loop(channels) as c, w.loop(low_height) as y, w.loop(low_width) as x:
            value = w.load(source, (c * low_height + y) * low_width + x, 0, lanes=self.lanes)
            place = (c * height + y + step.low[0]) * width + x + step.low[1]
            w.store(value, self.raw, place, 0, lanes=self.lanes)

    _make: ClassVar[Mapping[type, Callable[..., None]]] = {Adjoint: _adjoint, Linear: _linear, Pad: _pad}


def build_rows(program: RowProgram, dtype: str, machine: Machine) -> Any:
    """The TVM function; its parameters are those of :func:`.rowlayout.row_operands`."""
    return _Rows(program, dtype, machine).write()
