"""The state of the domain, and small tools that the rules share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from boundflow_core.extension import BallValues
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value

__all__ = ["Interval", "Operand", "ends", "nearest", "ordered", "smallest_magnitude"]


@dataclass(frozen=True)
class Interval:
    """All tensors between ``lower`` and ``upper``, element by element; both are [B, *sample].

    A bound that is not finite claims nothing. NaN in both says that the region leaves the domain of some function, such
    as that of the logarithm; every rule hands NaN on.

    Attributes:
        ball: balls that the tensors lie in: those of the region, as long as elements were moved at most. Rules may
            ignore them.
    """

    lower: Value
    upper: Value
    ball: BallValues | None = None


# What a rule is handed: an interval, or the value of a constant, which has no batch axis.
Operand = Interval | Value


def ends(operand: Operand) -> tuple[Value, Value]:
    """Lower and upper end; both are the value itself where the operand is a constant."""
    return (operand.lower, operand.upper) if isinstance(operand, Interval) else (operand, operand)


def ordered(b: Builder, one: Value, other: Value) -> Interval:
    """The interval between two values in either order; NaN where one is NaN."""
    return Interval(b.minimum(one, other), b.maximum(one, other))


def nearest(b: Builder, x: Interval, point: float) -> Value:
    """The element of ``x`` that is nearest to ``point``."""
    return b.minimum(b.maximum(x.lower, point), x.upper)


def smallest_magnitude(b: Builder, x: Interval) -> Value:
    """The least |v| for v in ``x``."""
    return b.maximum(b.maximum(x.lower, -x.upper), 0.0)


def largest_magnitude(b: Builder, x: Interval) -> Value:
    """The largest |v| for v in ``x``."""
    return b.maximum(-x.lower, x.upper)


def increasing(b: Builder, function: Callable[[Value], Value], x: Interval) -> Interval:
    """Range of a function that increases on all its domain.

    The ends are put in order, as a computed function may decrease by an ulp where the true one increases. Where one end
    lies outside the domain, so that the function gives NaN, both bounds are NaN.
    """
    return ordered(b, function(x.lower), function(x.upper))
