"""Relaxations of piecewise linear functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from boundflow_core.errors import OptionError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs
from boundflow_crown.lines import Lines
from boundflow_crown.relax.curves import (
    above,
    below,
    chord_slope,
    chosen,
    middle,
    ordered,
    positive,
    settled,
    within,
)
from boundflow_interval import Interval

__all__ = ["SLOPES", "SLOPE_RANGES", "absolute", "clip", "leaky_relu", "relu", "relu_chord"]


def relu_chord(b: Builder, x: Interval) -> tuple[Value, Value]:
    """Slope and bias of the upper line of max(x, 0): the chord where l < 0 < u, else the function itself.

    With l' = min(l, 0) and u' = max(u, 0) the chord's slope u' / (u' - l') is 1 where l >= 0 and 0 where u <= 0. The
    latter is said beforehand: where both are zero the denominator is replaced by a tiny number, and nothing exact is
    known of the quotient. Halves are divided: if the width overflowed, the slope would be 0 and the line wrong. Where
    a bound is infinite, one of the two is NaN. Zhang et al., Efficient Neural Network Robustness Certification with
    General Activation Functions, 2018, table 2.
    """
    low, high = b.minimum(x.lower, 0.0), b.maximum(x.upper, 0.0)
    half = high * 0.5
    slope = b.where(x.upper <= 0.0, 0.0, half / positive(b, half - low * 0.5))
    return slope, -(slope * low)


def _adaptive(b: Builder, x: Interval, slope: Value) -> Value:
    """1 where the chord is steeper than 1/2, else 0: the smaller triangle. Both lie below: a free choice."""
    zero = slope * 0.0  # NaN stays NaN
    return b.where(b.compare(slope, 0.5, "gt", free=True), zero + 1.0, zero)


# How the lower line's slope is chosen where the neuron is unstable; all pass through the origin.
SLOPES: Mapping[str, Callable[[Builder, Interval, Value], Value]] = {
    "adaptive": _adaptive,
    "same": lambda b, x, slope: slope,
    "zero": lambda b, x, slope: b.where(x.lower < 0.0, slope * 0.0, slope),
    "one": lambda b, x, slope: b.where(x.upper > 0.0, slope * 0.0 + 1.0, slope),
}


def relu(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """max(x, 0): the chord above; below a line a x with 0 <= a <= 1, which lies under both pieces."""
    slope, bias = relu_chord(b, x)
    choice = options.get("slope", "adaptive")
    if choice not in SLOPES:
        raise OptionError(f"slope must be one of {', '.join(SLOPES)}, not {choice!r}")
    return Lines(SLOPES[choice](b, x, slope), None, slope, bias)


def _relu_slopes(b: Builder, x: Interval, constants: tuple[Value, ...]) -> Interval:
    """0 and 1 where l < 0 < u, else both that of the function; NaN where a bound is."""
    slope, _ = relu_chord(b, x)
    undecided = b.minimum(x.lower < 0.0, x.upper > 0.0)
    return Interval(b.where(undecided, 0.0, slope), b.where(undecided, 1.0, slope))


def leaky_relu(
    b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]
) -> Lines:
    """x where x >= 0, else s x. Written as s x + (1 - s) max(x, 0): where s > 1 the lines of the relu change places."""
    (s,) = constants
    inner = relu(b, x, attrs, (), options)
    rest = 1.0 - s
    assert inner.upper_bias is not None
    zero = inner.upper_bias * 0.0
    convex = rest >= 0.0
    low_slope, high_slope = s + rest * inner.lower_slope, s + rest * inner.upper_slope
    high_bias = rest * inner.upper_bias
    return Lines(
        b.where(convex, low_slope, high_slope),
        b.where(convex, zero, high_bias),
        b.where(convex, high_slope, low_slope),
        b.where(convex, high_bias, zero),
    )


def absolute(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """|x| = 2 max(x, 0) - x."""
    inner = relu(b, x, attrs, (), options)
    assert inner.upper_bias is not None
    return Lines(2.0 * inner.lower_slope - 1.0, None, 2.0 * inner.upper_slope - 1.0, 2.0 * inner.upper_bias)


def _leaky_relu_slopes(b: Builder, x: Interval, constants: tuple[Value, ...]) -> Interval:
    """As s x + (1 - s) max(x, 0), where s <= 1."""
    (s,), inner = constants, _relu_slopes(b, x, ())
    return Interval(s + (1.0 - s) * inner.lower, s + (1.0 - s) * inner.upper)


def _absolute_slopes(b: Builder, x: Interval, constants: tuple[Value, ...]) -> Interval:
    inner = _relu_slopes(b, x, ())
    return Interval(2.0 * inner.lower - 1.0, 2.0 * inner.upper - 1.0)


# For functions whose lower line may be any through the origin with a slope in some interval: its ends. A leaky relu is
# one of them where its own slope is at most 1.
SLOPE_RANGES: Mapping[str, Callable[[Builder, Interval, tuple[Value, ...]], Interval]] = {
    "relu": _relu_slopes,
    "leaky_relu": _leaky_relu_slopes,
    "abs": _absolute_slopes,
}


def clip(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """x limited to [min, max]: the sides over the middle of the convex hull of the graph, so those of least area.

    With the kink at max moved into [l, u] the hull's upper side is the chord from l to the kink and then level; the
    lower side is level up to the kink at min and then the chord to u. For min = 0, max = inf these are the lines of the
    relu with the adaptive slope.
    """
    x = ordered(b, x)
    l, u, centre = x.lower, x.upper, middle(x)  # noqa: E741

    def f(v: Value) -> Value:
        return within(b, v, attrs["min"], attrs["max"])

    low, high = f(l), f(u)
    first, last = within(b, b.constant(attrs["min"]), l, u), within(b, b.constant(attrs["max"]), l, u)
    at_first, at_last = f(first), f(last)
    rising = within(b, chord_slope(b, Interval(l, last), low, at_last), 0.0, 1.0)
    upper = above(b, chosen(b, b.where(centre >= last, 0.0, rising), 0.0), ((l, low), (last, at_last), (u, high)))
    rising = within(b, chord_slope(b, Interval(first, u), at_first, high), 0.0, 1.0)
    lower = below(b, chosen(b, b.where(centre <= first, 0.0, rising), 0.0), ((l, low), (first, at_first), (u, high)))
    return settled(b, lower, upper, Interval(low, high))
