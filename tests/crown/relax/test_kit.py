"""Every relaxation under the conformance kit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs
from boundflow_core.testing import check_lines, check_relaxation
from boundflow_crown.relax import RELAXATIONS
from boundflow_interval import Interval

from .lines import Subject
from .test_all import FACTORS, SUBJECTS

pytestmark = pytest.mark.slow

# Tangents of cubes from far away are found by few steps.
HULLS = {**FACTORS, "pow": 1.001}
Lines = Callable[[Builder, Value, Value], "tuple[Value | None, ...]"]


def lines_of(subject: Subject) -> Lines:
    def lines(b: Builder, lower: Value, upper: Value) -> tuple[Value | None, ...]:
        constants = tuple(b.constant(number) for number in subject.constants)
        found = RELAXATIONS[subject.op](b, Interval(lower, upper), Attrs(subject.attrs), constants, {})
        return found.lower_slope, found.lower_bias, found.upper_slope, found.upper_bias

    return lines


@pytest.mark.parametrize("subject", SUBJECTS, ids=[subject.name for subject in SUBJECTS])
def test_kit(subject: Subject) -> None:
    def function(b: Builder, x: Value) -> Value:
        return PRIMAL_OPS[subject.op].emit(b, Attrs(subject.attrs), 1, x, *map(b.constant, subject.constants))

    check_relaxation(
        function, lines_of(subject), kinks=subject.special, within=subject.domain, hull=HULLS.get(subject.op, 1.0),
        examples=60,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_waves_so_far_from_zero_that_their_peaks_are_lost(name: str) -> None:
    subject = next(one for one in SUBJECTS if one.name == name)

    def function(b: Builder, x: Value) -> Value:
        return PRIMAL_OPS[name].emit(b, Attrs({}), 1, x)

    places = [1043.0, -1043.0, 5000.0, 1e5, -3e5]
    intervals = [(place, place + width) for place in places for width in (0.0, 0.25, 3.0)]
    check_lines(function, lines_of(subject), intervals, "float32")
