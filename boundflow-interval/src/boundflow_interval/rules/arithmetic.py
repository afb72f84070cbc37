"""Rules of operators that increase in every operand, and of products."""

from __future__ import annotations

from boundflow_core.extension import RuleContext
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Dim, size
from boundflow_interval.interval import (
    Interval,
    Operand,
    ends,
    largest_magnitude,
    ordered,
    smallest_magnitude,
)
from boundflow_interval.rules.affine import matmul_left, matmul_right
from boundflow_interval.rules.balls import moved

__all__ = ["matmul", "monotone", "moving", "mul", "square"]

# A matrix product of two intervals is bounded product by product, the tightest there is, while the products of one
# region number no more than this (half a megabyte in float64); above that by matrix products.
EXACT_PRODUCTS = 1 << 16


def monotone(ctx: RuleContext, *operands: Operand) -> Interval:
    """An operator that increases in every operand and is computed exactly or with rounding that keeps the order.

    The operator itself on the lower ends, and on the upper ends. These are sums, maxima, minima, selections by a
    constant condition, floor, and everything that only moves elements.
    """
    emit, attrs = ctx.node.spec.emit, ctx.attrs
    lower = emit(ctx.b, attrs, 1, *(ends(operand)[0] for operand in operands))
    upper = emit(ctx.b, attrs, 1, *(ends(operand)[1] for operand in operands))
    return Interval(lower, upper)


def moving(ctx: RuleContext, x: Interval) -> Interval:
    """An operator that gives every element of ``x`` once, in another place."""
    return moved(ctx, x, monotone(ctx, x))


def square(b: Builder, x: Interval) -> Interval:
    """``x * x`` with both factors the same: from the least magnitude squared to the largest squared."""
    least, most = smallest_magnitude(b, x), largest_magnitude(b, x)
    return Interval(least * least, most * most)


def products(b: Builder, x: Interval, y: Interval) -> Interval:
    """Elementwise product of independent factors: the extremes of the four products of ends."""
    first = ordered(b, x.lower * y.lower, x.lower * y.upper)
    second = ordered(b, x.upper * y.lower, x.upper * y.upper)
    return Interval(b.minimum(first.lower, second.lower), b.maximum(first.upper, second.upper))


def mul(ctx: RuleContext, x: Operand, y: Operand) -> Interval:
    """``x * y``: exact for a constant factor, for independent factors and for a square."""
    if not isinstance(x, Interval):
        x, y = y, x
    assert isinstance(x, Interval)
    if not isinstance(y, Interval):
        return ordered(ctx.b, x.lower * y, x.upper * y)
    if ctx.node.inputs[0] == ctx.node.inputs[1]:
        return square(ctx.b, x)
    return products(ctx.b, x, y)


def matmul(ctx: RuleContext, x: Operand, y: Operand) -> Interval:
    """Matrix product; with both factors perturbed each product of elements is bounded on its own and summed."""
    if not isinstance(x, Interval):
        assert isinstance(y, Interval)
        return matmul_left(ctx, x, y)
    if not isinstance(y, Interval):
        return matmul_right(ctx, x, y)
    if _product_count(x.lower, y.lower) <= EXACT_PRODUCTS:
        return matmul_exact(ctx.b, x, y)
    return matmul_by_parts(ctx.b, x, y)


def _product_count(x: Value, y: Value) -> int:
    """Products of elements in ``x y`` of one region: x [B, ..., m, k] by y [B, ..., k, n]."""
    front = max(x.shape[1:-2], y.shape[1:-2], key=lambda shape: (len(shape), size(shape)))
    count = size((*front, x.shape[-2], x.shape[-1], y.shape[-1]))
    assert isinstance(count, int)
    return count


def matmul_exact(b: Builder, x: Interval, y: Interval) -> Interval:
    """Bounds of ``x y`` that are attained for independent elements: sums over k of the ranges of x_ik y_kj."""

    def column(v: Value) -> Value:
        return b.reshape(v, (*v.shape, 1))

    def row(v: Value) -> Value:
        shape: tuple[Dim, ...] = (*v.shape[:-2], 1, *v.shape[-2:])
        return b.reshape(v, shape)

    parts = products(b, Interval(column(x.lower), column(x.upper)), Interval(row(y.lower), row(y.upper)))
    axis = parts.lower.rank - 2
    return Interval(b.reduce_sum(parts.lower, (axis,)), b.reduce_sum(parts.upper, (axis,)))


def matmul_by_parts(b: Builder, x: Interval, y: Interval) -> Interval:
    """Bounds of ``x y`` by matrix products alone, the better of two at each element.

    Splitting by sign, ``v = max(v, 0) + min(v, 0)``, is exact for a product unless both factors change sign (then up to
    twice as wide). Centre and radius, ``c d +- (|c| s + r |d| + r s)``, is at most 1.5 times as wide (S. M. Rump, Fast
    and parallel interval arithmetic, BIT 39, 1999).
    """
    xl, xu, yl, yu = x.lower, x.upper, y.lower, y.upper

    def plus(v: Value) -> Value:
        return b.maximum(v, 0.0)

    def minus(v: Value) -> Value:
        return b.minimum(v, 0.0)

    split = Interval(
        b.matmul(plus(xl), plus(yl))
        + b.matmul(plus(xu), minus(yl))
        + b.matmul(minus(xl), plus(yu))
        + b.matmul(minus(xu), minus(yu)),
        b.matmul(plus(xu), plus(yu))
        + b.matmul(plus(xl), minus(yu))
        + b.matmul(minus(xu), plus(yl))
        + b.matmul(minus(xl), minus(yl)),
    )
    c, r = (xl + xu) * 0.5, (xu - xl) * 0.5
    d, s = (yl + yu) * 0.5, (yu - yl) * 0.5
    centre = b.matmul(c, d)
    radius = b.matmul(b.abs(c), s) + b.matmul(r, b.abs(d) + s)
    lower, upper = b.maximum(split.lower, centre - radius), b.minimum(split.upper, centre + radius)
    return ordered(b, lower, upper)  # on points the two may cross by rounding
