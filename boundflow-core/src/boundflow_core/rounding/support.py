"""What the rules of rounding errors share: a computed value with what it may be off by, and numbers rounded up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs

__all__ = [
    "TINY",
    "UNIT",
    "Near",
    "Rule",
    "gamma",
    "largest",
    "rounded",
    "terms_of",
    "total",
    "up",
]

UNIT = 2.0**-53
"""Unit roundoff of float64: one operation is off by at most this part of its result."""

TINY = 1e-290
"""More than all that underflow can take from a result, however many terms it has (2^-1074 each)."""

MANY = 1 << 26
"""Terms that a sum over an axis of symbolic length is taken to have at most."""


@dataclass(frozen=True)
class Near:
    """A computed value and its error.

    Attributes:
        value: what the program computes.
        error: of floats, ``|value - exact| <= error``, of the same type; of booleans, where the exact one may be
            another; None: ``value`` is exact.
    """

    value: Value
    error: Value | None = None


# rule(b, attrs, operands, result) -> error of the result, broadcastable to it, or None: it is exact
Rule = Callable[[Builder, Attrs, Sequence[Near], Value], "Value | None"]


def up(b: Builder, error: Value) -> Value:
    """``error``, computed with a few rounded operations on numbers of one sign, not below what it should be."""
    return b.add(b.mul(error, 1.0 + 2.0**-40), TINY)


def rounded(b: Builder, result: Value, units: float = 1.0) -> Value:
    """What rounding the ``result`` of one operation comes to."""
    return b.mul(b.abs(result), units * UNIT)


def total(b: Builder, *errors: Value | None) -> Value | None:
    """The sum, where None is nothing."""
    found = [error for error in errors if error is not None]
    if not found:
        return None
    result = found[0]
    for error in found[1:]:
        result = b.add(result, error)
    return result


def largest(b: Builder, *errors: Value | None) -> Value | None:
    """The largest, where None is nothing."""
    found = [error for error in errors if error is not None]
    if not found:
        return None
    result = found[0]
    for error in found[1:]:
        result = b.maximum(result, error)
    return result


def gamma(count: int) -> float:
    """``n u / (1 - n u)``: what a sum of ``count`` products is off by, as a part of the sum of their sizes, whatever
    the order of summation (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1)."""
    part = count * UNIT
    return float(np.nextafter(part / (1 - part) * (1 + 4 * UNIT), math.inf))


def terms_of(*dims: object) -> int:
    """How many terms a sum over axes of these lengths has, at most."""
    count = 1
    for dim in dims:
        count *= dim if isinstance(dim, int) else MANY
    return min(max(count, 1), 1 << 40)
