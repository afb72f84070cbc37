"""Lines rounded outwards hold for the function itself, in wider arithmetic, and are hardly further from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.types import Attrs, DType
from boundflow_core.rounding import outward_program
from boundflow_crown.relax import RELAXATIONS
from boundflow_interval import Interval

from .lines import Subject

WIDE = np.longdouble
Function = Callable[[Any], Any]


def erf(x: Any) -> Any:
    """To forty digits: 2 / sqrt(pi) e^(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!, terms of one sign."""

    def one(value: Any) -> Any:
        with localcontext() as context:
            context.prec = 40
            top, bottom = value.as_integer_ratio()
            v = Decimal(top) / Decimal(bottom)
            if abs(v) > 8:
                return WIDE(math.copysign(1.0, float(v)))
            term = total = v
            for n in range(1, 400):
                term *= 2 * v * v / (2 * n + 1)
                total += term
            root = Decimal("3.1415926535897932384626433832795028841971693993751").sqrt()
            return WIDE(str(2 / root * (-v * v).exp() * total))

    return np.vectorize(one, otypes=[WIDE])(np.asarray(x, dtype=WIDE))


def by_tanh(x: Any) -> Any:
    return x * (1 + np.tanh(WIDE(math.sqrt(2 / math.pi)) * (x + WIDE(0.044715) * x**3))) / 2


EXACT: Mapping[str, tuple[Subject, Function]] = {
    "sigmoid": (Subject("sigmoid"), lambda x: 1 / (1 + np.exp(-x))),
    "tanh": (Subject("tanh"), np.tanh),
    "erf": (Subject("erf"), erf),
    "gelu": (
        Subject("gelu", {"approximate": "none"}, special=(0.0, math.sqrt(2), -math.sqrt(2), -0.7517915246935645)),
        lambda x: x * (1 + erf(x * WIDE(math.sqrt(0.5)))) / 2,
    ),
    "gelu by tanh": (
        Subject("gelu", {"approximate": "tanh"}, special=(0.0, 1.4185040087908284, -1.4185040087908284)),
        by_tanh,
    ),
    "exp": (Subject("exp"), np.exp),
    "softplus": (Subject("softplus"), lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))),
    "square": (Subject("pow", {"exponent": 2.0}), lambda x: x * x),
    "cube": (Subject("pow", {"exponent": 3.0}), lambda x: x**3),
    "sqrt": (Subject("sqrt", domain=(0.01, 9.0)), np.sqrt),
    "log": (Subject("log", domain=(0.01, 9.0)), np.log),
    "reciprocal": (Subject("reciprocal", domain=(0.01, 9.0)), lambda x: 1 / x),
    "clip": (
        Subject("clip", {"min": -0.3, "max": 0.7}, special=(-0.3, 0.7)),
        lambda x: np.clip(x, WIDE(-0.3), WIDE(0.7)),
    ),
}

# As a part of 1 and of the numbers that enter.
HARDLY = 1e-13
# A derivative of tanh(w), 1 - tanh(w)^2, is off by an ulp of 1, times x w'(x), which is a hundred at 9.
FACTORS = {"gelu by tanh": 100.0}
PLACES = 33


def drawn(subject: Subject) -> tuple[Any, Any]:
    """Points, narrow intervals, wide ones, many of them at places of interest."""
    numbers = np.random.default_rng(0)
    low, high = max(subject.domain[0], -9.0), min(subject.domain[1], 9.0)
    place = np.concatenate([numbers.uniform(low, high, 120), numbers.choice(subject.special, 60)])
    place[120:] += numbers.choice([0.0, 1e-12, -1e-9, 1e-3], 60)
    width = numbers.choice([0.0, 1e-300, 1e-15, 1e-8, 1e-3, 0.3, 2.0, 9.0], len(place))
    lower = np.clip(place - width * numbers.choice([0.0, 1.0, 0.5, 0.3], len(place)), low, high)
    return lower, np.clip(lower + width, lower, high)


@pytest.mark.parametrize("name", EXACT)
def test_lines_hold_in_wider_arithmetic(name: str) -> None:
    subject, exact = EXACT[name]
    lower, upper = drawn(subject)
    share = np.linspace(0, 1, PLACES)
    x = np.clip(lower[:, None] + (upper - lower)[:, None] * share, lower[:, None], upper[:, None])
    near = [s + d for s in subject.special for d in (-1e-7, 0.0, 1e-7)]
    x = np.concatenate([x, np.clip(np.array(near)[None], lower[:, None], upper[:, None])], axis=1)
    b = Builder(DType.FLOAT64)
    interval = Interval(b.input("l", lower.shape), b.input("u", upper.shape))
    place = b.input("x", x.shape)
    lines = RELAXATIONS[subject.op](b, interval, Attrs(subject.attrs), (), {})
    assert lines.lower_bias is not None and lines.upper_bias is not None
    parts = [
        b.reshape(part, (len(lower), 1))
        for part in (lines.lower_slope, lines.lower_bias, lines.upper_slope, lines.upper_bias)
    ]
    program = b.finish({"lower": place * parts[0] + parts[1], "upper": place * parts[2] + parts[3]})
    given = {"l": lower, "u": upper, "x": x}
    plain, outward = evaluate(program, given), evaluate(outward_program(program), given)
    true = exact(x.astype(WIDE))
    assert np.all(np.isfinite(outward["lower"])) and np.all(np.isfinite(outward["upper"]))
    assert np.all(outward["lower"].astype(WIDE) <= true)
    assert np.all(true <= outward["upper"].astype(WIDE))
    size = 1 + np.abs(plain["lower"]) + np.abs(plain["upper"]) + np.abs(x)
    steep = 1 + np.maximum(np.abs(evaluate_slope(subject, lower, upper)), 1)[:, None]
    for side in ("lower", "upper"):
        moved = np.abs(outward[side] - plain[side])
        assert np.all(moved <= HARDLY * FACTORS.get(name, 1.0) * size * steep)


def evaluate_slope(subject: Subject, lower: Any, upper: Any) -> Any:
    """The steeper of both lines."""
    low, _, high, _ = subject.lines(lower, upper)
    return np.maximum(np.abs(low), np.abs(high))
