"""Tools that the relaxations of curves share: chords, tangents, and what holds where an interval is not finite.

A line of any slope s is above f on [l, u] with a bias no less than sup (f(x) - s x). The relaxations choose a slope and
bound that supremum piece by piece: where f is convex by the values at the piece's ends (:func:`above`), where it is
concave by a tangent at any place t of the piece (:func:`over`): f(x) - s x <= f(t) - s t + (f'(t) - s) (x - t). So a
badly chosen slope or place costs tightness alone: these are free choices (:func:`chosen`), and the analysis of rounding
need not follow the search for them. Biases are rounded as any float is: a line may cross f by a few ulps of the numbers
that enter it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_crown.lines import Lines
from boundflow_interval import Interval

__all__ = [
    "Function",
    "Line",
    "above",
    "below",
    "both",
    "chord_slope",
    "chosen",
    "concave",
    "convex",
    "either",
    "flipped",
    "known",
    "middle",
    "ordered",
    "over",
    "positive",
    "settled",
    "under",
    "within",
]

Function = Callable[[Value], Value]
Line = tuple[Value, Value]  # slope and bias
Point = tuple[Value, Value]  # a place and the function there


def both(b: Builder, one: Value, other: Value) -> Value:
    """Of two conditions: and."""
    return b.minimum(one, other)


def either(b: Builder, one: Value, other: Value) -> Value:
    """Of two conditions: or."""
    return b.maximum(one, other)


def known(b: Builder, x: Value) -> Value:
    """Where ``x`` is not NaN."""
    return b.compare(x, x, "eq")


def within(b: Builder, x: Value, low: Value | float, high: Value | float) -> Value:
    return b.minimum(b.maximum(x, low), high)


def positive(b: Builder, x: Value) -> Value:
    """``x``, but no less than the least normal number: for divisors that may be zero where the quotient is not used."""
    return b.maximum(x, float(np.finfo(b.dtype.numpy).tiny))


def chosen(b: Builder, x: Value, least: float = -math.inf) -> Value:
    """``x``, or ``least`` where it is less: a number that bounds hold for, whatever it is, as long as it is no less."""
    return b.maximum(x, least, free=True)


def ordered(b: Builder, x: Interval) -> Interval:
    """``x`` with ends that rounding crossed put in order; NaN in both where one is NaN."""
    return Interval(b.minimum(x.lower, x.upper), b.maximum(x.lower, x.upper))


def middle(x: Interval) -> Value:
    return x.lower * 0.5 + x.upper * 0.5


def chord_slope(b: Builder, x: Interval, at_lower: Value, at_upper: Value) -> Value:
    """(f(u) - f(l)) / (u - l); 0 on points, and NaN where the width overflows, so that no false slope of 0 arises."""
    width = x.upper - x.lower
    return (at_upper - at_lower) / b.where(width < math.inf, positive(b, width), math.nan)


def above(b: Builder, slope: Value, points: Sequence[Point]) -> Line:
    """The lowest line of this slope that is not below any of the points."""
    (bias, *others) = [value - slope * place for place, value in points]
    for other in others:
        bias = b.maximum(bias, other)
    return slope, bias


def below(b: Builder, slope: Value, points: Sequence[Point]) -> Line:
    """The highest line of this slope that is not above any of the points."""
    (bias, *others) = [value - slope * place for place, value in points]
    for other in others:
        bias = b.minimum(bias, other)
    return slope, bias


def over(b: Builder, slope: Value, place: Value, value: Value, rate: Value, piece: Interval, off: float = 0.0) -> Value:
    """The least bias of a line of this slope above the tangent at ``place``, on a piece, which need not hold the place.

    Args:
        value, rate: of the function and its derivative at the place.
        off: what rounded constants make the rate be off by, as a part of it.
    """
    excess = rate - slope
    bias = value - slope * place + b.maximum(excess * (piece.lower - place), excess * (piece.upper - place))
    if not off:
        return bias
    reach = b.maximum(b.abs(piece.lower - place), b.abs(piece.upper - place))
    return bias + b.abs(rate) * reach * off


def under(
    b: Builder, slope: Value, place: Value, value: Value, rate: Value, piece: Interval, off: float = 0.0
) -> Value:
    """The greatest bias of a line of this slope below the tangent, see :func:`over`."""
    return -over(b, -slope, place, -value, -rate, piece, off)


def settled(b: Builder, lower: Line, upper: Line, span: Interval) -> Lines:
    """The lines; the function's range where a line is not finite; NaN where the range is not known.

    A lower bound that overflowed to infinity is no bound.
    """
    usable = known(b, span.lower)

    def settle(line: Line, bound: Value) -> Line:
        # Both hold wherever they are numbers.
        finite = both(b, usable, b.compare(b.abs(line[0]) + b.abs(line[1]), math.inf, "lt", free=True))
        return b.where(finite, line[0], 0.0), b.where(finite, line[1], bound)

    least = b.where(span.lower < math.inf, span.lower, math.nan)
    greatest = b.where(span.upper > -math.inf, span.upper, math.nan)
    return Lines(*settle(lower, least), *settle(upper, greatest))


def flipped(lines: Lines) -> Lines:
    """Lines of -f from lines of f."""
    assert lines.lower_bias is not None and lines.upper_bias is not None
    return Lines(-lines.upper_slope, -lines.upper_bias, -lines.lower_slope, -lines.lower_bias)


def convex(
    b: Builder,
    x: Interval,
    f: Function,
    derivative: Function,
    *,
    least: Value | None = None,
    tangent_at: Value | None = None,
) -> Lines:
    """A function convex on the interval: the chord above, a tangent below.

    The tangent is at the middle, where the area between it and f is least: that area is the width times the distance at
    the middle, up to a constant. Zhang et al., Efficient Neural Network Robustness Certification with General
    Activation Functions, 2018, section 3.2. A convex function lies below its chords and above its tangents.

    Args:
        x: with ends in order.
        least: the least value of f on the interval, where that is not at an end.
        tangent_at: another place for the tangent.
    """
    low, high = f(x.lower), f(x.upper)
    ends = ((x.lower, low), (x.upper, high))
    # Slopes of chords lie between those of the ends; on narrow intervals rounding may leave nothing else of them.
    slope = chosen(b, within(b, chord_slope(b, x, low, high), derivative(x.lower), derivative(x.upper)))
    place = middle(x) if tangent_at is None else tangent_at
    least = b.minimum(low, high) if least is None else least
    return settled(
        b,
        below(b, derivative(place), ((place, f(place)), *ends)),
        above(b, slope, ends),
        Interval(least, b.maximum(low, high)),
    )


def concave(b: Builder, x: Interval, f: Function, derivative: Function) -> Lines:
    """A function concave on the interval: the chord below, the tangent at the middle above. See :func:`convex`."""
    return flipped(convex(b, x, lambda v: -f(v), lambda v: -derivative(v)))
