"""Relaxations of smooth functions that are convex or concave on all their domain, except powers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs
from boundflow_crown.lines import Lines
from boundflow_crown.relax.curves import concave, convex, middle, ordered
from boundflow_interval import Interval

__all__ = ["exp", "log", "softplus", "sqrt"]


def exp(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """Convex. The tangent is at min(middle, l + 0.99).

    Further right the tangent e^t (x - t + 1) would be negative at l, and on wide intervals by more than e^u: least in
    area, but no use to what comes after, such as the division of a softmax. Shi et al., Robustness Verification for
    Transformers, 2020, appendix C. Above the interval's overflow no line is finite.
    """
    x = ordered(b, x)
    return convex(b, x, b.exp, b.exp, tangent_at=b.minimum(middle(x), x.lower + 0.99))


def softplus(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """log(1 + e^x): convex, with the sigmoid as derivative."""

    def f(v: Value) -> Value:
        return b.maximum(v, 0.0) + b.log1p(b.exp(-b.abs(v)))

    return convex(b, ordered(b, x), f, b.sigmoid)


def log(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """Concave on x > 0. From l = 0 no line below is finite; NaN where l < 0."""
    return concave(b, ordered(b, x), b.log, lambda v: 1.0 / v)


def sqrt(b: Builder, x: Interval, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Lines:
    """Concave on x >= 0; NaN where l < 0."""
    return concave(b, ordered(b, x), b.sqrt, lambda v: 0.5 / b.sqrt(v))
