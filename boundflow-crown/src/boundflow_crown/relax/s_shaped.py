"""Relaxations of functions that are convex left of zero and concave right of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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
    chord_slope,
    chosen,
    either,
    middle,
    ordered,
    over,
    positive,
    settled,
    within,
)
from boundflow_interval import Interval

__all__ = ["erf", "sigmoid", "tanh"]

# Steps towards the tangent that passes through an end. They converge quadratically.
STEPS = 5


@dataclass(frozen=True)
class _Curve:
    """An increasing function with f(-x) = ``total`` - f(x), steepest at zero and flatter away from it.

    Attributes:
        where_steep: the place x >= 0 with a given derivative, at most ``steepest``.
        off: how far rounded constants take the derivative from the true one, as a part of it.
    """

    f: Function
    derivative: Function
    where_steep: Function
    steepest: float
    total: float
    off: float = 0.0


def _upper(b: Builder, x: Interval, curve: _Curve) -> Line:
    """The line above of least area.

    Where the chord's slope k is at most f'(u), or u <= 0, it is the chord: f minus the chord is convex, then concave,
    zero at both ends and rising or level into u, so it is never positive. Else it is a tangent at some t >= 0. Tangents
    of the concave part are above that part; above the convex part where they are so at l, that is from the t* on whose
    tangent passes through (l, f(l)). Among these the area is least nearest to the middle: t = max(t*, middle).

    t* is found from t = u by t <- the place with f' = slope of the chord from l to t. That slope is greatest at t*, so
    that every such place is t* or right of it: all steps are sound, and as that slope is stationary at t*, they
    converge quadratically. The bounds are those of Zhang et al., 2018, section 3.2, with another choice of tangent.

    Whatever s and t >= 0 are, the bias is no less than f(x) - s x: left of zero that is convex, so greatest at l, u or
    0; right of zero f is below its tangent at t, also at 0. So the search is a free choice, and only the bias, a few
    operations, has to be right.
    """
    l, u, f = x.lower, x.upper, curve.f  # noqa: E741
    low, high = f(l), f(u)
    tiny = float(np.finfo(b.dtype.numpy).tiny)
    chord = within(b, chord_slope(b, x, low, high), 0.0, curve.steepest)
    tangent_at, steepness = u, chord
    for step in range(STEPS):
        if step:
            steepness = (f(tangent_at) - low) / positive(b, tangent_at - l)
        tangent_at = within(b, curve.where_steep(within(b, steepness, tiny, curve.steepest)), 0.0, u)
    centre = middle(x)
    # Right of zero every tangent is above. Left of zero all this is within [l, u] and not used.
    tangent_at = b.maximum(b.where(l >= 0.0, centre, tangent_at), centre)
    by_chord = either(b, u <= 0.0, curve.derivative(u) >= chord)
    # f minus a chord that is above rises into u.
    place = chosen(b, b.where(by_chord, u, tangent_at), 0.0)
    rate = curve.derivative(place)
    slope = chosen(b, b.where(by_chord, chord, rate))
    _, bias = above(b, slope, ((l, low), (u, high)))
    right = Interval(b.maximum(l, 0.0), b.maximum(u, 0.0))
    highest = over(b, slope, place, f(place), rate, right, curve.off)
    return slope, b.maximum(bias, b.where(u > 0.0, highest, bias))


def _relax(b: Builder, x: Interval, curve: _Curve) -> Lines:
    """The line above, and below that of the mirrored interval, mirrored: f(x) = total - f(-x)."""
    x = ordered(b, x)
    slope, bias = _upper(b, Interval(-x.upper, -x.lower), curve)
    low, high = curve.f(x.lower), curve.f(x.upper)
    return settled(b, (slope, curve.total - bias), _upper(b, x, curve), ordered(b, Interval(low, high)))


def sigmoid(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """1 / (1 + e^-x); f' = f(x) f(-x) = k at log((1 + r) / (1 - r)) with r = sqrt(1 - 4 k)."""

    def where_steep(k: Value) -> Value:
        return 2.0 * b.log1p(b.sqrt(b.maximum(1.0 - 4.0 * k, 0.0))) - b.log(4.0 * k)

    return _relax(b, x, _Curve(b.sigmoid, lambda v: b.sigmoid(v) * b.sigmoid(-v), where_steep, 0.25, 1.0))


def tanh(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """Hyperbolic tangent, 2 sigmoid(2 x) - 1; f' = 1 - f^2 = k at artanh(sqrt(1 - k)). As products of sigmoids f' keeps
    its digits far from zero."""

    def where_steep(k: Value) -> Value:
        return b.log1p(b.sqrt(b.maximum(1.0 - k, 0.0))) - 0.5 * b.log(k)

    def derivative(v: Value) -> Value:
        return 4.0 * b.sigmoid(2.0 * v) * b.sigmoid(-2.0 * v)

    return _relax(b, x, _Curve(b.tanh, derivative, where_steep, 1.0, 0.0))


def erf(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """The error function; f' = c e^(-x^2) = k at sqrt(log(c / k)), with c = 2 / sqrt(pi)."""
    steepest = 2.0 / math.sqrt(math.pi)

    def where_steep(k: Value) -> Value:
        return b.sqrt(b.maximum(math.log(steepest) - b.log(k), 0.0))

    def derivative(v: Value) -> Value:
        return steepest * b.exp(-(v * v))

    return _relax(b, x, _Curve(b.erf, derivative, where_steep, steepest, 0.0, off=2.0**-50))
