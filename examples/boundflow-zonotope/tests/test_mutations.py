"""The conformance kit fails if one soundness-relevant line of the domain is another. Each mutation names its line."""

from __future__ import annotations

import pytest
from boundflow_zonotope import domain, methods

from boundflow_core.testing import ConformanceError, Expectations, check_op_rule, mutated

MUTATIONS = [
    (domain.relu_line, "slope * lower * -0.5", "slope * lower * -0.25", "relu"),
    (domain.scaled, "b.abs(slope) * x.error + error", "b.abs(slope) * x.error", "relu"),
    (domain.named, "b.reshape(x.error, (batch, 1, *shape))", "b.reshape(x.error * 0.5, (batch, 1, *shape))", "linear"),
    (domain.affine, "b.abs(weight) if weight.type.dtype.is_float else weight", "weight", "mul"),
    (domain.affine, "x.upper * 0.5 - x.lower * 0.5", "x.upper * 0.25 - x.lower * 0.25", "linear"),
    (domain.product, "for v in (x, y)))", "for v in (x, y))) * 0.0", "mul"),
    (domain.absolute, "b.maximum(-x.lower, x.upper)", "x.upper", "abs"),
    (domain.leaky_relu, "b.minimum(b.minimum(low, high), least)", "b.minimum(low, high)", "leaky_relu"),
    (domain.reciprocal, "x.lower * x.upper > 0.0", "x.lower * x.upper < math.inf", "reciprocal"),
    (domain.boxed, "0.5 * (high - low)", "0.25 * (high - low)", "reduce_max"),
    (methods.zonotope, "on_rows(x.error, b.abs(rows))", "on_rows(x.error, rows)", "relu"),
]  # fmt: skip


def check(op: str) -> None:
    for options in ({}, {"order": 0}):
        check_op_rule(op, "zonotope", executors=(), dtypes=("float64",), expect=Expectations(monotone=False),
                      options=options, examples=60, shrink=False)  # fmt: skip


@pytest.mark.parametrize(("function", "text", "instead", "op"), MUTATIONS, ids=[m[0].__name__ for m in MUTATIONS])
def test_the_kit_sees_the_mutation(function, text: str, instead: str, op: str) -> None:
    with mutated(function, text, instead), pytest.raises(ConformanceError) as failure:
        check(op)
    assert failure.value.law != "expected failure"


@pytest.mark.parametrize("op", sorted({op for *_, op in MUTATIONS}))
def test_without_mutations_it_passes(op: str) -> None:
    check(op)
