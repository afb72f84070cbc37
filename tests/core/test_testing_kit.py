"""The conformance kit: passes a sound domain, catches planted mistakes, and shows them as code to paste."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.errors import IRError, UnsupportedOpError
from boundflow_core.executors.reference import NumpyBackend
from boundflow_core.executors.steps import StepSession
from boundflow_core.extension import Domain, Executor, Method, MethodContext, RuleContext
from boundflow_core.ir.primal import PrimalGraph, same_graph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import DType
from boundflow_core.plugins import registry
from boundflow_core.testing import (
    ConformanceError,
    Expectations,
    OpCase,
    check_domain,
    check_op_rule,
    check_relaxation,
    op_cases,
    op_names,
)
from boundflow_core.testing import points as kit
from boundflow_core.walk import forward_states

State = tuple[Value, Value]
Rule = Callable[..., State]

# -- a small sound domain: pairs of ends, for a few operators ----------------------------------------------------------


def _linear(ctx: RuleContext, x: State, weight: Value, bias: Value | None = None) -> State:
    emit, b = ctx.node.spec.emit, ctx.b
    centre = emit(b, ctx.attrs, 1, (x[0] + x[1]) * 0.5, weight, *([bias] if bias is not None else []))
    radius = emit(b, ctx.attrs, 1, (x[1] - x[0]) * 0.5, b.abs(weight))
    return centre - radius, centre + radius


def _ends(ctx: RuleContext, *operands: State | Value) -> State:
    lower, upper = ([x if isinstance(x, Value) else x[end] for x in operands] for end in (0, 1))
    return ctx.node.spec.emit(ctx.b, ctx.attrs, 1, *lower), ctx.node.spec.emit(ctx.b, ctx.attrs, 1, *upper)


def _abs(ctx: RuleContext, x: State) -> State:
    b = ctx.b
    return b.maximum(b.maximum(x[0], -x[1]), 0.0), b.maximum(-x[0], x[1])


RULES: dict[str, Rule] = {
    "linear": _linear,
    "abs": _abs,
    **dict.fromkeys(("relu", "add", "reshape", "slice", "exp", "floor", "reduce_max"), _ends),
}


def _emit(ctx: MethodContext) -> State:
    states = forward_states(ctx.b, ctx.graph, ctx.rules["pairs"], (ctx.lower, ctx.upper), domain="pairs")
    lower, upper = states[ctx.graph.output]
    if ctx.spec is None:
        return lower, upper
    b, rows = ctx.b, ctx.spec
    batch, count = lower.shape[0], rows.C.shape[1]
    columns = (batch, rows.C.shape[2], 1)
    low, high = b.reshape(lower, columns), b.reshape(upper, columns)
    plus, minus = b.maximum(rows.C, 0.0), b.minimum(rows.C, 0.0)
    least = b.reshape(b.matmul(plus, low) + b.matmul(minus, high), (batch, count)) + rows.offset
    return least, b.reshape(b.matmul(plus, high) + b.matmul(minus, low), (batch, count)) + rows.offset


METHOD = Method("pairs", "for tests", ("pairs",), _emit)


def _domain(**changed: Rule) -> Domain:
    return Domain("pairs", "for tests", {**RULES, **changed})


# -- what it passes and what it catches -----------------------------------------------------------------------------


@pytest.mark.parametrize("op", sorted(RULES))
def test_a_sound_domain_passes(op: str) -> None:
    check_op_rule(op, METHOD, [_domain()], examples=40)


def test_a_domain_is_checked_operator_by_operator() -> None:
    check_domain(_domain(), METHOD, executors=(), examples=5)
    with pytest.raises(AssertionError, match="pairs on abs"):
        check_domain(_domain(abs=_ends), METHOD, examples=40, shrink=False)
    check_domain(_domain(abs=_ends), METHOD, without=["abs"], examples=5)


def _signed_radius(ctx: RuleContext, x: State, weight: Value, *bias: Value) -> State:
    """W in place of |W|."""
    emit = ctx.node.spec.emit
    centre = emit(ctx.b, ctx.attrs, 1, (x[0] + x[1]) * 0.5, weight, *bias)
    radius = emit(ctx.b, ctx.attrs, 1, (x[1] - x[0]) * 0.5, weight)
    return ctx.b.minimum(centre - radius, centre + radius), ctx.b.maximum(centre - radius, centre + radius)


def _no_bias(ctx: RuleContext, x: State, weight: Value, *bias: Value) -> State:
    return _linear(ctx, x, weight)


def _relu_keeps_lower(ctx: RuleContext, x: State) -> State:
    return x[0], ctx.b.maximum(x[1], 0.0)


def _relu_keeps_upper(ctx: RuleContext, x: State) -> State:
    return ctx.b.minimum(x[0], 0.0), x[1]


def _relu_of_the_batch(ctx: RuleContext, x: State) -> State:
    """Looser bounds in company: sound, but a region's bounds depend on its neighbours."""
    lower, upper = _ends(ctx, x)
    return ctx.b.reduce_min(lower, (0,), keepdims=True) + 0.0 * lower, upper


def _swapped(ctx: RuleContext, x: State) -> State:
    lower, upper = _ends(ctx, x)
    return upper, lower


def _a_bit_narrow(ctx: RuleContext, *operands: State | Value) -> State:
    """One part in fifty off, at both ends."""
    lower, upper = _ends(ctx, *operands)
    return lower + 0.02 * (upper - lower), upper - 0.02 * (upper - lower)


def _shifted(ctx: RuleContext, *operands: State | Value) -> State:
    lower, upper = _ends(ctx, *operands)
    return lower + 1e-9, upper + 1e-9


def _wide_where_narrow(ctx: RuleContext, x: State) -> State:
    """Wider bounds on smaller regions, exact on points."""
    lower, upper = _ends(ctx, x)
    width = x[1] - x[0]
    slack = ctx.b.where(width > 0.0, 1.0 / (width + 0.1), 0.0)
    return lower - slack, upper + slack


class _OffBackend(NumpyBackend):
    def convert(self, array: Any, value: Value) -> Any:
        return np.asarray(super().convert(array, value) * (1 + 1e-6))


def _off() -> Executor:
    """The executor reference, whose inputs are off by a part in a million."""
    return replace(
        registry().executor("reference"), name="off", open=lambda plan, device: StepSession(plan, _OffBackend())
    )


def _nothing_known(ctx: RuleContext, x: State) -> State:
    lower, upper = _ends(ctx, x)
    return lower - math.inf, upper + math.inf


PLANTED: list[tuple[str, Rule, str]] = [
    ("linear", _signed_radius, "lies (below|above)"),
    ("linear", _no_bias, "not its image|lies"),
    ("relu", _relu_keeps_lower, "not its image"),
    ("relu", _relu_keeps_upper, "lies above the upper bound|not its image"),
    ("relu", _relu_of_the_batch, "alone differ|not its image"),
    ("relu", _swapped, "lower exceeds upper"),
    ("relu", _a_bit_narrow, "lies (below|above)"),
    ("add", _a_bit_narrow, "lies (below|above)"),
    ("slice", _a_bit_narrow, "lies (below|above)"),
    ("reduce_max", _shifted, "lies (below|above)|not its image"),
    ("relu", _wide_where_narrow, "smaller region has wider bounds"),
    ("relu", _nothing_known, "not finite"),
    ("abs", _ends, "lies (below|above)|lower exceeds upper"),
    ("floor", _a_bit_narrow, "lies (below|above)"),
]


@pytest.mark.parametrize(
    "op,rule,message", PLANTED, ids=lambda value: getattr(value, "__name__", None) or str(value)[:12]
)
def test_planted_mistakes_are_caught(op: str, rule: Rule, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_op_rule(op, METHOD, [_domain(**{op: rule})], executors=(), examples=60, shrink=False)


def test_mistakes_with_specification_rows_are_caught() -> None:
    def emit(ctx: MethodContext) -> State:
        lower, upper = _emit(ctx)
        return (lower, upper) if ctx.spec is None else (lower + 0.5, upper + 0.5)

    with pytest.raises(AssertionError, match="specification rows"):
        check_op_rule("relu", replace(METHOD, emit=emit), [_domain()], examples=40, shrink=False)


def _unknown_below(far: float) -> Rule:
    """A number for "unknown" below, and above as if undecided values were never positive."""

    def relu(ctx: RuleContext, x: State) -> State:
        lower, upper = _ends(ctx, x)
        undecided = ctx.b.minimum(ctx.b.sign(upper), 1.0 - ctx.b.sign(lower))
        return lower - undecided * far, upper * (1.0 - undecided)

    return relu


def _shared_by_shape() -> Rule:
    """One result for all nodes of a program that have the same shape."""
    known: dict[Any, State] = {}

    def relu(ctx: RuleContext, x: State) -> State:
        return known.setdefault((ctx.b, x[0].shape), _ends(ctx, x))

    return relu


def _capped(ctx: RuleContext, x: State) -> State:
    lower, upper = _ends(ctx, x)
    return ctx.b.minimum(lower, 1500.0), ctx.b.minimum(upper, 1500.0)


def _corners_but(left_out: int) -> Rule:
    def mul(ctx: RuleContext, x: State | Value, y: State | Value) -> State:
        (a, b), (c, d) = ((v, v) if isinstance(v, Value) else v for v in (x, y))
        first, *others = [p for corner, p in enumerate((a * c, a * d, b * c, b * d)) if corner != left_out]
        lower = upper = first
        for other in others:
            lower, upper = ctx.b.minimum(lower, other), ctx.b.maximum(upper, other)
        return lower, upper

    return mul


def _ends_in_order(ctx: RuleContext, x: State) -> State:
    one, other = _ends(ctx, x)
    return ctx.b.minimum(one, other), ctx.b.maximum(one, other)


def _root_of_no_width(ctx: RuleContext, x: State) -> State:
    """Sound, but its gradient is infinity times zero at points."""
    lower, upper = _ends(ctx, x)
    return lower, upper + ctx.b.sqrt(x[1] - x[0]) * 0.0


HIDDEN = [
    ("relu", _unknown_below(1e30), "sound"),
    ("relu", _unknown_below(1e9), "sound"),
    ("relu", _shared_by_shape(), "sound"),
    ("relu", _capped, "sound"),
    *(("mul", _corners_but(corner), "sound") for corner in range(4)),
    ("pow", _ends_in_order, "sound"),
    ("relu", _root_of_no_width, "derivative"),
]


@pytest.mark.parametrize("op,rule,law", HIDDEN, ids=lambda value: getattr(value, "__name__", None) or value)
def test_mistakes_that_seldom_show_are_caught_by_the_default_examples(op: str, rule: Rule, law: str) -> None:
    """One bound that says nothing beside a wrong one, a second node of a kind, numbers far out, one case of many."""
    with pytest.raises(ConformanceError) as failure:
        check_op_rule(op, METHOD, [_domain(**{op: rule})], executors=(), dtypes=("float64",), shrink=False)
    assert failure.value.law in (law, "points"), failure.value


@pytest.mark.parametrize("norm", [1.0, 2.0])
def test_mistakes_with_balls_are_caught(norm: float) -> None:
    def emit(ctx: MethodContext) -> State:
        lower, upper = _emit(ctx)
        ball = ctx.region.ball
        return (lower, upper) if ball is None or ball.p != norm else (0.5 * (lower + upper), upper)

    with pytest.raises(ConformanceError, match=f"ball of norm {norm:g}") as failure:
        check_op_rule("relu", replace(METHOD, emit=emit), [_domain()], executors=(), shrink=False)
    assert failure.value.law == "balls"


def test_rows_must_be_finite_and_regions_rows_independent() -> None:
    def unknown(ctx: MethodContext) -> State:
        lower, upper = _emit(ctx)
        return (lower, upper) if ctx.spec is None else (lower - math.inf, upper + math.inf)

    def mixed(ctx: MethodContext) -> State:
        lower, upper = _emit(ctx)
        return (
            (lower, upper) if ctx.spec is None else (ctx.b.reduce_min(lower, (0,), keepdims=True) + 0.0 * lower, upper)
        )

    for emit, law in ((unknown, "finite"), (mixed, "batch")):
        with pytest.raises(ConformanceError, match="rows") as failure:
            check_op_rule("relu", replace(METHOD, emit=emit), [_domain()], executors=(), shrink=False)
        assert failure.value.law == law


def test_bounds_must_be_finite_in_float32_too() -> None:
    def emit(ctx: MethodContext) -> State:
        lower, upper = _emit(ctx)
        return (lower, upper) if ctx.b.dtype is DType.FLOAT64 else (lower - math.inf, upper + math.inf)

    with pytest.raises(ConformanceError, match=r"float32.*'finite'"):
        check_op_rule("relu", replace(METHOD, emit=emit), [_domain()], executors=(), shrink=False)


def test_promises_can_be_withdrawn() -> None:
    check_op_rule("relu", METHOD, [_domain(relu=_wide_where_narrow)], expect=Expectations(monotone=False), examples=40)
    check_op_rule("relu", METHOD, [_domain(relu=_relu_keeps_lower)], expect=Expectations(exact_at_points=False))
    check_op_rule("relu", METHOD, [_domain(relu=_nothing_known)], expect=Expectations(False, False, False), examples=40)


def test_an_operator_without_a_rule_is_an_error_and_no_pass() -> None:
    with pytest.raises(UnsupportedOpError, match="'sin'"):
        check_op_rule("sin", METHOD, [_domain()], examples=5)


def test_an_executor_that_computes_wrongly_is_caught() -> None:
    with pytest.raises(ConformanceError, match=r"pairs on relu \(float64, off\)") as failure:
        check_op_rule("relu", METHOD, [_domain()], executors=[_off()], examples=40, shrink=False)
    assert failure.value.law in ("executors", "sound", "rows", "points")


def test_an_executor_that_cannot_tell_whether_it_works_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ZeroDivisionError("of the check itself")

    installed = registry()
    executors = {
        "reference": installed.executor("reference"),
        "bad": replace(_off(), name="bad", unavailable=fails),
    }
    monkeypatch.setattr("boundflow_core.testing.run.registry", lambda: replace(installed, executors=executors))
    check_op_rule("relu", METHOD, [_domain()], examples=5)


# -- cases ------------------------------------------------------------------------------------------------------------


def test_a_new_operator_without_cases_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(op_names()) == set(PRIMAL_OPS)
    monkeypatch.setitem(PRIMAL_OPS, "new", PRIMAL_OPS["relu"])
    with pytest.raises(AssertionError, match="new"):
        op_names()


def test_code_of_a_plugins_operator_asks_for_it_under_a_name() -> None:
    mine = replace(PRIMAL_OPS["relu"], name="my-op")
    g = PrimalBuilder("mine", "x", (2,))
    code = repr(_of_graph(g.finish(g.op(mine, g.input)), [[0.0, 0.0]], [[1.0, 1.0]]))
    assert "# my_op = the PrimalOp 'my-op'" in code
    assert _pasted(code, my_op=mine)["case"].graph.operators()["my-op"] == 1


@pytest.mark.parametrize("op", op_names())
def test_cases_hold_their_operator_and_print_as_code(op: str) -> None:
    @settings(max_examples=15)
    @given(op_cases(op))
    def holds(case: OpCase) -> None:
        assert op in case.graph.operators()
        assert (case.lower <= case.inner_lower).all() and (case.inner_upper <= case.upper).all()
        assert (case.inner_lower <= case.inner_upper).all()
        again = _pasted(repr(case))["case"]
        assert same_graph(again.graph, case.graph) and again.finite == case.finite
        for name in ("lower", "upper", "inner_lower", "inner_upper", "rows", "offset"):
            np.testing.assert_array_equal(getattr(again, name), getattr(case, name))

    holds()


def _pasted(code: str, **names: Any) -> dict[str, Any]:
    exec(code, names)
    return names


def test_cases_have_degenerate_regions_weights_and_sizes() -> None:
    seen: set[str] = set()

    @settings(max_examples=150, database=None)
    @given(op_cases("linear"))
    def collect(case: OpCase) -> None:
        weights = [constant.numpy() for constant in case.graph.constants.values()]
        facts = {
            "point": (case.lower == case.upper).all(),
            "box": (case.lower < case.upper).all(),
            "partly a point": 0 < (case.lower == case.upper).mean() < 1,
            "zero weights": any(not w.any() for w in weights),
            "single element": case.lower[0].size == 1,
            "batch of one": len(case.lower) == 1,
            "batch": len(case.lower) > 1,
            "large values": np.abs(case.lower).max() > 50,
            "alone": len(case.graph.nodes) == 1,
            "between layers": case.graph.operators()["linear"] == 3,
            "rows per region": len(case.rows) > 1,
        }
        seen.update(name for name, holds in facts.items() if holds)

    collect()
    assert seen == {
        "point", "box", "partly a point", "zero weights", "single element", "batch of one", "batch", "large values",
        "alone", "between layers", "rows per region",
    }  # fmt: skip


def test_a_failure_pastes_into_code_that_fails() -> None:
    domains = [_domain(relu=_relu_keeps_upper)]
    with pytest.raises(ConformanceError) as failure:
        check_op_rule("relu", METHOD, domains)
    message = str(failure.value)
    assert "graph relu(%x" in message
    code = message[message.index("import numpy") :]
    with pytest.raises(ConformanceError, match=re.escape(message)):
        _pasted(code, method=METHOD, domains=domains)
    again = _pasted(code, method=METHOD, domains=[_domain()])
    assert again["case"].lower.size == 1, "the smallest case has one element"


# -- known gaps -------------------------------------------------------------------------------------------------------


def test_known_gaps_may_fail_and_expire_when_they_pass() -> None:
    wide = [_domain(relu=_wide_where_narrow)]
    check_op_rule("relu", METHOD, wide, expected_failures={"relu:monotone": "too wide", "exp": "of another operator"})
    with pytest.raises(ConformanceError, match=r"'relu:monotone' is declared .*(too wide).*, but passes: remove it"):
        check_op_rule("relu", METHOD, [_domain()], expected_failures={"relu:monotone": "too wide"})
    with pytest.raises(ConformanceError, match="wider bounds"):
        check_op_rule("relu", METHOD, wide, expected_failures={"relu:points": "another law"}, shrink=False)


def test_whole_operators_may_be_missing() -> None:
    missing = {"sin": "no rule yet", "relu": "too wide"}
    check_op_rule("sin", METHOD, [_domain()], expected_failures=missing)
    check_domain(_domain(relu=_wide_where_narrow), METHOD, expected_failures=missing, executors=(), examples=30)
    with pytest.raises(ConformanceError, match=r"'relu' is declared .* but passes"):
        check_domain(_domain(), METHOD, expected_failures=missing, executors=(), examples=5)


def test_gaps_must_have_names_and_reasons() -> None:
    for gaps in ({"relu:speed": "slow"}, {"relu": ""}, {"rleu": "a slip"}):
        with pytest.raises(ValueError, match="expected_failures"):
            check_domain(_domain(), METHOD, expected_failures=gaps, executors=(), examples=1)


def test_a_gap_is_no_pass_for_a_rule_that_cannot_run() -> None:
    def slip(ctx: RuleContext, x: State) -> State:
        return ctx.b.reshape(x[0], (17, 17)), x[1]

    with pytest.raises(IRError):
        check_op_rule("relu", METHOD, [_domain(relu=slip)], expected_failures={"relu": "loose"}, executors=())


def test_checks_that_would_check_nothing_say_so() -> None:
    """Slips by which a test would pass whatever the domain does."""
    others = Domain("pears", "a slip", {**RULES, "relu": _swapped})
    foreign = Domain("pairs", "for operators of others alone", {"my-op": _ends})
    none: dict[str, Any] = {"executors": ()}
    for check, message in (
        (lambda: check_domain(others, METHOD, **none), "does not use domain 'pears', but pairs"),
        (lambda: check_op_rule("relu", METHOD, [_domain(), others], **none), "uses pairs, not pears"),
        (lambda: check_domain(foreign, METHOD, **none), "nothing to check"),
        (lambda: check_domain(_domain(), METHOD, without=RULES, **none), "nothing to check"),
        (lambda: check_domain(_domain(), METHOD, without=["rellu"], **none), "rellu"),
        (lambda: check_op_rule("relu", METHOD, [_domain()], dtypes=(), **none), "nothing to check"),
        (lambda: check_op_rule("relu", METHOD, [_domain()], examples=0, **none), "nothing to check"),
        (lambda: check_op_rule("relu", METHOD, [_domain()], expected_failures={"rellu": "?"}, **none), "'rellu'"),
        (
            lambda: check_op_rule("relu", METHOD, [_domain()], expected_failures={":sound": "?"}, **none),
            r"\[''\] are not",
        ),
        (
            lambda: check_domain(_domain(), METHOD, without=["relu"], expected_failures={"relu": "?"}, **none),
            "left out",
        ),
        (lambda: check_relaxation("relu", lambda b, x, y: [None] * 4, dtypes=()), "nothing to check"),
    ):
        with pytest.raises(ValueError, match=message):
            check()


def _of_graph(graph: PrimalGraph, lower: Any, upper: Any) -> OpCase:
    count = int(np.prod(graph.output_type.shape))
    lower, upper = np.asarray(lower, float), np.asarray(upper, float)
    return OpCase("?", graph, lower, upper, lower, upper, np.ones((1, 1, count)), np.zeros((1, 1)))


def test_search_reaches_extremes_that_samples_miss() -> None:
    """The least of |x_1| + ... + |x_8| lies in the middle, its greatest value at one corner of 256."""
    g = PrimalBuilder("sum", "x", (8,))
    signs = np.where(np.arange(8) % 3 == 0, -1.0, 1.0)[None]
    graph = g.finish(g.op("linear", g.input, signs))
    case = _of_graph(graph, -np.ones((2, 8)), np.ones((2, 8)))
    points = kit.sample(case)[:, :3]
    bounds = (np.full((2, 1), -8.0), np.full((2, 1), 8.0))
    found = case.outputs(kit.search(case, points, case.outputs(points), bounds, rounds=8))
    np.testing.assert_allclose(found.max(axis=1), 8.0)
    np.testing.assert_allclose(found.min(axis=1), -8.0)


@given(st.integers(0, 2**16))
@settings(max_examples=20)
def test_sampled_and_searched_points_are_of_the_region(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g = PrimalBuilder("id", "x", (2, 3))
    graph = g.finish(g.op("permute", g.input, axes=(1, 0)))
    lower = rng.normal(size=(3, 2, 3)) * 10.0 ** rng.integers(-3, 6)
    case = _of_graph(graph, lower, lower + rng.random((3, 2, 3)).round(1))
    points = kit.sample(case)
    outputs = case.outputs(points)
    found = kit.search(case, points, outputs, (outputs.min(axis=1), outputs.max(axis=1)))
    for some in (points, found):
        assert (case.lower[:, None] <= some).all() and (some <= case.upper[:, None]).all()
    assert (points == case.lower[:, None]).all(axis=(2, 3)).any() and (points == case.upper[:, None]).all(
        axis=(2, 3)
    ).any()


# -- without Hypothesis -----------------------------------------------------------------------------------------------


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_the_kit_does_not_import_hypothesis() -> None:
    result = _python("import sys, boundflow_core.testing; print('hypothesis' in sys.modules)")
    assert result.stdout.strip() == "False", result.stderr


def test_missing_hypothesis_is_named_with_the_remedy() -> None:
    result = _python("import sys; sys.modules['hypothesis'] = None; from boundflow_core.testing import check_op_rule")
    assert result.returncode == 1
    assert 'pip install "boundflow-core[testing]"' in result.stderr
