"""Relaxations of sine and cosine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

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
    either,
    known,
    middle,
    ordered,
    positive,
    settled,
    within,
)
from boundflow_interval import Interval

__all__ = ["cos", "sin"]

STEPS = 5


def sin(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """Sine: see :func:`_upper`; the line below is the negative of that above the negative function."""
    return _wave(b, x, b.sin, math.pi / 2)


def cos(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """Cosine, as sine."""
    return _wave(b, x, b.cos, 0.0)


def _wave(b: Builder, x: Interval, f: Function, peak: float) -> Lines:
    x = ordered(b, x)
    slope, bias = _upper(b, x, lambda v: -f(v), peak - math.pi)
    one = b.where(known(b, x.lower), 1.0, math.nan)
    return settled(b, (-slope, -bias), _upper(b, x, f, peak), Interval(-one, one))


def _upper(b: Builder, x: Interval, f: Function, peak: float) -> Line:
    """The line of least area above f(x) = cos(x - peak).

    Let p and q = p + 2 pi be the peaks around the middle. Where both lie inside, the line is 1. Else let p be the one
    inside, or where none is, that on the side of the higher end (for q all is mirrored), and y = x - p in [a, e]:
    there e < 2 pi, and the line's slope s is not positive. cos y is concave on [0, pi/2], convex up to 3 pi/2 and then
    rises. So cos y - s y is greatest at a, at e or at the t in [0, pi/2] with -sin t = s (left of a peak it is less
    than on it): the bias follows from these three, whatever the slope. So far from zero that rounding hides the peaks,
    or where the interval is no wider than rounding (a slope times a far place would only add its own), the line is
    flat, halfway between f(l) + u - l and f(u), or 1: f changes by no more than x does.

    The slope is that of the chord where a >= pi/2, or a > 0 and the tangent at a is not above at e. Else it is that of
    the tangent at t = min(t*, middle), where the tangent at t* passes through (e, cos e): tangents at t <= t* are above
    f and the one nearest to the middle has the least area. t* is found by Newton steps from max(a, 0) on
    F(t) = cos t - sin t (e - t) - cos e, convex and falling on [0, pi/2], so that steps stay left of t*.

    The places of t carry the rounding of x, d; f(x) - s x is stationary there, which costs d^2.
    """
    l, u, centre = x.lower, x.upper, middle(x)  # noqa: E741
    low, high = f(l), f(u)
    p = peak + 2 * math.pi * b.floor((centre - peak) * (0.5 / math.pi))
    q = p + 2 * math.pi
    p_inside, q_inside = l <= p, u >= q
    # As numbers, since there is no "not" of conditions.
    by_p = b.where(q_inside, 0.0, b.where(either(b, p_inside, high <= low), 1.0, 0.0)) > 0.5
    a, e = b.where(by_p, l - p, q - u), b.where(by_p, u - p, q - l)
    half_pi = math.pi / 2
    start, cos_e = b.maximum(a, 0.0), b.cos(e)

    def over(t: Value) -> Value:
        return b.cos(t) - b.sin(t) * (e - t) - cos_e

    at_start = over(start)
    t, height = start, at_start
    for step in range(STEPS):
        if step:
            height = over(t)
        t = within(b, t + b.maximum(height, 0.0) / positive(b, b.cos(t) * (e - t)), start, b.minimum(e, half_pi))
    t = b.minimum(t, b.where(by_p, centre - p, q - centre))
    by_chord = either(b, start >= half_pi, at_start < 0.0)
    fall = b.sin(t)
    chord = within(b, chord_slope(b, x, low, high), -1.0, 1.0)
    slope = b.where(by_chord, chord, b.where(by_p, -fall, fall))
    place = within(b, b.where(by_p, p + t, q - t), l, u)
    slope, bias = above(b, slope, ((l, low), (u, high), (place, f(place))))
    rounding = (b.maximum(b.abs(l), b.abs(u)) + 2 * math.pi) * (8.0 * float(np.finfo(b.dtype.numpy).eps))
    lost = either(b, both(b, p_inside, q_inside), either(b, rounding > 1e-3, u - l <= rounding))
    flat = b.minimum((low + high) * 0.5 + (u - l) * 0.5, 1.0)
    return b.where(lost, 0.0, slope), b.where(lost, flat, bias + rounding * rounding)
