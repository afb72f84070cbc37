"""Every relaxation: the lines hold, also in float32, and come close to the convex hull of the graph."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.ir.types import DType
from boundflow_crown.domain import RULES
from boundflow_crown.relax import RELAXATIONS

from .lines import Subject, excess, intervals, ratio_to_best

pytestmark = pytest.mark.slow

HALF_PI = math.pi / 2
WAVE = tuple(k * HALF_PI for k in range(-9, 10))
PIECES = (-2.0, -1.0, 0.0, 0.5, 1.0, 3.0)

SUBJECTS = (
    Subject("relu"),
    Subject("leaky_relu", constants=(0.1,)),
    Subject("leaky_relu", constants=(-0.5,)),
    Subject("leaky_relu", constants=(3.0,)),
    Subject("abs"),
    Subject("clip", {"min": -1.0, "max": 2.0}, special=(-1.0, 2.0)),
    Subject("clip", {"min": 0.0, "max": 6.0}, special=(0.0, 6.0)),
    Subject("clip", {"min": -math.inf, "max": 2.0}, special=(2.0,)),
    Subject("clip", {"min": -1.0, "max": math.inf}, special=(-1.0,)),
    Subject("clip", {"min": -math.inf, "max": math.inf}),
    Subject("clip", {"min": 1.0, "max": 1.0}, special=(1.0,)),
    Subject("sign"),
    Subject("floor", special=(-2.0, -1.0, 0.0, 1.0, 2.0, 3.0)),
    Subject("sigmoid"),
    Subject("tanh"),
    Subject("erf"),
    Subject("softplus"),
    Subject("exp", domain=(-1e4, 700.0)),
    Subject("log", special=(0.0, 1.0), domain=(0.0, 1e6)),
    Subject("sqrt", special=(0.0, 1.0), domain=(0.0, 1e6)),
    Subject("gelu", {"approximate": "none"}, special=(-math.sqrt(2), -0.7517915246935645, 0.0, math.sqrt(2))),
    Subject("gelu", {"approximate": "tanh"}, special=(-1.41850400879, -0.7524614220710163, 0.0, 1.41850400879)),
    Subject("reciprocal"),
    *(Subject("pow", {"exponent": p}) for p in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, -1.0, -2.0, -3.0)),
    *(Subject("pow", {"exponent": p}, special=(0.0, 1.0), domain=(0.0, 1e6)) for p in (0.5, 1.5, 2.5, -0.5, -1.5)),
    Subject("sin", special=WAVE),
    Subject("cos", special=WAVE),
)

# How much farther apart than the hull the lines may be: exp's tangent stays positive at the lower end instead.
# Hulls of steps are sampled, which cuts their corners; gelu's upper tangent is found by few bisections.
FACTORS = {"exp": 2.0, "sign": 1.005, "floor": 1.005, "gelu": 1.005}

every_subject = pytest.mark.parametrize("subject", SUBJECTS, ids=[subject.name for subject in SUBJECTS])


def test_every_relaxation_is_tested() -> None:
    assert {subject.op for subject in SUBJECTS} == set(RELAXATIONS)


def test_every_operator_has_a_rule_or_is_decomposed() -> None:
    assert sorted(name for name, op in PRIMAL_OPS.items() if name not in RULES and op.decompose is None) == []


@every_subject
@given(data=st.data())
@settings(max_examples=150)
def test_lines_hold(subject: Subject, data: st.DataObject) -> None:
    lower, upper = data.draw(intervals(subject))
    assert excess(subject, lower, upper) <= 1e-12


@every_subject
@given(data=st.data())
@settings(max_examples=40)
def test_lines_hold_in_float32(subject: Subject, data: st.DataObject) -> None:
    """Up to the rounding of float32, with ends that are float32 numbers."""
    lower, upper = (float(np.float32(end)) for end in data.draw(intervals(subject, widest=1e3)))
    assert excess(subject, lower, upper, DType.FLOAT32) <= 4e-6


def grid(subject: Subject) -> list[tuple[float, float]]:
    """Intervals with ends on a grid that misses and meets the special places."""
    low, high = subject.domain
    ends = sorted({-9.0, -4.3, -2.0, -1.2, -0.4, 0.0, 0.3, 0.9, 1.7, 3.1, 5.2, 8.0, *subject.special})
    ends = [end for end in ends if max(low, -12.0) <= end <= min(high, 12.0)]
    return [(lower, upper) for lower in ends for upper in ends if lower < upper]


@every_subject
def test_lines_come_close_to_the_convex_hull(subject: Subject) -> None:
    """At the middle the lines are as far apart as the hull of the graph, where they could not be nearer."""
    for lower, upper in grid(subject):
        pole = subject.op == "reciprocal" or subject.attrs.get("exponent", 0.0) < 0.0
        if (pole and lower <= 0.0 <= upper) or not np.all(np.isfinite(subject.f(np.array([lower, upper])))):
            continue
        ours, best = ratio_to_best(subject, lower, upper)
        factor = FACTORS.get(subject.op, 1.0)
        assert ours <= factor * best + 2e-5 * (1.0 + best), (lower, upper, ours, best)


@every_subject
def test_points_have_lines_through_the_point(subject: Subject) -> None:
    points = np.array([x for x in (-3.2, -1.0, -1e-4, 1e-4, 0.7, 1.5, 2.5, 40.0) if x >= subject.domain[0]])
    low_slope, low_bias, up_slope, up_bias = subject.lines(points, points)
    y = subject.f(points)
    np.testing.assert_allclose(low_slope * points + low_bias, y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(up_slope * points + up_bias, y, rtol=1e-12, atol=1e-12)


@every_subject
def test_nan_bounds_give_no_finite_line(subject: Subject) -> None:
    nan = math.nan
    low_slope, low_bias, up_slope, up_bias = subject.lines([nan, nan, 1.0], [nan, 1.0, nan])
    if subject.op == "pow" and subject.attrs["exponent"] == 0.0:
        return
    for slope, bias in ((low_slope, low_bias), (up_slope, up_bias)):
        assert not np.any(np.isfinite(slope * 0.5 + bias))


@every_subject
@pytest.mark.parametrize("ends", [(-math.inf, 2.0), (-2.0, math.inf), (-math.inf, math.inf), (1.0, math.inf),
                                  (-math.inf, -1.0), (-1.7e308, 1.7e308), (-1e308, 2.0), (-2.0, 1.7e308)])  # fmt: skip
def test_infinite_intervals_give_no_wrong_line(subject: Subject, ends: tuple[float, float]) -> None:
    """Finite lines hold wherever the function is defined; a lower bound is never +inf, an upper one never -inf."""
    low_slope, low_bias, up_slope, up_bias = (float(v[0]) for v in subject.lines(*ends))
    x = np.concatenate([np.linspace(-30, 30, 301), [-1e8, 1e8, -1e300, 1e300]])
    x = x[(x >= ends[0]) & (x <= ends[1])]
    y = subject.f(x)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    with np.errstate(all="ignore"):
        for slope, bias, sign in ((low_slope, low_bias, 1.0), (up_slope, up_bias, -1.0)):
            over = sign * (slope * x + bias - y)
            assert not np.any(
                over > 1e-9 * (1.0 + np.abs(y) + abs(slope) * np.abs(x) + (abs(bias) < 1e300) * abs(bias))
            )


@pytest.mark.parametrize("op", ["sigmoid", "tanh", "erf", "sin", "cos"])
def test_bounded_functions_are_bounded_on_all_numbers(op: str) -> None:
    low_slope, low_bias, up_slope, up_bias = Subject(op).lines(-math.inf, math.inf)
    assert (low_slope, low_bias, up_slope, up_bias) == (0.0, 0.0 if op == "sigmoid" else -1.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("op", "attrs", "lower", "upper"),
    [("log", {}, -1.0, 2.0), ("sqrt", {}, -1e-9, 2.0), ("pow", {"exponent": 0.5}, -1.0, 1.0)],
)
def test_outside_of_the_domain_nothing_is_claimed(op: str, attrs: dict[str, float], lower: float, upper: float) -> None:
    assert np.all(np.isnan([bias[0] for bias in Subject(op, attrs).lines(lower, upper)[1::2]]))


@pytest.mark.parametrize(("lower", "upper"), [(-1.0, 1.0), (0.0, 1.0), (-1.0, 0.0), (-0.0, 1.0), (0.0, 0.0)])
def test_reciprocal_of_zero_is_not_bounded(lower: float, upper: float) -> None:
    for op, attrs in (("reciprocal", {}), ("pow", {"exponent": -3.0})):
        _, low_bias, _, up_bias = Subject(op, attrs).lines(lower, upper)
        assert low_bias[0] == -math.inf and up_bias[0] == math.inf


def test_crossed_ends_are_put_in_order() -> None:
    """Bounds that rounding crossed by an ulp still give lines through the place."""
    for subject in SUBJECTS:
        x = 1.25
        found = subject.lines(np.nextafter(x, 2.0), x)
        for slope, bias in (found[:2], found[2:]):
            np.testing.assert_allclose(slope * x + bias, subject.f(np.array([x])), rtol=1e-9)


@pytest.mark.parametrize("op", ["sigmoid", "tanh", "erf"])
@pytest.mark.parametrize(("lower", "upper"), [(-1.0, 8.0), (-5.0, 6.0), (-0.01, 2.0), (-50.0, 51.0)])
def test_tangents_of_s_shapes_pass_through_the_end(op: str, lower: float, upper: float) -> None:
    """The line above holds at the lower end with equality and touches once more, unless it touches at the middle."""
    subject = Subject(op)
    _, _, slope, bias = (float(v[0]) for v in subject.lines(lower, upper))
    x = np.linspace(lower, upper, 200001)
    gap = slope * x + bias - subject.f(x)
    assert gap.min() == pytest.approx(0.0, abs=1e-7)
    touches = x[int(np.argmin(np.where(x > max(lower, 0.0), gap, np.inf)))]
    assert gap[0] == pytest.approx(0.0, abs=1e-9) or touches == pytest.approx((lower + upper) / 2, abs=1e-2)
