"""Relaxations of powers with a constant exponent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs
from boundflow_crown.lines import Lines
from boundflow_crown.relax.curves import (
    Function,
    Line,
    above,
    both,
    chord_slope,
    chosen,
    concave,
    convex,
    either,
    flipped,
    known,
    middle,
    ordered,
    over,
    settled,
    within,
)
from boundflow_interval import Interval

__all__ = ["power", "reciprocal"]


def power(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """x ** exponent.

    Even: convex; a negative one on each side of zero, and with zero inside no line above is finite. Odd and positive:
    concave left of zero, convex right of it. Odd and negative: the same on each side, with zero inside no line is
    finite. Fractional: NaN where l < 0; convex, or concave for exponents between 0 and 1.
    """
    x, p = ordered(b, x), float(attrs["exponent"])
    if p in (0.0, 1.0):
        zero = b.where(known(b, x.lower), 0.0, math.nan)
        return Lines(zero + p, zero + (1.0 - p), zero + p, zero + (1.0 - p))

    def f(v: Value) -> Value:
        return v * v if p == 2.0 else 1.0 / v if p == -1.0 else b.pow(v, p)

    def derivative(v: Value) -> Value:
        return 2.0 * v if p == 2.0 else p * b.pow(v, p - 1.0)

    if not p.is_integer():
        # Written out, as (-inf) ** p is a number.
        x = Interval(b.where(x.lower >= 0.0, x.lower, math.nan), x.upper)
        return (concave if 0.0 < p < 1.0 else convex)(b, x, f, derivative)
    if p > 0.0:
        if p % 2.0 == 1.0:
            return _odd(b, x, f, derivative, int(p))
        return convex(b, x, f, derivative, least=f(within(b, x.lower * 0.0, x.lower, x.upper)))
    return _negative(b, x, f, derivative, odd=p % 2.0 == 1.0)


def reciprocal(
    b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]
) -> Lines:
    """1 / x = x ** -1."""
    return power(b, x, Attrs({"exponent": -1.0}), constants, options)


def _negative(b: Builder, x: Interval, f: Function, derivative: Function, *, odd: bool) -> Lines:
    """Convex right of zero. Left of zero f(x) is f(-x), or for odd exponents -f(-x)."""
    left = x.upper < 0.0
    away = Interval(b.where(left, -x.upper, x.lower), b.where(left, -x.lower, x.upper))
    zero_inside = both(b, x.lower <= 0.0, x.upper >= 0.0)
    away = Interval(b.where(zero_inside, 1.0, away.lower), b.where(zero_inside, 1.0, away.upper))
    lines = convex(b, away, f, derivative)
    mirrored = flipped(lines) if odd else lines  # of x -> f(-x)
    assert lines.lower_bias is not None and lines.upper_bias is not None
    assert mirrored.lower_bias is not None and mirrored.upper_bias is not None
    if odd:
        lowest, highest = b.constant(-math.inf), b.constant(math.inf)
        slopes = (-mirrored.lower_slope, -mirrored.upper_slope)
    else:
        least = b.minimum(f(x.lower), f(x.upper))
        lowest, highest = b.where(least < math.inf, least, math.nan), b.constant(math.inf)
        slopes = (-lines.lower_slope, -lines.upper_slope)

    def pick(inside: Value | float, on_left: Value, on_right: Value) -> Value:
        return b.where(zero_inside, inside, b.where(left, on_left, on_right))

    return Lines(
        pick(0.0, slopes[0], lines.lower_slope),
        pick(lowest, mirrored.lower_bias, lines.lower_bias),
        pick(0.0, slopes[1], lines.upper_slope),
        pick(highest, mirrored.upper_bias, lines.upper_bias),
    )


def _tangent_ratio(n: int) -> float:
    """c > 0 for which the tangent of x ** n at -c passes through (1, 1): the root of (n - 1) c^n + n c^(n-1) = 1."""
    low, high = 0.0, 1.0
    for _ in range(60):
        centre = (low + high) / 2
        low, high = (low, centre) if (n - 1) * centre**n + n * centre ** (n - 1) > 1 else (centre, high)
    return (low + high) / 2


def _odd(b: Builder, x: Interval, f: Function, derivative: Function, n: int) -> Lines:
    """x ** n for odd n >= 3: concave left of zero, convex right of it. The line below is that above, mirrored."""
    slope, bias = _odd_upper(b, Interval(-x.upper, -x.lower), f, derivative, n)
    span = Interval(f(x.lower), f(x.upper))
    return settled(b, (slope, -bias), _odd_upper(b, x, f, derivative, n), span)


def _odd_upper(b: Builder, x: Interval, f: Function, derivative: Function, n: int) -> Line:
    """The chord where l >= -c u, else a tangent at some t <= -c u, the nearest to the middle.

    Tangents of the concave part are above it, and above the convex part where they are so at u; the tangent at -c u
    passes through (u, u^n) by the choice of c. Where l >= -c u, f minus the chord falls from l, and is never positive.
    Whatever the slope s and a t <= 0 are: right of zero f(x) - s x is convex, left of it below the tangent at t.
    """
    l, u = x.lower, x.upper  # noqa: E741
    low, high = f(l), f(u)
    touch = -_tangent_ratio(n) * b.maximum(u, 0.0)
    tangent_at = within(b, b.minimum(touch, middle(x)), l, u)
    by_chord = either(b, l >= 0.0, l >= touch)
    steepest = b.maximum(derivative(l), derivative(u))
    chord = within(b, chord_slope(b, x, low, high), 0.0, steepest)
    # f minus a chord that is above falls from l.
    place = -chosen(b, -b.where(by_chord, l, tangent_at), 0.0)
    rate = derivative(place)
    slope = chosen(b, b.where(by_chord, chord, rate))
    _, bias = above(b, slope, ((l, low), (u, high)))
    left = Interval(b.minimum(l, 0.0), b.minimum(u, 0.0))
    return slope, b.maximum(bias, b.where(l < 0.0, over(b, slope, place, f(place), rate, left), bias))
