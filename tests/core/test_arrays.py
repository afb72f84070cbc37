from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boundflow_core.arrays import ball_arrays, box_arrays, is_torch, like, spec_arrays
from boundflow_core.errors import InputError
from boundflow_core.ir.types import DType
from boundflow_core.regions import Box, LpBall
from boundflow_core.specs import LinearSpec

numbers = st.floats(-1e30, 1e30, allow_subnormal=True)
dtypes = st.sampled_from([DType.FLOAT32, DType.FLOAT64])


@given(numbers, numbers, dtypes)
def test_a_cast_box_never_loses_a_point_and_is_the_smallest(one, two, dtype):
    low, high = min(one, two), max(one, two)
    lower, upper = box_arrays(Box(np.array([low]), np.array([high])), dtype, (1,))
    assert lower.dtype == upper.dtype == dtype.numpy and lower.shape == (1, 1)
    assert lower[0, 0].astype(np.float64) <= low and high <= upper[0, 0].astype(np.float64)
    assert float(np.nextafter(lower[0, 0], dtype.numpy.type(np.inf))) > low
    assert float(np.nextafter(upper[0, 0], dtype.numpy.type(-np.inf))) < high


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_numbers_that_the_type_holds_stay(x):
    lower, upper = box_arrays(Box(np.array([x]), np.array([x])), DType.FLOAT32, (1,))
    assert lower[0, 0] == x == upper[0, 0]


@given(numbers, st.floats(0, 1e3), dtypes)
def test_a_ball_lies_in_its_box(center, eps, dtype):
    lower, upper = box_arrays(LpBall(np.array([center]), eps), dtype, (1,))
    assert Fraction(float(lower[0, 0])) <= Fraction(center) - Fraction(eps)
    assert Fraction(center) + Fraction(eps) <= Fraction(float(upper[0, 0]))


def test_centre_minus_radius_is_rounded_outwards_in_float64():
    lower, upper = box_arrays(LpBall(np.array([1.0]), 1e-17), DType.FLOAT64, (1,))
    assert lower[0, 0] < 1 < upper[0, 0]
    lower, upper = box_arrays(LpBall(np.array([0.5]), 0.25), DType.FLOAT64, (1,))
    assert (lower[0, 0], upper[0, 0]) == (0.25, 0.75)


def test_numbers_beyond_float32_become_infinite_outwards():
    lower, upper = box_arrays(Box(np.array([-1e300, 1e300]), np.array([-1e300, 1e300])), DType.FLOAT32, (2,))
    largest = np.finfo(np.float32).max
    assert lower.tolist() == [[-np.inf, largest]] and upper.tolist() == [[-largest, np.inf]]


def test_one_radius_per_region():
    center = np.zeros((2, 3))
    lower, upper = box_arrays(LpBall(center, np.array([1.0, 2.0])), DType.FLOAT64, (3,))
    assert lower.tolist() == [[-1] * 3, [-2] * 3] and upper.tolist() == [[1] * 3, [2] * 3]
    lower, _ = box_arrays(LpBall(center, 1), DType.FLOAT64, (3,))
    assert lower.tolist() == [[-1] * 3] * 2


def test_radii_of_elements_make_no_regions():
    with pytest.raises(InputError, match="3 radii"):
        box_arrays(LpBall(np.zeros(3), np.ones(3)), DType.FLOAT64, (3,))


def test_integers_and_lists_are_regions():
    lower, upper = box_arrays(Box([0, 1], [2, 3]), DType.FLOAT32, (2,))
    assert lower.tolist() == [[0, 1]] and upper.tolist() == [[2, 3]] and lower.dtype == np.float32


@pytest.mark.parametrize(
    "shape, match",
    [((2,), "has shape"), ((1, 2), "has shape"), ((2, 3, 1), "has shape"), ((0, 3), "empty"), ((), "has shape")],
)
def test_wrong_shapes(shape, match):
    with pytest.raises(InputError, match=match):
        box_arrays(Box(np.zeros(shape), np.ones(shape)), DType.FLOAT64, (3,))
    with pytest.raises(InputError, match=match):
        box_arrays(LpBall(np.zeros(shape), 1.0), DType.FLOAT64, (3,))


def test_what_is_no_region():
    with pytest.raises(InputError, match="not tuple"):
        box_arrays((0, 1), DType.FLOAT64, (1,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "C, offset, batch, shapes",
    [
        ((2, 3), None, 4, ((1, 2, 3), (1, 2))),
        ((2, 3), (2,), 4, ((1, 2, 3), (1, 2))),
        ((4, 2, 3), (2,), 4, ((4, 2, 3), (4, 2))),
        ((4, 2, 3), (4, 2), 4, ((4, 2, 3), (4, 2))),
        ((1, 2, 3), (1, 2), 4, ((1, 2, 3), (1, 2))),
    ],
)
def test_specifications_get_both_axes(C, offset, batch, shapes):
    spec = LinearSpec(np.ones(C), None if offset is None else np.full(offset, 5.0))
    rows, offsets = spec_arrays(spec, 3, batch, DType.FLOAT32)
    assert (rows.shape, offsets.shape) == shapes and rows.dtype == offsets.dtype == np.float32
    assert np.all(offsets == (0 if offset is None else 5))


def test_specifications_given_as_lists_of_integers():
    spec = LinearSpec([[1, -1]], [0.5])
    rows, offsets = spec_arrays(spec, 2, 1, DType.FLOAT64)
    assert rows.tolist() == [[[1, -1]]] and offsets.tolist() == [[0.5]] and spec.rows == 1


def test_specifications_that_do_not_fit():
    with pytest.raises(InputError, match="rows of 3 numbers, but the network has 4"):
        spec_arrays(LinearSpec(np.ones((2, 3))), 4, 1, DType.FLOAT64)
    with pytest.raises(InputError, match="made for 2 regions, but 3"):
        spec_arrays(LinearSpec(np.ones((2, 2, 3))), 3, 3, DType.FLOAT64)


def test_numpy_arrays_are_no_tensors():
    assert not is_torch(np.ones(1)) and like(np.ones(1), np.zeros(1)).tolist() == [1]


@given(st.lists(numbers, min_size=1, max_size=4), st.floats(0, 1e3), dtypes, st.sampled_from([1, 2]))
def test_a_cast_ball_contains_the_ball(center, eps, dtype, p):
    """Each point farthest from the center along an axis; moves of the center add up by the triangle inequality."""
    (cast,), (radius,) = ball_arrays(LpBall(np.array(center), eps, p), dtype, (len(center),))
    assert cast.dtype == radius.dtype == dtype.numpy
    moves = [Fraction(float(a)) - Fraction(b) for a, b in zip(cast, center, strict=True)]
    slack = Fraction(float(radius)) - Fraction(eps)
    assert slack >= 0 and slack**p >= sum(abs(move) ** p for move in moves)
    scale = max(eps, *map(abs, center))
    assert slack <= 8 * float(np.finfo(dtype.numpy).eps) * max(scale, 1e-30)


def test_a_ball_of_numbers_that_the_type_holds_stays():
    center, radius = ball_arrays(LpBall(np.full((2, 3), 0.5), np.array([0.25, 2.0]), 2), DType.FLOAT32, (3,))
    assert center.tolist() == [[0.5] * 3] * 2 and radius.tolist() == [0.25, 2.0]
    center, radius = ball_arrays(LpBall(np.full(3, 0.5), 0.25, 1), DType.FLOAT64, (3,))
    assert center.shape == (1, 3) and radius.tolist() == [0.25]
