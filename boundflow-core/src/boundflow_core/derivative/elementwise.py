"""Derivatives of the elementwise primitives: ``rule(b, attrs, inputs, output, grad)``, see :mod:`.support`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from boundflow_core.derivative.support import Gradients, number
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs

__all__ = ["UNARY", "add", "cast", "div", "maximum", "minimum", "mul", "nothing", "pow_", "sub", "unary", "where"]

Rule = Callable[[Builder, Attrs, Sequence[Value], Value, Value], Gradients]


def nothing(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    """Constant between its jumps, or of no float result."""
    return [None] * len(xs)


def unary(name: str) -> Rule:
    """The rule of an elementwise function of one operand, from ``UNARY``."""
    return lambda b, attrs, xs, y, g: [UNARY[name](b, xs[0], y, g)]


def _log1p(b: Builder, x: Value, y: Value, g: Value) -> Value:
    return g / (number(b, 1.0, x) + x)


def _tanh(b: Builder, x: Value, y: Value, g: Value) -> Value:
    """1 - tanh^2."""
    return g * (number(b, 1.0, y) - y * y)


def _sigmoid(b: Builder, x: Value, y: Value, g: Value) -> Value:
    """s (1 - s)."""
    return g * (y * (number(b, 1.0, y) - y))


def _erf(b: Builder, x: Value, y: Value, g: Value) -> Value:
    """2 / sqrt(pi) exp(-x^2)."""
    return g * (number(b, 2 / math.sqrt(math.pi), x) * b.exp(-(x * x)))


# gradient of x, from (b, x, y, gradient of y)
UNARY: dict[str, Callable[[Builder, Value, Value, Value], Value]] = {
    "neg": lambda b, x, y, g: -g,
    "abs": lambda b, x, y, g: g * b.sign(x),  # 0 at 0
    "exp": lambda b, x, y, g: g * y,
    "log": lambda b, x, y, g: g / x,
    "log1p": _log1p,
    "sqrt": lambda b, x, y, g: g / (y + y),
    "tanh": _tanh,
    "sin": lambda b, x, y, g: g * b.cos(x),
    "cos": lambda b, x, y, g: -(g * b.sin(x)),
    "sigmoid": _sigmoid,
    "erf": _erf,
}


def pow_(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    (x,), p = xs, attrs["exponent"]
    if p == 0.0:
        return [None]
    if p == 1.0:
        return [g]
    slope = x if p == 2.0 else b.pow(x, p - 1.0)
    return [g * (number(b, p, x) * slope)]


def add(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    return [g, g]


def sub(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    return [g, -g]


def mul(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    return [g * xs[1], g * xs[0]]


def div(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    """d(x/z) = dx/z - (x/z) dz/z."""
    top = g / xs[1]
    return [top, -(top * y)]


def maximum(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    """To the larger operand; half to each of equal ones, so that max(x, z) + min(x, z) has the gradient of x + z."""
    return _extremum(b, xs, g, b.compare(xs[0], xs[1], "lt"), b.compare(xs[1], xs[0], "lt"))


def minimum(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    return _extremum(b, xs, g, b.compare(xs[1], xs[0], "lt"), b.compare(xs[0], xs[1], "lt"))


def _extremum(b: Builder, xs: Sequence[Value], g: Value, first_loses: Value, second_loses: Value) -> Gradients:
    zero = number(b, 0.0, g)
    shared = b.where(b.compare(xs[0], xs[1], "eq"), g * number(b, 0.5, g), g)
    return [b.where(first_loses, zero, shared), b.where(second_loses, zero, shared)]


def where(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    zero = number(b, 0.0, g)
    return [None, b.where(xs[0], g, zero), b.where(xs[0], zero, g)]


def cast(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    """Rounding counts as no change; whole numbers and booleans have no gradient."""
    kind = xs[0].type.dtype
    return [b.cast(g, kind) if kind.is_float else None]
