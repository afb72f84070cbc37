"""Rounding errors of elementwise primitives: ``rule(b, attrs, operands, result)``, see :mod:`.support`.

With ``e`` the error of an operand ``x``, the exact result lies where the function takes ``[x - e, x + e]``; rounding
the result comes on top. Error formulas: Higham, Accuracy and Stability of Numerical Algorithms, 2002,
section 3.3 (running error analysis); the functions by their Lipschitz constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from boundflow_core.errors import IRError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, DType
from boundflow_core.rounding.support import UNIT, Near, Rule, largest, rounded, total, up

__all__ = ["FUNCTIONS", "cast", "compare", "difference", "div", "extremum", "floor", "mul", "pow_", "same", "sign"]
__all__ += ["where"]

FUNCTION_UNITS = 16.0
"""Eight units in the last place: more than the C library, NumPy and torch's vector functions are off by."""


def difference(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    """Of sums and differences; of integers they are exact."""
    if not y.type.dtype.is_float:
        _require_exact(xs)
        return None
    return up(b, _sum(b, xs[0].error, xs[1].error, rounded(b, y)))


def mul(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    if not y.type.dtype.is_float:
        _require_exact(xs)
        return None
    one, other = xs
    parts = [rounded(b, y)]
    if one.error is not None:
        parts.append(b.mul(one.error, b.abs(other.value)))
    if other.error is not None:
        parts.append(b.mul(other.error, b.abs(one.value)))
    if one.error is not None and other.error is not None:
        parts.append(b.mul(one.error, other.error))
    return up(b, _sum(b, *parts))


def div(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    """(x + d) / (y + f) - x / y = (d - (x / y) f) / (y + f)."""
    one, other = xs
    size, divisor = b.abs(y), b.abs(other.value)
    parts = [one.error] if one.error is not None else []
    if other.error is not None:
        parts.append(b.mul(size, other.error))
        divisor = b.sub(divisor, other.error)
    if not parts:
        return up(b, rounded(b, y))
    error = up(b, b.add(b.div(up(b, _sum(b, *parts)), divisor), rounded(b, y)))
    # A divisor of unknown sign gives anything at all.
    return error if other.error is None else b.where(b.compare(divisor, 0.0, "gt"), error, math.inf)


def same(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    """Of what changes no number, and no distance between numbers: signs and sizes."""
    return xs[0].error


def extremum(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    """Of maxima and minima; the error of the operand that is taken, where there is no doubt which one is. A free
    choice is what it is."""
    one, other = xs
    if attrs.get("free"):
        return None
    if y.type.dtype is DType.BOOL:
        return largest(b, one.error, other.error)
    if one.error is None and other.error is None:
        return None
    apart = b.compare(b.abs(b.sub(one.value, other.value)), _between(b, one, other), "gt")
    first = b.compare(one.value, y, "eq")
    zero = b.constant(0.0)
    chosen = b.where(first, one.error if one.error is not None else zero, other.error or zero)
    either = largest(b, one.error, other.error)
    assert either is not None
    return b.where(apart, chosen, either)


def compare(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    """In doubt where both sides may be equal. A value compared with itself tells whether it is NaN."""
    one, other = xs
    if attrs.get("free") or (one.error is None and other.error is None):
        return None
    if one.value is other.value:
        assert one.error is not None
        return _not(b, b.compare(one.error, math.inf, "lt"))
    apart = b.compare(b.abs(b.sub(one.value, other.value)), _between(b, one, other), "gt")
    return _not(b, apart)


def where(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    """The error of what is taken; where the condition is in doubt, what both are apart as well."""
    condition, one, other = xs
    is_bool = y.type.dtype is DType.BOOL
    zero = _false(b) if is_bool else b.cast(b.constant(0.0), y.type.dtype)
    error = None
    if one.error is not None or other.error is not None:
        error = b.where(condition.value, one.error or zero, other.error or zero)
    if condition.error is None:
        return error
    if is_bool:
        return largest(b, condition.error, error)
    if not y.type.dtype.is_float:
        raise IRError("an integer depends on a comparison that rounding may change")
    either = largest(b, one.error, other.error)
    gap = b.abs(b.sub(one.value, other.value))
    return b.where(condition.error, up(b, _sum(b, either, gap, rounded(b, gap))), zero if error is None else error)


def cast(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    (x,) = xs
    if x.error is None:
        return None
    source, target = x.value.type.dtype, y.type.dtype
    if source is DType.BOOL and target.is_float:
        return b.cast(x.error, target)
    if source is target:
        return x.error
    raise IRError(f"a {source} in doubt is cast to {target}")


def sign(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    error = xs[0].error
    if error is None:
        return None
    return b.where(b.compare(b.abs(xs[0].value), error, "gt"), 0.0, 2.0)


def floor(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    x, error = xs[0].value, xs[0].error
    if error is None:
        return None
    wide = up(b, b.add(error, rounded(b, x, 2.0)))
    return b.sub(b.floor(b.add(x, wide)), b.floor(b.sub(x, wide)))


def pow_(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    """By the largest slope p |t|^(p - 1) between x - e and x + e."""
    x, error = xs[0].value, xs[0].error
    exponent = float(attrs["exponent"])
    own = rounded(b, y, FUNCTION_UNITS)
    if error is None or exponent == 0:
        return up(b, own)
    size = b.abs(x)
    if exponent >= 1:
        slope = b.pow(up(b, b.add(size, error)), exponent - 1)
        return up(b, b.add(b.mul(b.mul(slope, error), abs(exponent) * (1 + 1e-12)), own))
    least = b.sub(b.sub(size, error), rounded(b, size, 4.0))
    slope = b.pow(least, exponent - 1)
    moved = up(b, b.add(b.mul(b.mul(slope, error), abs(exponent) * (1 + 1e-12)), own))
    return b.where(b.compare(least, 0.0, "gt"), moved, math.inf)


# -- functions: rule(b, x, error, result) -> what the error of the operand makes ------------------------------------


def _lipschitz(constant: float) -> Callable[[Builder, Value, Value, Value], Value]:
    return lambda b, x, error, y: b.mul(error, constant)


def _exp(b: Builder, x: Value, error: Value, y: Value) -> Value:
    """exp(x + e) - exp(x) = exp(x) (exp(e) - 1) <= exp(x) e exp(e)."""
    return b.mul(b.mul(y, error), b.exp(error))


def _log(b: Builder, x: Value, error: Value, y: Value) -> Value:
    """The slope is at most 1 / (x - e)."""
    least = b.sub(x, error)
    return b.where(b.compare(least, 0.0, "gt"), b.div(error, least), math.inf)


def _log1p(b: Builder, x: Value, error: Value, y: Value) -> Value:
    return _log(b, b.add(x, 1.0), b.add(error, rounded(b, b.add(x, 1.0), 2.0)), y)


def _sqrt(b: Builder, x: Value, error: Value, y: Value) -> Value:
    """|sqrt(x + d) - sqrt(x)| = |d| / (sqrt(x + d) + sqrt(x)), and at most sqrt(|d|)."""
    return b.where(b.compare(x, error, "gt"), b.div(error, y), b.sqrt(error))


def _sigmoid(b: Builder, x: Value, error: Value, y: Value) -> Value:
    """The slope y (1 - y) changes by a factor of at most exp(e) over a distance e, and is at most 1/4."""
    slope = b.add(b.mul(b.abs(y), b.abs(b.sub(1.0, y))), FUNCTION_UNITS * UNIT)
    return b.mul(b.minimum(b.mul(slope, b.exp(error)), 0.25), error)


def _tanh(b: Builder, x: Value, error: Value, y: Value) -> Value:
    """The slope 1 - y^2 changes by a factor of at most exp(2 e) over a distance e, and is at most 1."""
    slope = b.add(b.abs(b.sub(1.0, b.mul(y, y))), 2 * FUNCTION_UNITS * UNIT)
    return b.mul(b.minimum(b.mul(slope, b.exp(b.mul(error, 2.0))), 1.0), error)


FUNCTIONS: Mapping[str, Callable[[Builder, Value, Value, Value], Value]] = {
    "exp": _exp,
    "log": _log,
    "log1p": _log1p,
    "sqrt": _sqrt,
    "tanh": _tanh,
    "sin": _lipschitz(1.0),
    "cos": _lipschitz(1.0),
    "sigmoid": _sigmoid,
    "erf": _lipschitz(1.13),  # 2 / sqrt(pi)
}


def function(name: str) -> Rule:
    """The rule of one of :data:`FUNCTIONS`."""

    def rule(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
        (x,) = xs
        own = rounded(b, y, FUNCTION_UNITS)
        return up(b, own if x.error is None else b.add(up(b, FUNCTIONS[name](b, x.value, x.error, y)), own))

    return rule


def _sum(b: Builder, *parts: Value | None) -> Value:
    result = total(b, *parts)
    assert result is not None
    return result


def _between(b: Builder, one: Near, other: Near) -> Value:
    """How far apart two computed values must be for the exact ones to lie the same way round."""
    together = total(b, one.error, other.error)
    assert together is not None
    size = b.add(b.abs(one.value), b.abs(other.value))
    return up(b, b.add(together, rounded(b, size)))


def _require_exact(xs: Sequence[Near]) -> None:
    if any(x.error is not None for x in xs):
        raise IRError("an integer depends on what rounding may change")


def _false(b: Builder) -> Value:
    return b.compare(b.constant(0.0), 1.0, "gt")


def _not(b: Builder, condition: Value) -> Value:
    return b.where(condition, _false(b), b.compare(b.constant(0.0), 1.0, "lt"))
