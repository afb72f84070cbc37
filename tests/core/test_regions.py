from __future__ import annotations

import numpy as np
import pytest

from boundflow_core.errors import InputError
from boundflow_core.regions import Box, LpBall

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("values", [[NAN], [INF], [-INF]])
def test_values_must_be_finite(values):
    for make in (
        lambda: Box(values, [0.0]),
        lambda: Box([0.0], values),
        lambda: LpBall(values, 1.0),
        lambda: LpBall([0.0], values),
        lambda: LpBall([0.0], values[0]),
    ):
        with pytest.raises(InputError, match="not finite"):
            make()


@pytest.mark.parametrize("values", ["text", ["a"], [[1], [1, 2]], [None], [1j], object()])
def test_values_must_be_numbers(values):
    with pytest.raises(InputError, match="array of numbers"):
        Box(values, values)
    with pytest.raises(InputError, match="array of numbers"):
        LpBall(values, 1)


def test_crossed_corners_are_counted_and_the_first_is_named():
    with pytest.raises(InputError, match=r"in 2 of 4 elements, first at index \(0, 1\): 5.0 > 4.0"):
        Box(np.array([[0.0, 5], [6, 0]]), np.array([[0.0, 4], [5, 0]]))
    Box([1.0], [1.0])


def test_corners_have_one_shape():
    with pytest.raises(InputError, match=r"shape \[2\] but upper \[1\]"):
        Box([0, 0], [1])


@pytest.mark.parametrize("p", [0, 3, -1, NAN, "inf"])
def test_other_norms(p):
    with pytest.raises(InputError, match="p must be"):
        LpBall([0.0], 1.0, p)


@pytest.mark.parametrize("p", [1, 2, INF])
def test_known_norms(p):
    assert LpBall([0.0], 0.0, p).p == p


def test_radii():
    with pytest.raises(InputError, match="negative, but is -2"):
        LpBall([[0.0], [1.0]], [1.0, -2.0])
    for eps in ([1.0], [1.0] * 3, [[1.0, 1.0]]):
        with pytest.raises(InputError, match="one per region"):
            LpBall([[0.0], [1.0]], eps)
    LpBall([[0.0], [1.0]], [1.0, 2.0])
