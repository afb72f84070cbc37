"""Rules of functions of one operand: exact ranges, up to rounding."""

from __future__ import annotations

import math

import numpy as np

from boundflow_core.extension import RuleContext
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_interval.interval import (
    Interval,
    increasing,
    largest_magnitude,
    nearest,
    ordered,
    smallest_magnitude,
)

__all__ = ["absolute", "cos", "gelu", "increasing_function", "leaky_relu", "power", "reciprocal", "sign", "sin"]

# Where gelu is least, the zero of its derivative Phi(x) + x phi(x), and of that of its approximation by tanh.
GELU_LEAST_AT = {"none": -0.7517915246935645, "tanh": -0.7524614220710163}


def increasing_function(ctx: RuleContext, x: Interval) -> Interval:
    """Sigmoid, tanh, erf, softplus, exp, log, sqrt: the function at both ends.

    The region of log and sqrt must lie in their domain: below zero both bounds are NaN; log 0 is -infinity.
    """
    return increasing(ctx.b, lambda v: ctx.node.spec.emit(ctx.b, ctx.attrs, 1, v), x)


def leaky_relu(ctx: RuleContext, x: Interval, slope: Value) -> Interval:
    """``x`` where ``x >= 0``, else ``slope * x``; with a negative slope the function falls to 0 at 0 and then rises."""
    b = ctx.b

    def f(v: Value) -> Value:
        return ctx.node.spec.emit(b, ctx.attrs, 1, v, slope)

    at_ends = ordered(b, f(x.lower), f(x.upper))
    return Interval(b.minimum(at_ends.lower, f(nearest(b, x, 0.0))), at_ends.upper)


def gelu(ctx: RuleContext, x: Interval) -> Interval:
    """Falls to its only minimum and then rises: greatest at an end, least nearest to the minimum."""
    b = ctx.b

    def f(v: Value) -> Value:
        return ctx.node.spec.emit(b, ctx.attrs, 1, v)

    at_ends = ordered(b, f(x.lower), f(x.upper))
    least_at = GELU_LEAST_AT["tanh" if ctx.attrs["approximate"] == "tanh" else "none"]
    return Interval(b.minimum(at_ends.lower, f(nearest(b, x, least_at))), at_ends.upper)


def absolute(ctx: RuleContext, x: Interval) -> Interval:
    """``|x|``."""
    return Interval(smallest_magnitude(ctx.b, x), largest_magnitude(ctx.b, x))


def sign(ctx: RuleContext, x: Interval) -> Interval:
    """-1, 0 or 1, written out so that NaN stays NaN: executors differ in the sign of NaN."""
    b = ctx.b

    def f(v: Value) -> Value:
        return b.where(v > 0.0, 1.0, b.where(v < 0.0, -1.0, v * 0.0))

    return Interval(f(x.lower), f(x.upper))


def _unless_zero_inside(b: Builder, x: Interval, away: Interval) -> Interval:
    """``away`` where ``x`` lies on one side of zero, else everything."""
    inside = b.minimum(x.lower <= 0.0, x.upper >= 0.0)  # of booleans: and
    return Interval(b.where(inside, -math.inf, away.lower), b.where(inside, math.inf, away.upper))


def reciprocal(ctx: RuleContext, x: Interval) -> Interval:
    """``1 / x``: falls on each side of zero; everything where ``x`` holds zero."""
    b = ctx.b
    return _unless_zero_inside(b, x, ordered(b, 1.0 / x.lower, 1.0 / x.upper))


def power(ctx: RuleContext, x: Interval) -> Interval:
    """``x ** exponent`` for a constant exponent.

    Even: of the magnitudes. Odd: rises, or with a negative exponent falls on each side of zero. Fractional: rises or
    falls on x >= 0, and both bounds are NaN where the region reaches below zero.
    """
    b, exponent = ctx.b, float(ctx.attrs["exponent"])

    def f(v: Value) -> Value:
        return ctx.node.spec.emit(b, ctx.attrs, 1, v)

    if exponent % 2.0 == 0.0:
        return ordered(b, f(smallest_magnitude(b, x)), f(largest_magnitude(b, x)))
    at_ends = ordered(b, f(x.lower), f(x.upper))
    if exponent < 0.0 and exponent.is_integer():
        return _unless_zero_inside(b, x, at_ends)
    return at_ends


def _wave(b: Builder, x: Interval, at_ends: Interval, peak: float) -> Interval:
    """Range of a function of period 2 pi between -1 and 1 that has peaks at ``peak`` + 2 pi n, troughs half between.

    Counted in periods, a peak lies inside where a whole number lies between the ends. The ends are moved outwards by
    more than the rounding of that count. Where this finds a peak that is just outside, the function at that end is 1
    up to the square of the move. Where the ends are so large that a period is lost in rounding, it always finds one.
    """
    margin = (largest_magnitude(b, x) + 2 * math.pi) * (4.0 * float(np.finfo(b.dtype.numpy).eps))

    def reaches(point: float) -> Value:
        first = (x.lower - margin - point) * (0.5 / math.pi)
        last = (x.upper + margin - point) * (0.5 / math.pi)
        return b.floor(last) >= -b.floor(-first)

    lower = b.where(reaches(peak + math.pi), -1.0, at_ends.lower)
    return Interval(lower, b.where(reaches(peak), 1.0, at_ends.upper))


def sin(ctx: RuleContext, x: Interval) -> Interval:
    """Sine: 1 and -1 where a peak or trough lies inside, else the function at the ends."""
    b = ctx.b
    return _wave(b, x, ordered(b, b.sin(x.lower), b.sin(x.upper)), math.pi / 2)


def cos(ctx: RuleContext, x: Interval) -> Interval:
    """Cosine, as sine."""
    b = ctx.b
    return _wave(b, x, ordered(b, b.cos(x.lower), b.cos(x.upper)), 0.0)
