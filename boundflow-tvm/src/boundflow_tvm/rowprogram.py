"""The composite `row_program`: many steps of rows on their way back as one operation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import frozen
from boundflow_core.ir.program import Composite, Value
from boundflow_core.ir.types import Attrs, Shape, size
from boundflow_tvm.templates.rowsteps import (
    Add,
    Adjoint,
    ChannelBias,
    Concretize,
    Enter,
    Linear,
    Pad,
    Relu,
    RowProgram,
    VectorBias,
    maps_read,
)

__all__ = ["ROW_PROGRAM"]


def _decompose(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    return _Written(b, inputs, attrs["program"]).outputs()


class _Written:
    """The steps in primitives, on rows [*front, C, H, W]."""

    def __init__(self, b: Builder, inputs: Sequence[Value], program: RowProgram) -> None:
        self.b, self.inputs, self.program = b, inputs, program
        self.gathered = dict(program.gathered)
        self.read = maps_read(program)
        rows = inputs[0]
        if program.shared:
            batch = next(inputs[n].shape[0] for n in self.read if n not in self.gathered or self._windows(n))
            rows = b.broadcast(b.reshape(rows, (1, *rows.shape)), (batch, *rows.shape))
        self.front = rows.shape[:-3]
        rows = self._first(rows)
        self.maps = [b.concat((rows, -rows), len(self.front) - 1) if program.mirrored else rows]

    def _windows(self, number: int) -> bool:
        return self.gathered[number].origin is not None

    def _first(self, x: Value) -> Value:
        """[..., H, W, C] or [..., C, H, W] as the latter."""
        n = x.rank - 3
        return self.b.permute(x, (*range(n), n + 2, n, n + 1)) if self.program.channels_last else x

    def _last(self, x: Value) -> Value:
        n = x.rank - 3
        return self.b.permute(x, (*range(n), n + 1, n + 2, n)) if self.program.channels_last else x

    def _operand(self, number: int) -> Value:
        """A map as one that broadcasts against the rows."""
        b, program, value = self.b, self.program, self.inputs[number]
        way = self.gathered.get(number)
        if way is None and program.region is not None:
            value = b.gather_rows(value, self.inputs[program.region])
        elif way is None:
            return b.reshape(value, (value.shape[0], 1, *value.shape[1:]))
        else:
            value = self._first(value if way.origin is None else self._cut(value, self.inputs[way.origin], number))
        return b.concat((value, value), len(self.front) - 1) if program.mirrored else value

    def _cut(self, maps: Value, origin: Value, number: int) -> Value:
        """Windows [*front, h, w, C] of maps [B, H, W, C] at ``origin`` [rows]."""
        b, (channels, height, width) = self.b, self.read[number]
        (regions, *extent, _) = maps.shape
        steps = np.add.outer(np.arange(height) * self.gathered[number].extent[1], np.arange(width)).reshape(-1)
        within = b.constant(frozen(steps.astype(np.int64)))
        places = b.reshape(b.reshape(origin, (origin.shape[0], 1)) + within, (origin.shape[0] * (height * width),))
        if self.program.ragged:
            found = b.gather_rows(b.reshape(maps, (size((regions, *extent)), channels)), places)
        else:
            found = b.gather_rows(b.reshape(maps, (regions, size(extent), channels)), places, axis=1)
        return b.reshape(found, (*self.front, height, width, channels))

    def _sum(self, x: Value) -> Value:
        return self.b.reduce_sum(x, tuple(range(x.rank - 3, x.rank)))

    def outputs(self) -> tuple[Value, ...]:
        b, maps, inputs = self.b, self.maps, self.inputs
        value: Value | None = None
        for step in self.program.steps:
            term = None
            if isinstance(step, Relu):
                x = maps[step.source]
                above, below = b.maximum(x, 0.0), b.minimum(x, 0.0)
                maps.append(above * self._operand(step.lower) + below * self._operand(step.upper))
                term = self._sum(below * self._operand(step.bias))
                if step.below is not None:
                    term = term + self._sum(above * self._operand(step.below))
            elif isinstance(step, Adjoint):
                maps.append(self._adjoint(step))
            elif isinstance(step, Linear):
                lines = self._flat(maps[step.source], (size(maps[step.source].shape[-3:]),))
                found = b.matmul(lines, inputs[step.weight])
                maps.append(b.reshape(found, (*maps[step.source].shape[:-3], *step.onto)))
            elif isinstance(step, Enter):
                maps.append(self._first(inputs[step.rows]))
            elif isinstance(step, Pad):
                maps.append(self._pad(step))
            elif isinstance(step, Add):
                maps.append(maps[step.one] + maps[step.other])
            elif isinstance(step, ChannelBias):
                bias = inputs[step.bias]
                term = self._sum(maps[step.source] * b.reshape(bias, (*bias.shape, 1, 1)))
            elif isinstance(step, VectorBias):
                term = self._sum(maps[step.source] * inputs[step.bias])
            else:
                assert isinstance(step, Concretize)
                x = maps[step.source]
                term = self._sum(x * self._operand(step.centre) - b.abs(x) * self._operand(step.radius))
            if term is not None:
                value = term if value is None else value + term
        results = [self._last(maps[number]) for number in self.program.results]
        if self.program.value:
            assert value is not None
            results.append(value)
        return tuple(results)

    def _flat(self, x: Value, sample: Shape) -> Value:
        return self.b.reshape(x, (size(x.shape[:-3]), *sample))

    def _adjoint(self, step: Adjoint) -> Value:
        x = self.maps[step.source]
        top, left = step.padding
        attrs = Attrs(
            stride=step.stride,
            padding=(top, left, *_rest(step, x.shape[-2:])),
            dilation=(1, 1),
            groups=1,
            input_size=step.onto[1:],
        )
        images = self._flat(x, x.shape[-3:])
        found = self.b.emit_named("conv2d_input_grad", images, self.inputs[step.weight], attrs=attrs)
        return self.b.reshape(found, (*x.shape[:-3], *step.onto))

    def _pad(self, step: Pad) -> Value:
        x, front = self.maps[step.source], len(self.front)
        _, height, width = x.shape[front:]
        assert isinstance(height, int) and isinstance(width, int)
        high = (step.onto[1] - step.low[0] - height, step.onto[2] - step.low[1] - width)
        return self.b.pad(x, ((0,) * (front + 1) + step.low), ((0,) * (front + 1) + high))


def _rest(step: Adjoint, results: Shape) -> tuple[int, int]:
    """Padding below and to the right with which the convolution has ``results`` positions."""
    found = []
    for a in (0, 1):
        positions = results[a]
        assert isinstance(positions, int)
        need = (positions - 1) * step.stride[a] + step.kernel[a] - step.onto[1 + a] - step.padding[a]
        found.append(max(0, need))
    return found[0], found[1]


ROW_PROGRAM = Composite(
    "row_program",
    "rows through relaxations, adjoints of convolutions, products and sums: the rows below, their value, or both",
    _decompose,
)
