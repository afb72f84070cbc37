"""Relaxations of step functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs
from boundflow_crown.lines import Lines
from boundflow_crown.relax.curves import Line, both, known, middle, ordered
from boundflow_interval import Interval

__all__ = ["floor", "sign"]


def sign(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """-1, 0 or 1: exact on one side of zero; the line below is the mirrored line above."""
    x = ordered(b, x)
    slope, bias = _sign_upper(b, Interval(-x.upper, -x.lower))
    return Lines(slope, -bias, *_sign_upper(b, x))


def _sign_upper(b: Builder, x: Interval) -> Line:
    """For l < 0 < u a line above is at least 1 at zero and at least -1 at l.

    The least of these at the middle, so in area, is 1, or where the middle is left of zero that through (l, -1) and
    (0, 1), of slope -2 / l. For u = 0 it is that through (l, -1) and (0, 0).
    """
    l, u = x.lower, x.upper  # noqa: E741
    # Next to zero the slope overflows; no line is lost by taking a lower one, through (0, 1).
    rise = b.minimum(-1.0 / b.where(l < 0.0, l, -1.0), 1e30)
    left = b.where(u < 0.0, -1.0, b.where(u > 0.0, 1.0, 0.0))
    right = b.where(both(b, l <= 0.0, u <= 0.0), 0.0, 1.0)
    steep = both(b, l < 0.0, both(b, u >= 0.0, middle(x) < 0.0))
    slope = b.where(steep, b.where(u > 0.0, 2.0 * rise, rise), 0.0)
    bias = b.where(l < 0.0, left, right)
    return b.where(known(b, l), slope, math.nan), b.where(known(b, l), bias, math.nan)


def floor(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """The largest integer not above x: exact between two integers; else sides of the convex hull of the graph.

    With the first and last integers n1 = floor(l) + 1 and n2 = floor(u) of (l, u]: above are the lines through
    (l, n1 - 1) and (n1, n1), then y = x up to (n2, n2), then y = n2. Below are y = n1 - 1 up to n1, then y = x - 1 up
    to n2, then the line through (n2, n2 - 1) and (u, n2). The side over the middle has the least area. Where integers
    are no longer told apart, or the interval is not finite, x - 1 <= floor(x) <= x.
    """
    x = ordered(b, x)
    l, u, centre = x.lower, x.upper, middle(x)  # noqa: E741
    first, last = b.floor(l) + 1.0, b.floor(u)
    jumps = first <= last
    between = b.where(first < last, 1.0, 0.0)
    is_left, is_right = centre < first, centre > last
    steep_left = 1.0 / b.where(both(b, jumps, is_left), first - l, 1.0)
    steep_right = 1.0 / b.where(both(b, jumps, is_right), u - last, 1.0)
    upper_slope = b.where(is_left, steep_left, b.where(is_right, 0.0, between))
    upper_bias = b.where(is_left, first - steep_left * first, last - b.where(is_right, 0.0, between) * last)
    lower_slope = b.where(is_left, 0.0, b.where(is_right, steep_right, between))
    lower_bias = b.where(is_left, first - 1.0, last - 1.0 - b.where(is_right, steep_right, between) * last)
    # Adding 1 must be exact, and steep slopes must leave the bias its digits.
    exact = b.maximum(b.abs(l), b.abs(u)) < 1e-2 / float(np.finfo(b.dtype.numpy).eps)
    fine = both(b, exact, b.maximum(steep_left, steep_right) < 1e30)

    def pick(jump: Value, constant: Value | float, coarse: float) -> Value:
        value = b.where(fine, b.where(jumps, jump, constant), coarse)
        return b.where(known(b, l), value, math.nan)

    return Lines(
        pick(lower_slope, 0.0, 1.0),
        pick(lower_bias, last, -1.0),
        pick(upper_slope, 0.0, 1.0),
        pick(upper_bias, last, 0.0),
    )
