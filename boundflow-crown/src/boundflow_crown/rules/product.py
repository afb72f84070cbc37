"""Products. With a constant they are affine; of two values that depend on the input, McCormick's planes are used.

For l1 <= x <= u1 and l2 <= y <= u2: x y >= l2 x + l1 y - l1 l2, from (x - l1)(y - l2) >= 0, and
x y <= u2 x + l1 y - l1 u2, from (x - l1)(u2 - y) >= 0. McCormick, Computability of global solutions to factorable
nonconvex programs, 1976.
"""

from __future__ import annotations

from boundflow_core.ir.program import Value
from boundflow_crown.rules.affine import unbroadcast
from boundflow_crown.walk import BackwardContext, Step

__all__ = ["matmul", "mul"]


def mul(ctx: BackwardContext, rows: Value) -> Step:
    for number in (0, 1):
        if ctx.is_constant(number):
            return Step({1 - number: unbroadcast(ctx, rows * ctx.constant(number), 1 - number)})
    b, lift = ctx.b, ctx.rows.lift
    x, y = ctx.interval(0), ctx.interval(1)
    above, below = b.maximum(rows, 0.0), b.minimum(rows, 0.0)
    on_x = above * lift(y.lower) + below * lift(y.upper)
    on_y = rows * lift(x.lower)
    bias = -ctx.rows.sum(on_x * lift(x.lower))
    return Step({0: unbroadcast(ctx, on_x, 0), 1: unbroadcast(ctx, on_y, 1)}, bias)


def matmul(ctx: BackwardContext, rows: Value) -> Step:
    """Rows A on x y: for a constant y, A y^T on x; else McCormick's planes product by product."""
    b, lift = ctx.b, ctx.rows.lift
    if ctx.is_constant(1):
        y = ctx.constant(1)
        return Step({0: _fit(ctx, b.matmul(rows, y, transpose_b=True), 0)})
    if ctx.is_constant(0):
        x = ctx.constant(0)
        return Step({1: _fit(ctx, b.matmul(x, rows, transpose_a=True), 1)})
    left, right = ctx.interval(0), ctx.interval(1)
    above, below = b.maximum(rows, 0.0), b.minimum(rows, 0.0)
    on_x = b.matmul(above, lift(right.lower), transpose_b=True) + b.matmul(below, lift(right.upper), transpose_b=True)
    on_y = b.matmul(lift(left.lower), rows, transpose_a=True)
    bias = -ctx.rows.sum(_fit(ctx, on_x * lift(left.lower), 0))
    return Step({0: _fit(ctx, on_x, 0), 1: _fit(ctx, on_y, 1)}, bias)


def _fit(ctx: BackwardContext, rows: Value, number: int) -> Value:
    """Sums over leading axes that the product broadcast."""
    below, front = ctx.shape(number), len(ctx.rows.front)
    extra = rows.rank - front - len(below)
    grown = [front + extra + axis for axis, dim in enumerate(below) if dim == 1 and rows.shape[front + extra + axis] != 1]
    axes = (*range(front, front + extra), *grown)
    total = ctx.b.reduce_sum(rows, axes) if axes else rows
    return ctx.b.reshape(total, (*ctx.rows.front, *below))

