"""Relaxations of piecewise linear functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boundflow_core.errors import OptionError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs
from boundflow_crown.lines import Lines
from boundflow_interval import Interval

__all__ = ["SLOPES", "absolute", "leaky_relu", "relu", "relu_chord"]


def relu_chord(b: Builder, x: Interval) -> tuple[Value, Value]:
    """Slope and bias of the upper line of max(x, 0): the chord where l < 0 < u, else the function itself.

    With l' = min(l, 0) and u' = max(u, 0) the chord's slope u' / (u' - l') is 1 where l >= 0 and 0 where u <= 0; where
    both are zero the denominator is replaced by 1. Zhang et al., Efficient Neural Network Robustness Certification with
    General Activation Functions, 2018, table 2.
    """
    low, high = b.minimum(x.lower, 0.0), b.maximum(x.upper, 0.0)
    width = high - low
    slope = high / b.where(width > 0.0, width, 1.0)
    return slope, -(slope * low)


def _adaptive(b: Builder, x: Interval, slope: Value) -> Value:
    """1 where the chord is steeper than 1/2, else 0: the smaller triangle."""
    return b.where(slope > 0.5, slope * 0.0 + 1.0, 0.0)


# How the lower line's slope is chosen where the neuron is unstable; all pass through the origin.
SLOPES = {
    "adaptive": _adaptive,
    "same": lambda b, x, slope: slope,
    "zero": lambda b, x, slope: b.where(x.lower < 0.0, 0.0, slope),
    "one": lambda b, x, slope: b.where(x.upper > 0.0, slope * 0.0 + 1.0, slope),
}


def relu(
    b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]
) -> Lines:
    """max(x, 0): the chord above; below a line a x with 0 <= a <= 1, which lies under both pieces."""
    slope, bias = relu_chord(b, x)
    choice = options.get("slope", "adaptive")
    if choice not in SLOPES:
        raise OptionError(f"slope must be one of {', '.join(SLOPES)}, not {choice!r}")
    return Lines(SLOPES[choice](b, x, slope), None, slope, bias)


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


def absolute(
    b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]
) -> Lines:
    """|x| = 2 max(x, 0) - x."""
    inner = relu(b, x, attrs, (), options)
    assert inner.upper_bias is not None
    return Lines(2.0 * inner.lower_slope - 1.0, None, 2.0 * inner.upper_slope - 1.0, 2.0 * inner.upper_bias)
