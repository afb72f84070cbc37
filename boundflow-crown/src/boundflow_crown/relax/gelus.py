"""Relaxation of gelu."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs
from boundflow_crown.lines import Lines
from boundflow_crown.relax.curves import (
    Function,
    above,
    below,
    chord_slope,
    chosen,
    either,
    middle,
    ordered,
    over,
    positive,
    settled,
    under,
    within,
)
from boundflow_interval import Interval

__all__ = ["gelu"]

BISECTIONS, STEPS = 10, 5
FAR = 40.0  # from here on gelu and its approximation by tanh are x, and their derivative is 1, to the last digit
OFF = 2.0**-44  # what rounded constants make a derivative be off by, as a part of it
CLOSE = 1e-9  # more than the constants of bends are off by
CUBIC, SCALE = 0.044715, math.sqrt(2 / math.pi)


@dataclass(frozen=True)
class _Half:
    """h(x) = gelu(x) - x / 2, an even function: convex on [-bend, bend], concave right of it, with h' above 1/2 there.

    Attributes:
        least_at: where gelu is least, h' = -1/2.
    """

    h: Function
    first: Function
    second: Function
    bend: float
    least_at: float


def _exact(b: Builder) -> _Half:
    """h = x erf(x / sqrt 2) / 2, h'' = (2 - x^2) phi(x) for the density phi of the normal distribution."""

    def density(v: Value) -> Value:
        return b.exp(v * v * -0.5) * (1.0 / math.sqrt(2 * math.pi))

    return _Half(
        lambda v: 0.5 * v * b.erf(v * math.sqrt(0.5)),
        lambda v: 0.5 * b.erf(v * math.sqrt(0.5)) + v * density(v),
        lambda v: (2.0 - v * v) * density(v),
        math.sqrt(2.0),
        -0.7517915246935645,
    )


def _by_tanh(b: Builder) -> _Half:
    """h = x tanh(w) / 2 with w = sqrt(2 / pi) (x + 0.044715 x^3)."""

    def parts(v: Value) -> tuple[Value, Value, Value]:
        v = within(b, v, -FAR, FAR)
        return v, b.tanh(SCALE * (v + CUBIC * v * v * v)), SCALE * (1.0 + 3 * CUBIC * v * v)

    def first(v: Value) -> Value:
        v, t, rate = parts(v)
        return 0.5 * (t + v * (1.0 - t * t) * rate)

    def second(v: Value) -> Value:
        v, t, rate = parts(v)
        return (1.0 - t * t) * (rate + v * (3 * SCALE * CUBIC * v - t * rate * rate))

    return _Half(lambda v: 0.5 * v * parts(v)[1], first, second, TANH_BEND, -0.7524614220710163)


TANH_BEND = 1.4185040087908284


def gelu(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """x Phi(x), exact or approximated by tanh, as x / 2 + h(x) with an even h.

    Where the middle is negative all is mirrored, so that h(e) >= h(a) on [a, e] and a line above has a slope s >= 0.

    Above: left of -bend, h - s x falls; in the middle it is convex; right of the bend it is concave. So it is greatest
    at a, at e, or at the t >= bend with h'(t) = s. The slope is the chord's where that is above: e <= bend, or a <= 0
    (the chord's slope is then at most 1/2, h' right of the bend is more), or h'(e) is no less. Else it is that of the
    tangent at t = max(t*, middle), where the tangent at t* passes through (a, h(a)), found by bisection.

    Below: h - s x is least at a, at e, or at the t within the bends with h'(t) = s. The slope is that of the tangent at
    t = min(t*, middle), where the tangent at t* passes through (e, h(e)), t* = bend for e <= bend. Newton steps from
    max(a, 0) come nearer to t* from the left, as the height of the tangent at e is concave in t. Where already the
    tangent at a is above at e, the line is the chord.

    All that is a free choice: whatever slope s >= 0 and t >= bend are, h is below the tangent at t right of the bend,
    and of the rest the ends and the bend are enough; whatever s and t within the bends are, h is above the tangent at t
    between the bends, and of the rest the ends and the bends are enough.
    """
    x = ordered(b, x)
    half = _by_tanh(b) if attrs["approximate"] == "tanh" else _exact(b)

    def f(v: Value) -> Value:
        return PRIMAL_OPS["gelu"].emit(b, attrs, 1, v)

    turned = b.compare(middle(x), 0.0, "lt", free=True)
    a, e = b.where(turned, -x.upper, x.lower), b.where(turned, -x.lower, x.upper)
    centre = b.abs(middle(x))
    ha, he = half.h(a), half.h(e)
    chord = within(b, chord_slope(b, Interval(a, e), ha, he), 0.0, 0.7)

    by_chord = either(b, either(b, e <= half.bend, a <= 0.0), half.first(e) >= chord)
    touch_high = b.where(a >= half.bend, centre, b.maximum(_touch_right(b, half, a, ha, e), centre))
    # h minus a chord that is above rises into e; minus one that is below it is least at a or e, or nowhere steep.
    touch_high = chosen(b, b.where(by_chord, e, touch_high), half.bend + CLOSE)
    slope_high = chosen(b, b.where(by_chord, chord, half.first(touch_high)), 0.0)

    touch_low, is_under = _touch_middle(b, half, a, e, he)
    touch_low = chosen(b, b.where(is_under, b.minimum(touch_low, centre), a), -half.bend + CLOSE)
    touch_low = -chosen(b, -touch_low, -half.bend + CLOSE)
    slope_low = chosen(b, b.where(is_under, half.first(touch_low), chord))

    # Back to gelu itself, whose values at the far left keep their digits.
    def back(v: Value) -> Value:
        return b.where(turned, -v, v)

    def turned_back(v: Interval) -> Interval:
        return Interval(b.where(turned, -v.upper, v.lower), b.where(turned, -v.lower, v.upper))

    low, high = f(x.lower), f(x.upper)
    ends = ((x.lower, low), (x.upper, high))

    def tangent(touch: Value) -> tuple[Value, Value, Value]:
        place = back(touch)
        return place, f(place), back(half.first(touch)) + 0.5

    high_slope, high_bias = above(b, chosen(b, back(slope_high) + 0.5), ends)
    right = Interval(b.maximum(a, half.bend - CLOSE), b.maximum(e, half.bend - CLOSE))
    highest = over(b, high_slope, *tangent(touch_high), turned_back(right), OFF)
    high_bias = b.maximum(high_bias, b.where(e > half.bend - CLOSE, highest, high_bias))

    low_slope, low_bias = below(b, chosen(b, back(slope_low) + 0.5), ends)
    first, last = (within(b, end, -half.bend - CLOSE, half.bend + CLOSE) for end in (a, e))
    lowest = under(b, low_slope, *tangent(touch_low), turned_back(Interval(first, last)), OFF)
    low_bias = b.minimum(low_bias, b.where(a < half.bend + CLOSE, lowest, low_bias))

    least = f(within(b, x.lower * 0.0 + half.least_at, x.lower, x.upper)) - CLOSE * CLOSE
    span = Interval(b.minimum(b.minimum(low, high), least), b.maximum(low, high))
    return settled(b, (low_slope, low_bias), (high_slope, high_bias), span)


def _touch_right(b: Builder, half: _Half, a: Value, ha: Value, e: Value) -> Value:
    """A t in [bend, min(e, 40)] whose tangent is above at a, nearly through (a, h(a)). Any such t is right of t*."""
    left, right = e * 0.0 + half.bend, within(b, e, half.bend, FAR)
    for _ in range(BISECTIONS):
        t = 0.5 * (left + right)
        is_above = half.h(t) + half.first(t) * (a - t) >= ha
        left, right = b.where(is_above, left, t), b.where(is_above, t, right)
    return right


def _touch_middle(b: Builder, half: _Half, a: Value, e: Value, he: Value) -> tuple[Value, Value]:
    """A t in [0, bend] whose tangent is below at e, nearly through (e, h(e)), and whether there is one right of a."""
    start = b.maximum(a, 0.0)
    stop = b.minimum(e, half.bend)
    short = he - half.h(start) - half.first(start) * (e - start)
    under = b.minimum(short >= 0.0, start <= half.bend)
    t = start
    for step in range(STEPS):
        if step:
            short = he - half.h(t) - half.first(t) * (e - t)
        t = within(b, t + b.maximum(short, 0.0) / positive(b, half.second(t) * (e - t)), start, stop)
    return b.where(e <= half.bend, e, t), under
