"""Products. With a constant they are affine; of two values that depend on the input, McCormick's planes are used.

For x = c +- r and y = d +- s: x y - (d x + c y - c d) = (x - c)(y - d), at least -r s and at most r s. These are the
means of McCormick's two planes below, from (x - l1)(y - l2) >= 0 and (u1 - x)(u2 - y) >= 0, and of his two above
(Computability of global solutions to factorable nonconvex programs, 1976). All are as high at the middle; the mean has
the coefficients of the tangent plane there, which one matrix product puts through.
"""

from __future__ import annotations

from boundflow_core.ir.program import Value
from boundflow_crown.rules.affine import unbroadcast
from boundflow_crown.walk import BackwardContext, Step
from boundflow_interval import Interval

__all__ = ["matmul", "mul"]


def mul(ctx: BackwardContext, rows: Value) -> Step:
    for number in (0, 1):
        if ctx.is_constant(number):
            return Step({1 - number: unbroadcast(ctx, rows * ctx.constant(number), 1 - number)})
    b, lift = ctx.b, ctx.rows.lift
    x, y = ctx.interval(0), ctx.interval(1)
    (c, r), (d, s) = _centre_radius(x), _centre_radius(y)
    on_x, on_y = rows * lift(d), rows * lift(c)
    bias = -ctx.rows.sum(rows * lift(c * d) + b.abs(rows) * lift(r * s))
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
    (c, r), (d, s) = _centre_radius(left), _centre_radius(right)
    on_x = b.matmul(rows, lift(d), transpose_b=True)
    on_y = b.matmul(lift(c), rows, transpose_a=True)
    bias = -ctx.rows.sum(rows * lift(b.matmul(c, d)) + b.abs(rows) * lift(b.matmul(r, s)))
    return Step({0: _fit(ctx, on_x, 0), 1: _fit(ctx, on_y, 1)}, bias)


def _centre_radius(x: Interval) -> tuple[Value, Value]:
    half_lower, half_upper = x.lower * 0.5, x.upper * 0.5
    return half_lower + half_upper, half_upper - half_lower


def _fit(ctx: BackwardContext, rows: Value, number: int) -> Value:
    """Sums over leading axes that the product broadcast."""
    below, front = ctx.shape(number), len(ctx.rows.front)
    extra = rows.rank - front - len(below)
    grown = [
        front + extra + axis for axis, dim in enumerate(below) if dim == 1 and rows.shape[front + extra + axis] != 1
    ]
    axes = (*range(front, front + extra), *grown)
    total = ctx.b.reduce_sum(rows, axes) if axes else rows
    return ctx.b.reshape(total, (*ctx.rows.front, *below))
