"""Composites against direct computation in NumPy: exact extremes of the affine map, element by element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.program import Composite
from boundflow_core.ir.types import DType
from boundflow_interval import INTERVAL_CONV2D, INTERVAL_CONV2D_INPUT_GRAD, INTERVAL_MATMUL, SPEC_LINEAR

Array = NDArray[Any]
CONV = {"stride": (2, 1), "padding": (1, 0, 0, 1), "dilation": (1, 2), "groups": 2}


def _run(
    composite: Composite, arrays: list[Array], attributes: Mapping[str, Any], dtype: str = "float64"
) -> list[Array]:
    b = Builder(DType(dtype))
    values = [b.input(f"v{i}", array.shape) for i, array in enumerate(arrays)]
    lower, upper = b.emit(composite, *values, **attributes)
    results = evaluate(b.finish({"l": lower, "u": upper}), {f"v{i}": array for i, array in enumerate(arrays)})
    return [results["l"], results["u"]]


def _box(*shape: int, seed: int = 0) -> tuple[Array, Array, np.random.Generator]:
    rng = np.random.default_rng(seed)
    lower = rng.normal(size=shape)
    return lower, lower + np.abs(rng.normal(size=shape)), rng


def _extremes(matrix: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Extremes of matrix [m, n] times vectors [.., n]: each weight takes the end that its sign asks for."""
    plus, minus = np.maximum(matrix, 0), np.minimum(matrix, 0)
    return lower @ plus.T + upper @ minus.T, upper @ plus.T + lower @ minus.T


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
def test_matmul_from_the_right(transpose: bool, bias: bool) -> None:
    lower, upper, rng = _box(3, 5)
    weight, offset = rng.normal(size=(4, 5)), rng.normal(size=4) * bias
    operands = [lower, upper, weight if transpose else weight.T, *([offset] if bias else [])]
    low, high = _run(INTERVAL_MATMUL, operands, {"side": "right", "transpose": transpose})
    expected = _extremes(weight, lower, upper)
    np.testing.assert_allclose(low, expected[0] + offset, rtol=1e-12)
    np.testing.assert_allclose(high, expected[1] + offset, rtol=1e-12)


@pytest.mark.parametrize("transpose", [False, True])
def test_matmul_from_the_left(transpose: bool) -> None:
    lower, upper, rng = _box(3, 5, 2)
    weight = rng.normal(size=(4, 5))
    operands = [lower, upper, weight.T if transpose else weight]
    low, high = _run(INTERVAL_MATMUL, operands, {"side": "left", "transpose": transpose})
    expected = _extremes(weight, lower.swapaxes(1, 2), upper.swapaxes(1, 2))
    np.testing.assert_allclose(low, expected[0].swapaxes(1, 2), rtol=1e-12)
    np.testing.assert_allclose(high, expected[1].swapaxes(1, 2), rtol=1e-12)


def _as_matrix(composite: Composite, weight: Array, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Array:
    """The linear map of ``composite`` on ``shape`` as a matrix: its value on the points of the standard basis."""
    basis = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    columns, _ = _run(composite, [basis, basis, weight], attributes)
    return columns.reshape(len(basis), -1).T


@pytest.mark.parametrize("bias", [False, True])
def test_conv2d(bias: bool) -> None:
    lower, upper, rng = _box(2, 4, 5, 4)
    weight, offset = rng.normal(size=(6, 2, 2, 2)), rng.normal(size=6) * bias
    operands = [lower, upper, weight, *([offset] if bias else [])]
    low, high = _run(INTERVAL_CONV2D, operands, CONV)
    matrix = _as_matrix(INTERVAL_CONV2D, weight, (4, 5, 4), CONV)
    expected = _extremes(matrix, lower.reshape(2, -1), upper.reshape(2, -1))
    for bound, exact in zip((low, high), expected, strict=True):
        np.testing.assert_allclose(bound, exact.reshape(bound.shape) + offset[:, None, None], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bias", [False, True])
def test_conv2d_input_grad(bias: bool) -> None:
    attributes = {**CONV, "input_size": (5, 4)}
    lower, upper, rng = _box(2, 6, 3, 3)
    weight, offset = rng.normal(size=(6, 2, 2, 2)), rng.normal(size=4) * bias
    operands = [lower, upper, weight, *([offset] if bias else [])]
    low, high = _run(INTERVAL_CONV2D_INPUT_GRAD, operands, attributes)
    matrix = _as_matrix(INTERVAL_CONV2D_INPUT_GRAD, weight, (6, 3, 3), attributes)
    expected = _extremes(matrix, lower.reshape(2, -1), upper.reshape(2, -1))
    for bound, exact in zip((low, high), expected, strict=True):
        np.testing.assert_allclose(bound, exact.reshape(bound.shape) + offset[:, None, None], rtol=1e-11, atol=1e-11)


def test_matrix_of_conv2d_input_grad_is_the_adjoint_of_that_of_conv2d() -> None:
    weight = np.random.default_rng(1).normal(size=(6, 2, 2, 2))
    forward = _as_matrix(INTERVAL_CONV2D, weight, (4, 5, 4), CONV)
    backward = _as_matrix(INTERVAL_CONV2D_INPUT_GRAD, weight, (6, 3, 3), {**CONV, "input_size": (5, 4)})
    np.testing.assert_allclose(forward, backward.T, rtol=1e-12)


@pytest.mark.parametrize("groups", [1, 3])
def test_spec_linear(groups: int) -> None:
    lower, upper, rng = _box(3, 5)
    rows, offset = rng.normal(size=(groups, 2, 5)), rng.normal(size=(groups, 2))
    low, high = _run(SPEC_LINEAR, [lower, upper, rows, offset], {})
    assert low.shape == (3, 2)
    for region in range(3):
        own = region if groups > 1 else 0
        expected = _extremes(rows[own], lower[region], upper[region])
        np.testing.assert_allclose(low[region], expected[0] + offset[own], rtol=1e-12)
        np.testing.assert_allclose(high[region], expected[1] + offset[own], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-8, 1.0, 1e30])
def test_bounds_never_cross(size: float, dtype: str) -> None:
    lower, upper, rng = _box(4, 50)
    lower, upper = lower.astype(dtype), np.maximum(lower, (lower + size * (upper - lower))).astype(dtype)
    weight = rng.normal(size=(9, 50))
    low, high = _run(INTERVAL_MATMUL, [lower, upper, weight], {"side": "right", "transpose": True}, dtype)
    assert (low <= high).all()


def test_bounds_of_largest_numbers_do_not_overflow() -> None:
    largest = np.full((1, 1), np.finfo(np.float64).max)
    low, high = _run(INTERVAL_MATMUL, [largest, largest, np.ones((1, 1))], {"side": "right", "transpose": True})
    assert low == high == largest
