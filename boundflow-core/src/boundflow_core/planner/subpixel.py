"""Adjoints of strided convolutions written as convolutions of stride 1, where libraries run those faster.

With stride s, the outputs ``s j + a`` of the adjoint for one remainder ``a`` are a convolution of stride 1 with every
s-th element of the kernel (Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
Convolutional Neural Network, 2016). One convolution gives them for all remainders, as channels, which are then moved to
their places. The weights are rearranged by operations of the program, which are done once where the weights are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import frozen
from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.ir.types import DType
from boundflow_core.planner.rewrite import rewrite

__all__ = ["strided_adjoints"]

# Above, the library's own kernel is as fast: onto 16 channels, the adjoint with a 4x4 kernel took as long in either
# form and one with a 3x3 kernel longer; onto 8 and 3 channels this form took a half and a third of the time.
MOST_CHANNELS = 8


def strided_adjoints(program: BoundProgram) -> BoundProgram:
    """``program`` with adjoints of convolutions of stride above 1 onto few channels as convolutions of stride 1.

    In float32 alone: in float64, torch's own adjoint is the faster one.
    """
    if not any(op.name == "conv2d_input_grad" for op in program.ops):
        return program
    makers = {op.outputs[0]: op for op in program.ops}

    def rule(b: Builder, op: Op, inputs: Sequence[Value]) -> Sequence[Value] | None:
        if op.name != "conv2d_input_grad" or op.inputs[0].type.dtype is not DType.FLOAT32:
            return None
        channels_last = _is_channels_last(makers, op.inputs[0])
        found = _pointwise(b, op, inputs, channels_last) or _subpixel(b, op, inputs, channels_last)
        return None if found is None else (found,)

    return rewrite(program, rule)


def _is_channels_last(makers: Mapping[Value, Op], value: Value) -> bool:
    """Whether the memory of ``value`` [N, C, H, W] has its channels last."""
    maker = makers.get(value)
    return maker is not None and maker.name == "permute" and tuple(maker.attrs["axes"]) == (0, 3, 1, 2)


@dataclass(frozen=True)
class _Taps:
    """One axis of the adjoint: output ``stride * j + a`` is the sum over t of ``g[j + first + t] w[kernel[a][t]]``.

    Attributes:
        kernel: place in the kernel, per remainder and tap; None where there is none.
        low, high: borders that the gradient needs.
        count: outputs per remainder.
    """

    kernel: tuple[tuple[int | None, ...], ...]
    low: int
    high: int
    count: int

    @staticmethod
    def of(kernel: int, stride: int, padding: int, positions: int, extent: int) -> _Taps:
        places = {
            (a, (a + padding - k) // stride): k
            for a in range(stride)
            for k in range(kernel)
            if (a + padding - k) % stride == 0
        }
        first, last = min(t for _, t in places), max(t for _, t in places)
        count = -(-extent // stride)
        table = tuple(tuple(places.get((a, t)) for t in range(first, last + 1)) for a in range(stride))
        return _Taps(table, -first, count - positions + last, count)


def _subpixel(b: Builder, op: Op, inputs: Sequence[Value], channels_last: bool) -> Value | None:
    g, w = inputs
    out, per_group, kh, kw = w.shape
    stride, size = tuple(op.attrs["stride"]), op.attrs["input_size"]
    if op.attrs["groups"] != 1 or tuple(op.attrs["dilation"]) != (1, 1) or min(stride) < 2:
        return None
    dims = (out, per_group, kh, kw, *g.shape[2:])
    if not all(isinstance(dim, int) for dim in dims) or not 1 <= int(per_group) <= MOST_CHANNELS:  # type: ignore[arg-type]
        return None
    channels = int(per_group)  # type: ignore[arg-type]
    rows, columns = (
        _Taps.of(int(w.shape[2 + a]), stride[a], op.attrs["padding"][a], int(g.shape[2 + a]), size[a])  # type: ignore[arg-type]
        for a in (0, 1)
    )
    if min(rows.low, rows.high, columns.low, columns.high) < 0:
        return None
    y = b.conv2d(g, _weights(b, w, rows, columns), padding=(rows.low, columns.low, rows.high, columns.high))
    # Channels are numbered by (remainder of the row, remainder of the column, channel).
    apart = b.reshape(y, (g.shape[0], *stride, channels, rows.count, columns.count))
    whole = rows.count * stride[0], columns.count * stride[1]
    if channels_last:
        x = b.reshape(b.permute(apart, (0, 4, 1, 5, 2, 3)), (g.shape[0], *whole, channels))
        return b.permute(_cut(b, x, 1, size), (0, 3, 1, 2))
    return _cut(b, b.reshape(b.permute(apart, (0, 3, 4, 1, 5, 2)), (g.shape[0], channels, *whole)), 2, size)


def _weights(b: Builder, w: Value, rows: _Taps, columns: _Taps) -> Value:
    """Weights [sy * sx * I, O, taps, taps] of the convolution of stride 1 from ``w`` [O, I, kh, kw]."""
    out, channels, kh, kw = (int(dim) for dim in w.shape)  # type: ignore[arg-type]
    nothing = kh * kw
    places = [
        nothing if y is None or x is None else y * kw + x
        for row in rows.kernel
        for column in columns.kernel
        for y in row
        for x in column
    ]
    taps = len(rows.kernel[0]), len(columns.kernel[0])
    flat = b.pad(b.reshape(w, (out, channels, kh * kw)), (0, 0, 0), (0, 0, 1))
    taken = b.gather_rows(flat, b.constant(frozen(np.array(places, dtype=np.int64))), axis=2)
    remainders = len(rows.kernel) * len(columns.kernel)
    apart = b.permute(b.reshape(taken, (out, channels, remainders, *taps)), (2, 1, 0, 3, 4))
    return b.reshape(apart, (remainders * channels, out, *taps))


def _pointwise(b: Builder, op: Op, inputs: Sequence[Value], channels_last: bool) -> Value | None:
    """The adjoint of a strided convolution with a kernel of one element: zeros between the elements of a product."""
    g, w = inputs
    stride, size = tuple(op.attrs["stride"]), op.attrs["input_size"]
    if op.attrs["groups"] != 1 or w.shape[2:] != (1, 1) or any(op.attrs["padding"]) or max(stride) < 2:
        return None
    y = b.conv2d(g, b.permute(w, (1, 0, 2, 3)))
    n, channels, height, width = y.shape
    high = stride[0] - 1, stride[1] - 1
    whole = height * stride[0], width * stride[1]
    if channels_last:
        apart = b.reshape(b.permute(y, (0, 2, 3, 1)), (n, height, 1, width, 1, channels))
        wide = b.reshape(b.pad(apart, (0,) * 6, (0, 0, high[0], 0, high[1], 0)), (n, *whole, channels))
        return b.permute(_cut(b, wide, 1, size), (0, 3, 1, 2))
    apart = b.reshape(y, (n, channels, height, 1, width, 1))
    return _cut(b, b.reshape(b.pad(apart, (0,) * 6, (0, 0, 0, high[0], 0, high[1])), (n, channels, *whole)), 2, size)


def _cut(b: Builder, x: Value, axis: int, size: Sequence[int]) -> Value:
    """The first ``size`` elements of ``x`` along ``axis`` and the one after."""
    if x.shape[axis : axis + 2] == tuple(size):
        return x
    stops = (*x.shape[:axis], *size, *x.shape[axis + 2 :])
    return b.slice(x, (0,) * x.rank, stops, (1,) * x.rank)
