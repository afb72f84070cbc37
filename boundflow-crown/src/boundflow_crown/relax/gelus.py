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
    either,
    middle,
    ordered,
    positive,
    settled,
    within,
)
from boundflow_interval import Interval

__all__ = ["gelu"]

BISECTIONS, STEPS = 10, 5
FAR = 40.0  # from here on gelu and its approximation by tanh are x, and their derivative is 1, to the last digit
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
    """
    x = ordered(b, x)
    half = _by_tanh(b) if attrs["approximate"] == "tanh" else _exact(b)

    def f(v: Value) -> Value:
        return PRIMAL_OPS["gelu"].emit(b, attrs, 1, v)

    turned = middle(x) < 0.0
    a, e = b.where(turned, -x.upper, x.lower), b.where(turned, -x.lower, x.upper)
    centre = b.abs(middle(x))
    ha, he = half.h(a), half.h(e)
    chord = within(b, chord_slope(b, Interval(a, e), ha, he), 0.0, 0.7)

    by_chord = either(b, either(b, e <= half.bend, a <= 0.0), half.first(e) >= chord)
    touch_high = b.where(a >= half.bend, centre, b.maximum(_touch_right(b, half, a, ha, e), centre))
    high_slope = b.where(by_chord, chord, half.first(touch_high))

    touch_low, under = _touch_middle(b, half, a, e, he)
    touch_low = b.minimum(touch_low, centre)
    low_slope = b.where(under, half.first(touch_low), chord)

    low, high = f(x.lower), f(x.upper)

    def line(side: Any, slope: Value, touch: Value) -> tuple[Value, Value]:
        place = within(b, b.where(turned, -touch, touch), x.lower, x.upper)
        points = ((x.lower, low), (x.upper, high), (place, f(place)))
        found: tuple[Value, Value] = side(b, b.where(turned, -slope, slope) + 0.5, points)
        return found

    least = f(within(b, x.lower * 0.0 + half.least_at, x.lower, x.upper))
    span = Interval(b.minimum(b.minimum(low, high), least), b.maximum(low, high))
    return settled(b, line(below, low_slope, touch_low), line(above, high_slope, touch_high), span)


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
