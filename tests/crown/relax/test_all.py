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
    Subject("gelu", {"approximate": "tanh"}, special=(-1.4185040087908284, -0.7524614220710163, 0.0, 1.4185040087908284)),
    Subject("reciprocal"),
    *(Subject("pow", {"exponent": p}) for p in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, -1.0, -2.0, -3.0)),
    *(Subject("pow", {"exponent": p}, special=(0.0, 1.0), domain=(0.0, 1e6)) for p in (0.5, 1.5, 2.5, -0.5, -1.5)),
    Subject("sin", special=WAVE),
    Subject("cos", special=WAVE),
)

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
