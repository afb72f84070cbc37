"""The conformance kit fails if one soundness-relevant line of a rule is another. Each mutation names its line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from boundflow_core.testing import ConformanceError, Expectations, check_op_rule, check_relaxation, mutated
from boundflow_crown import composites as crown_composites
from boundflow_crown.relax import RELAXATIONS, curves, piecewise, s_shaped
from boundflow_crown.rules import affine, extremum, product
from boundflow_interval import Interval, composites
from boundflow_interval.rules import arithmetic, functions, softmax

Check = Callable[[], None]


def ibp(op: str) -> Check:
    return lambda: check_op_rule(op, "ibp", executors=(), dtypes=("float64",), examples=60, shrink=False)


def crown(op: str) -> Check:
    expect = Expectations(monotone=False)
    # Without intervals to fall back to, and with their bounds inside alone.
    options = {"intersect": False}
    return lambda: check_op_rule(
        op, "crown-ibp", executors=(), dtypes=("float64",), expect=expect, options=options, examples=60, shrink=False
    )


def lines(op: str) -> Check:
    def of_op(b, lower, upper):
        found = RELAXATIONS[op](b, Interval(lower, upper), {}, (), {})
        return found.lower_slope, found.lower_bias, found.upper_slope, found.upper_bias

    return lambda: check_relaxation(op, of_op, examples=80, shrink=False)


MUTATIONS = [
    (composites._centre_radius, "half_upper - half_lower, b.abs(weight)", "half_upper - half_lower, weight",
     ibp("linear")),
    (arithmetic.mul, "return ordered(ctx.b, x.lower * y, x.upper * y)", "return Interval(x.lower * y, x.upper * y)",
     ibp("mul")),
    (arithmetic.products, "b.minimum(first.lower, second.lower)", "first.lower", ibp("mul")),
    (functions.leaky_relu, "b.minimum(at_ends.lower, f(nearest(b, x, 0.0)))", "at_ends.lower", ibp("leaky_relu")),
    (functions._unless_zero_inside, "b.where(inside, math.inf, away.upper)", "away.upper", ibp("reciprocal")),
    (softmax.softmax, "x.lower - _others(b, x.upper, axis)", "x.lower - _others(b, x.lower, axis)", ibp("softmax")),
    (affine.linear, "Step({0: below}, ctx.rows.sum(b.reshape(bias, rows.shape[:-1])))", "Step({0: below})",
     crown("linear")),
    (product.mul, " + b.abs(rows) * lift(r * s)", "", crown("mul")),
    (extremum._through, "ctx.rows.sum(minus * bias)", "ctx.rows.sum(plus * bias)", crown("reduce_max")),
    (crown_composites._relu_backsubstitute, "_dot(b, below, upper_bias,", "_dot(b, above, upper_bias,", crown("relu")),
    (crown_composites._concretize_box, "- _dot(b, b.abs(rows), radius, front)", "- _dot(b, rows, radius, front)",
     crown("linear")),
    (piecewise.relu_chord, "-(slope * low)", "slope * 0.0", lines("relu")),
    (piecewise.relu_chord, "return slope, -(slope * low)", "return slope, slope * 0.0", crown("relu")),
    (curves.above, "bias = b.maximum(bias, other)", "bias = b.minimum(bias, other)", lines("sin")),
    (s_shaped._upper, "return slope, b.maximum(bias, b.where(u > 0.0, highest, bias))", "return slope, bias",
     lines("sigmoid")),
    (curves.convex, "below(b, derivative(place), ((place, f(place)), *ends))",
     "(derivative(place), high - derivative(place) * x.upper)", lines("exp")),
]  # fmt: skip
NAMES = [f"{function.__name__}-{text}"[:60] for function, text, *_ in MUTATIONS]


@pytest.mark.slow
@pytest.mark.parametrize(("function", "text", "instead", "check"), MUTATIONS, ids=NAMES)
def test_the_kit_sees_the_mutation(function, text: str, instead: str, check: Check) -> None:
    with mutated(function, text, instead), pytest.raises(ConformanceError) as failure:
        check()
    assert failure.value.law != "expected failure"


@pytest.mark.slow
@pytest.mark.parametrize("check", [*map(ibp, ("linear", "mul", "leaky_relu", "reciprocal", "softmax")),
                                   *map(crown, ("linear", "mul", "reduce_max", "relu")),
                                   *map(lines, ("relu", "sigmoid", "sin"))])  # fmt: skip
def test_without_mutations_it_passes(check: Check) -> None:
    check()


def test_a_mutation_of_a_line_that_is_gone_is_an_error() -> None:
    with pytest.raises(LookupError, match="0 times"), mutated(product.mul, "no such line", ""):
        pass
