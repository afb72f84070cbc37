"""Operators that move elements: the rows are moved back. Exact."""

from __future__ import annotations

import numpy as np

from boundflow_core.ir.program import Value
from boundflow_core.ir.types import concrete_shape, size
from boundflow_crown.rules.affine import unbroadcast
from boundflow_crown.walk import BackwardContext, Step

__all__ = ["concat", "expand", "gather", "pad", "permute", "reshape", "slice_", "where"]


def reshape(ctx: BackwardContext, rows: Value) -> Step:
    return Step({0: ctx.b.reshape(rows, (*ctx.rows.front, *ctx.shape(0)))})


def permute(ctx: BackwardContext, rows: Value) -> Step:
    axes, front = ctx.attrs["axes"], len(ctx.rows.front)
    back = sorted(range(len(axes)), key=axes.__getitem__)
    return Step({0: ctx.b.permute(rows, (*range(front), *(front + axis for axis in back)))})


def expand(ctx: BackwardContext, rows: Value) -> Step:
    return Step({0: unbroadcast(ctx, rows, 0)})


def concat(ctx: BackwardContext, rows: Value) -> Step:
    """Each operand gets its part of the rows; the part of a constant goes into the bias."""
    b, front = ctx.b, len(ctx.rows.front)
    axis = front + ctx.attrs["axis"]
    at = 0
    out: dict[int, Value] = {}
    bias: Value | None = None
    for number in range(len(ctx.node.inputs)):
        length = concrete_shape(ctx.shape(number), {})[ctx.attrs["axis"]]
        starts, stops = [0] * rows.rank, list(rows.shape)
        starts[axis], stops[axis] = at, at + length
        part = b.slice(rows, starts, stops, (1,) * rows.rank)
        at += length
        if ctx.is_constant(number):
            more = ctx.rows.sum(part * ctx.constant(number))
            bias = more if bias is None else bias + more
        else:
            # An operand may occur twice; the walk adds what arrives at one value.
            place = ctx.node.inputs.index(ctx.node.inputs[number])
            out[place] = out[place] + part if place in out else part
    return Step(out, bias)


def slice_(ctx: BackwardContext, rows: Value) -> Step:
    """Rows of elements that the slice left out are zero."""
    b, front = ctx.b, len(ctx.rows.front)
    below = concrete_shape(ctx.shape(0), {})
    x = rows
    for axis, (dim, start, step) in enumerate(zip(below, ctx.attrs["starts"], ctx.attrs["steps"], strict=True)):
        taken = x.shape[front + axis]
        assert isinstance(taken, int)
        if step != 1:
            x = _spread(ctx, x, front + axis, step)
        span = (taken - 1) * step + 1 if taken else 0
        low, high = [0] * x.rank, [0] * x.rank
        low[front + axis], high[front + axis] = start, dim - start - span
        if low != high or start:
            x = b.pad(x, low, high)
    return Step({0: x})


def _spread(ctx: BackwardContext, x: Value, axis: int, step: int) -> Value:
    """Elements along ``axis`` moved ``step`` apart, zeros between them."""
    b = ctx.b
    taken = x.shape[axis]
    assert isinstance(taken, int)
    apart = b.reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
    high = [0] * apart.rank
    high[axis + 1] = step - 1
    wide = b.pad(apart, [0] * apart.rank, high)
    joined = b.reshape(wide, (*x.shape[:axis], taken * step, *x.shape[axis + 1 :]))
    stops = list(joined.shape)
    stops[axis] = (taken - 1) * step + 1
    return b.slice(joined, (0,) * joined.rank, stops, (1,) * joined.rank)


def pad(ctx: BackwardContext, rows: Value) -> Step:
    """Rows of the border leave; its value, where not zero, goes into the bias."""
    b, front = ctx.b, len(ctx.rows.front)
    starts = (0,) * front + ctx.attrs["low"]
    stops = (
        *rows.shape[:front],
        *(dim - high for dim, high in zip(concrete_shape(rows.shape[front:], {}), ctx.attrs["high"], strict=True)),
    )
    inside = b.slice(rows, starts, stops, (1,) * rows.rank)
    bias = None
    if ctx.attrs["value"] != 0.0:
        bias = (ctx.rows.sum(rows) - ctx.rows.sum(inside)) * ctx.attrs["value"]
    return Step({0: inside}, bias)


def gather(ctx: BackwardContext, rows: Value) -> Step:
    """Rows are added up at the places that they were read from, by a product with the 0-1 matrix of the selection."""
    b, axis = ctx.b, len(ctx.rows.front) + ctx.attrs["axis"]
    places = concrete_shape(ctx.shape(0), {})[ctx.attrs["axis"]]
    index = ctx.graph.constants[ctx.node.inputs[1]].numpy()
    selection = b.constant(np.equal.outer(index % places, np.arange(places)).astype(np.float64))
    last = [*(a for a in range(rows.rank) if a != axis), axis]
    moved = b.permute(rows, last)
    lines = b.matmul(b.reshape(moved, (size(moved.shape[:-1]), moved.shape[-1])), selection)
    back = b.reshape(lines, (*moved.shape[:-1], places))
    return Step({0: b.permute(back, sorted(range(rows.rank), key=last.__getitem__))})


def where(ctx: BackwardContext, rows: Value) -> Step:
    """Rows go to the operand that was chosen; those of a constant go into the bias."""
    b, condition = ctx.b, ctx.constant(0)
    out: dict[int, Value] = {}
    bias: Value | None = None
    for number, part in ((1, b.where(condition, rows, 0.0)), (2, b.where(condition, 0.0, rows))):
        if ctx.is_constant(number):
            more = ctx.rows.sum(part * ctx.constant(number))
            bias = more if bias is None else bias + more
        elif number == 2 and ctx.node.inputs[1] == ctx.node.inputs[2]:
            return Step({1: unbroadcast(ctx, rows, 1)})
        else:
            out[number] = unbroadcast(ctx, part, number)
    return Step(out, bias)
