"""The pass that makes one operation of what rows go through on their way back through a network.

Between two layers, the rows of a block stay in the processor's cache; what a call stores is what enters and leaves.
"""

from __future__ import annotations

import numpy as np

from boundflow_core.ir.constants import frozen
from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.ir.types import Attrs, Shape
from boundflow_core.planner.rewrite import Rewriter, begin
from boundflow_tvm.rowprogram import ROW_PROGRAM
from boundflow_tvm.rowreading import Reading
from boundflow_tvm.rowstates import Chain, MapState, Operand, Partial, Sum
from boundflow_tvm.templates.rowsteps import Gathered, MapShape, RowProgram

__all__ = ["fuse_rows"]


def fuse_rows(program: BoundProgram) -> BoundProgram:
    """``program`` with chains of operations on rows as operations `row_program`."""
    reading = Reading(program)
    while reading.chains:
        try:
            return _Writing(program, reading).written()
        except _CircleError as circle:
            reading.chains.remove(circle.chain)
    return program


class _CircleError(Exception):
    """A chain reads something that depends on what it hands on."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain


class _Writing:
    def __init__(self, program: BoundProgram, reading: Reading) -> None:
        self.program, self.reading = program, reading
        self.b: Rewriter
        self.b, self.values = begin(program)
        self.chains = set(reading.chains)
        self.results: dict[Chain, tuple[dict[int, Value], Value | None]] = {}
        self.begun: set[Chain] = set()

    def written(self) -> BoundProgram:
        for op in self.program.ops:
            if not any(self._is_inside(value) for value in op.outputs):
                with self.b.origin(op.origin):
                    self._copy(op)
        return self.b.finish({name: self.value(value) for name, value in self.program.outputs.items()})

    def _is_inside(self, value: Value) -> bool:
        """Whether ``value`` comes from a chain."""
        state = self.reading.states.get(value)
        if isinstance(state, Sum):
            return any(chain in self.chains for chain, _ in state.terms)
        if isinstance(state, MapState):
            return state.number > 0 and state.chain in self.chains
        return isinstance(state, Partial) and state.chain in self.chains

    def _copy(self, op: Op) -> None:
        outputs = self.b.copy(op, [self.value(value) for value in op.inputs])
        self.values.update(zip(op.outputs, outputs, strict=True))

    def value(self, value: Value) -> Value:
        """``value`` in the new program; what a chain hands on is written when it is asked for."""
        if value not in self.values:
            op = self.reading.makers[value]
            with self.b.origin(op.origin):
                if self._is_inside(value):
                    self.values[value] = self._handed_on(value)
                else:
                    self._copy(op)
        return self.values[value]

    def _handed_on(self, value: Value) -> Value:
        b, state = self.b, self.reading.states[value]
        if isinstance(state, MapState):
            found = self._result(state.chain)[0][state.number]
            last = state.chain.channels_last
            if state.axes != "n" and (state.axes == "hwc") != last:
                n = len(state.chain.out)
                turned = (n + 2, n, n + 1) if last else (n + 1, n + 2, n)
                found = b.permute(found, (*range(n), *turned))
            return b.reshape(found, value.shape)
        assert isinstance(state, Sum)
        parts = [self.value(part) for part in state.rest]
        for chain in dict.fromkeys(chain for chain, _ in state.terms):
            if chain in self.chains:
                _, summed = self._result(chain)
                assert summed is not None
                parts.append(summed)
        parts += [self.value(part) for chain, part in state.terms if chain not in self.chains]
        total = b.reshape(parts[0], value.shape)
        for part in parts[1:]:
            total = total + b.reshape(part, value.shape)
        return total

    # -- a chain ------------------------------------------------------------------------------------------------------

    def _result(self, chain: Chain) -> tuple[dict[int, Value], Value | None]:
        """The maps, by number, and the sum that ``chain`` hands on."""
        if chain not in self.results:
            if chain in self.begun:
                raise _CircleError(chain)
            self.begun.add(chain)
            leaving = [self.reading.states[value] for value in self.reading.leaving[chain]]
            maps = tuple(sorted({state.number for state in leaving if isinstance(state, MapState)} - {0}))
            summed = any(isinstance(state, Sum) for state in leaving)
            found = self._emit(chain, maps, summed)
            self.results[chain] = (dict(zip(maps, found, strict=False)), found[-1] if summed else None)
        return self.results[chain]

    def _emit(self, chain: Chain, results: tuple[int, ...], summed: bool) -> tuple[Value, ...]:
        b = self.b
        inputs = [b.reshape(self.value(chain.start), (*chain.front, *_order(chain, chain.shapes[0])))]
        gathered: list[tuple[int, Gathered]] = []
        more: list[Value] = []  # behind the operands that the steps number
        count = 1 + len(chain.operands)
        for number, (operand, of) in enumerate(chain.operands, 1):
            value = self.value(operand.value)
            shape = chain.shapes[of]
            if operand.kind == "region":
                value = b.reshape(value, (value.shape[0], *shape))
            elif operand.kind == "row":
                value = b.reshape(value, (*chain.front, *_order(chain, shape)))
                gathered.append((number, Gathered()))
            elif operand.kind == "window":
                value, origin = self._window(operand, value, chain)
                if origin not in more:
                    more.append(origin)
                extent = (_known(value.shape[1]), _known(value.shape[2]))
                gathered.append((number, Gathered(count + more.index(origin), extent)))
            elif operand.kind == "more":
                value = b.reshape(value, (*chain.out, *_order(chain, shape)))
            elif of >= 0:
                value = b.reshape(value, shape)
            inputs.append(value)
        region = None
        if chain.region is not None:
            region = count + len(more)
            more.append(self.value(chain.region))
        program = RowProgram(
            start=chain.shapes[0],
            steps=tuple(chain.steps),
            results=results,
            value=summed,
            ragged=chain.ragged,
            region=region,
            mirrored=chain.mirrored,
            channels_last=chain.channels_last,
            gathered=tuple(gathered),
        )
        return b.write(ROW_PROGRAM, [*inputs, *more], Attrs(program=program))

    def _window(self, operand: Operand, maps: Value, chain: Chain) -> tuple[Value, Value]:
        """Maps [B, H, W, C] with zeros as far as windows reach out, and the place of each row's window there."""
        b, cut = self.b, operand.cut
        assert cut is not None
        grid, scale, offset, extent = (cut.attrs[name] for name in ("grid", "scale", "offset", "size"))
        height, width = (_known(dim) for dim in maps.shape[2:])
        low = [max(0, -first) for first in offset]
        last = [scale[a] * (grid[a] - 1) + offset[a] + extent[a] for a in (0, 1)]
        high = [max(0, last[0] - height), max(0, last[1] - width)]
        x = b.permute(maps, (0, 2, 3, 1))
        if any(low) or any(high):
            x = b.pad(x, (0, *low, 0), (0, *high, 0))
        across = width + low[1] + high[1]
        firsts = [scale[a] * np.arange(grid[a]) + offset[a] + low[a] for a in (0, 1)]
        table = (firsts[0][:, None] * across + firsts[1]).reshape(-1).astype(np.int64)
        origin = b.gather_rows(b.constant(frozen(table)), self.value(cut.inputs[1]))
        if len(cut.inputs) == 3:
            places = (height + low[0] + high[0]) * across
            origin = origin + self.value(cut.inputs[2]) * b.constant(frozen(np.asarray(places, dtype=np.int64)))
        return x, origin


def _order(chain: Chain, shape: MapShape) -> Shape:
    return (shape[1], shape[2], shape[0]) if chain.channels_last else shape


def _known(dim: object) -> int:
    assert isinstance(dim, int)
    return dim
