"""The rule of softmax: the exact range of every element."""

from __future__ import annotations

from boundflow_core.extension import RuleContext
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_interval.interval import Interval, ordered

__all__ = ["softmax"]


def softmax(ctx: RuleContext, x: Interval) -> Interval:
    """Element i is least where x_i is least and all others are greatest: exp(l_i) / (exp(l_i) + sum_(j != i) exp(u_j)).

    That is ``sigmoid(l_i - log sum_(j != i) exp(u_j))``, which neither overflows nor loses digits.
    """
    b, axis = ctx.b, ctx.attrs["axis"] + 1
    if x.lower.shape[axis] == 1:
        return Interval(x.lower * 0.0 + 1.0, x.upper * 0.0 + 1.0)  # NaN stays NaN
    least = b.sigmoid(x.lower - _others(b, x.upper, axis))
    most = b.sigmoid(x.upper - _others(b, x.lower, axis))
    return ordered(b, least, most)


def _others(b: Builder, x: Value, axis: int) -> Value:
    """``log sum exp`` over all elements along ``axis`` but the element itself.

    Sums over the n - 1 elements that follow in a circle, put together from sums over 1, 2, 4... elements. Subtracting
    an element from the sum of all would lose all digits where it is the largest.
    """
    n = x.shape[axis]
    assert isinstance(n, int)
    total: Value | None = None
    window, width, start, left = x, 1, 1, n - 1
    while left:
        if left & 1:
            part = _rotate(b, window, axis, start)
            total = part if total is None else _log_add_exp(b, total, part)
            start += width
        left >>= 1
        if left:
            window, width = _log_add_exp(b, window, _rotate(b, window, axis, width)), 2 * width
    assert total is not None
    return total


def _rotate(b: Builder, x: Value, axis: int, by: int) -> Value:
    """``x`` with element i + ``by`` at place i, in a circle along ``axis``."""
    n = x.shape[axis]
    assert isinstance(n, int)

    def part(start: int, stop: int) -> Value:
        starts = tuple(start if number == axis else 0 for number in range(x.rank))
        stops = tuple(stop if number == axis else dim for number, dim in enumerate(x.shape))
        return b.slice(x, starts, stops, (1,) * x.rank)

    return b.concat([part(by % n, n), part(0, by % n)], axis) if by % n else x


def _log_add_exp(b: Builder, x: Value, y: Value) -> Value:
    """``log(exp(x) + exp(y))`` without overflow."""
    return b.maximum(x, y) + b.log1p(b.exp(-b.abs(x - y)))
