"""Affine operators: the rows go through the adjoint, constants go into the bias. Exact."""

from __future__ import annotations

import numpy as np

from boundflow_core.ir.primal_ops import conv_transpose_attrs
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, size
from boundflow_crown.walk import BackwardContext, Step

__all__ = ["add", "conv2d", "conv_transpose2d", "linear", "reduce_sum", "unbroadcast"]


def linear(ctx: BackwardContext, rows: Value) -> Step:
    """A (W x + c) = (A W) x + A c."""
    b, weight = ctx.b, ctx.constant(1)
    lines = b.reshape(rows, (size(rows.shape[:-1]), rows.shape[-1]))
    below = b.reshape(b.matmul(lines, weight), (*rows.shape[:-1], weight.shape[-1]))
    if len(ctx.node.inputs) < 3:
        return Step({0: below})
    # A product with a vector: one pass over the rows, where a sum over products takes three.
    bias = b.matmul(lines, b.reshape(ctx.constant(2), (rows.shape[-1], 1)))
    return Step({0: below}, ctx.rows.sum(b.reshape(bias, rows.shape[:-1])))


def _channel_bias(ctx: BackwardContext, rows: Value) -> Value | None:
    if len(ctx.node.inputs) < 3:
        return None
    bias = ctx.constant(2)
    # The maps' sums as a product with ones: one pass at the speed of memory, where sums over short axes are slow.
    maps = (size(rows.shape[:-2]), size(rows.shape[-2:]))
    ones = ctx.b.constant(np.ones((maps[1], 1)))
    total = ctx.b.reshape(ctx.b.matmul(ctx.b.reshape(rows, maps), ones), rows.shape[:-2])
    return ctx.rows.sum(total * bias)


def _images(ctx: BackwardContext, rows: Value) -> Value:
    return ctx.b.reshape(rows, (size(rows.shape[:-3]), *rows.shape[-3:]))


def conv2d(ctx: BackwardContext, rows: Value) -> Step:
    """The adjoint of a convolution is its transposed convolution."""
    below = ctx.shape(0)
    attrs = Attrs(ctx.attrs, input_size=below[-2:])
    through = ctx.b.emit_named("conv2d_input_grad", _images(ctx, rows), ctx.constant(1), attrs=attrs)
    return Step({0: ctx.b.reshape(through, (*rows.shape[:-3], *below[-3:]))}, _channel_bias(ctx, rows))


def conv_transpose2d(ctx: BackwardContext, rows: Value) -> Step:
    """The adjoint of a transposed convolution is its convolution."""
    below, weight = ctx.shape(0), ctx.constant(1)
    attrs = dict(conv_transpose_attrs(ctx.attrs, below, weight.shape))
    del attrs["input_size"]
    through = ctx.b.emit_named("conv2d", _images(ctx, rows), weight, attrs=Attrs(attrs))
    return Step({0: ctx.b.reshape(through, (*rows.shape[:-3], *below[-3:]))}, _channel_bias(ctx, rows))


def unbroadcast(ctx: BackwardContext, rows: Value, number: int) -> Value:
    """Adjoint of broadcasting operand ``number`` to the result: sums over the axes that were repeated."""
    below, front = ctx.shape(number), len(ctx.rows.front)
    new = rows.rank - front - len(below)
    grown = [front + new + axis for axis, dim in enumerate(below) if dim == 1 and rows.shape[front + new + axis] != 1]
    axes = (*range(front, front + new), *grown)
    total = ctx.b.reduce_sum(rows, axes) if axes else rows
    return ctx.b.reshape(total, (*ctx.rows.front, *below))


def add(ctx: BackwardContext, rows: Value) -> Step:
    """A (x + y): the rows go to both; a constant goes into the bias."""
    out: dict[int, Value] = {}
    bias = None
    for number in (0, 1):
        if ctx.is_constant(number):
            bias = ctx.rows.sum(rows * ctx.constant(number))
        elif ctx.node.inputs[0] == ctx.node.inputs[1]:
            return Step({0: rows * 2.0})
        else:
            out[number] = unbroadcast(ctx, rows, number)
    return Step(out, bias)


def reduce_sum(ctx: BackwardContext, rows: Value) -> Step:
    below = ctx.shape(0)
    kept = tuple(1 if axis in ctx.attrs["axes"] else dim for axis, dim in enumerate(below))
    front = ctx.rows.front
    return Step({0: ctx.b.broadcast(ctx.b.reshape(rows, (*front, *kept)), (*front, *below))})
