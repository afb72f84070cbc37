"""Constraint stores: rows that follow from others do so in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from boundflow_core import ConstraintStore
from boundflow_core.errors import InputError


def store(A, b):
    return ConstraintStore({"y": (np.asarray(A, dtype=np.float64), np.asarray(b, dtype=np.float64))})


def test_sums_follow_in_exact_arithmetic():
    numbers = np.random.default_rng(0)
    A = numbers.choice([0.0, 1.0, -1.0, 0.5, 3.0], (40, 5, 4))
    b = numbers.normal(size=(40, 5)) * 10.0 ** numbers.integers(-8, 8, (40, 5))
    C, d = store(A, b).summed("y")
    np.testing.assert_array_equal(C, A.sum(axis=1))  # such sums are exact
    rounded = 0
    for row, total in zip(b, d, strict=True):
        true = sum(map(Fraction, row))
        assert Fraction(total) <= true  # so what is given implies it
        assert true - Fraction(total) <= Fraction(1e-14) * sum(map(abs, map(Fraction, row)))
        rounded += Fraction(total) != true
    assert rounded > 20


def test_sums_of_coefficients_that_are_not_exact_say_nothing():
    A = np.array([[[0.1, 1.0], [0.2, 1.0]], [[0.25, 1.0], [0.5, 1.0]]])
    C, d = store(A, np.ones((2, 2))).summed("y")
    assert Fraction(0.1) + Fraction(0.2) != Fraction(0.1 + 0.2)
    np.testing.assert_array_equal(C, [[0.0, 0.0], [0.75, 2.0]])
    np.testing.assert_array_equal(d, [0.0, 2.0])


def test_subproblems_are_picked_out():
    both = store([[[1.0], [0.0]], [[2.0], [3.0]]], [[1.0, 0.0], [1.0, 1.0]])
    assert len(both) == 2 and len(both[1:]) == 1 and len(ConstraintStore({})) == 0
    np.testing.assert_array_equal(both[np.array([1])].summed("y")[0], [[5.0]])


@pytest.mark.parametrize(("A", "b"), [(np.zeros((2, 3)), np.zeros((2, 3))), (np.zeros((2, 3, 4)), np.zeros((2, 4)))])
def test_shapes_that_do_not_fit_are_refused(A, b):
    with pytest.raises(InputError, match="y"):
        store(A, b)


def test_all_values_have_the_same_subproblems():
    with pytest.raises(InputError, match="same subproblems"):
        ConstraintStore({"x": (np.zeros((1, 1, 2)), np.zeros((1, 1))), "y": (np.zeros((2, 1, 2)), np.zeros((2, 1)))})
