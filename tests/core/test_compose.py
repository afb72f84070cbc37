"""Operators written in normalized ones compute what NumPy says they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from boundflow_core.errors import IRError
from boundflow_core.forward import evaluate_graph
from boundflow_core.frontends import compose
from boundflow_core.ir.constants import frozen
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import Operand, PrimalBuilder

Array = NDArray[Any]
_rng = np.random.default_rng(0)


def graph_of(shape: tuple[int, ...], write: Callable[[PrimalBuilder, Operand], Any]) -> PrimalGraph:
    g = PrimalBuilder("composed", "x", shape)
    return g.finish(write(g, g.input))


def check(
    shape: tuple[int, ...], write: Callable[[PrimalBuilder, Operand], Any], meaning: Callable[[Array], Array]
) -> None:
    """``write`` on a tensor and on a constant both give ``meaning``."""
    points = np.random.default_rng(1).normal(size=(3, *shape))
    wanted = np.stack([meaning(point) for point in points])
    np.testing.assert_allclose(evaluate_graph(graph_of(shape, write), points), wanted, rtol=1e-12, atol=1e-12)
    folded = write(PrimalBuilder("folded", "x", ()), frozen(points[0]))
    np.testing.assert_allclose(folded.numpy(), wanted[0], rtol=1e-12, atol=1e-12)


_SHAPES = [(3,), (3, 3), (1, 3, 3), (2, 3, 3), (2, 1, 3, 3)]


@pytest.mark.parametrize(("left", "right"), list(itertools.product(_SHAPES, _SHAPES)))
def test_matmul(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    weight = _rng.normal(size=right)
    check(left, lambda g, x: compose.matmul(g, x, frozen(weight)), lambda x: x @ weight)
    weight = _rng.normal(size=left)
    check(right, lambda g, y: compose.matmul(g, frozen(weight), y), lambda y: weight @ y)


@pytest.mark.parametrize("shape", _SHAPES)
def test_matmul_of_two_tensors(shape: tuple[int, ...]) -> None:
    check(shape, lambda g, x: compose.matmul(g, g.op("sin", x), x), lambda x: np.sin(x) @ x)
    check(
        shape,
        lambda g, x: compose.matmul(
            g, x, g.op("reshape", compose.slice_(g, compose.flatten(g, x), [0], [3]), shape=(3,))
        ),
        lambda x: x @ x.ravel()[:3],
    )


def test_matmul_by_a_constant_is_linear() -> None:
    weight = frozen(_rng.normal(size=(3, 3)))
    for shape in _SHAPES:
        assert "matmul" not in graph_of(shape, lambda g, x: compose.matmul(g, x, weight)).operators()
    for shape in ((3,), (3, 1), (2, 3, 1)):
        assert "matmul" not in graph_of(shape, lambda g, x: compose.matmul(g, weight, x)).operators()


@given(st.data())
def test_slice(data: st.DataObject) -> None:
    shape = (4, 5)
    place = st.integers(-8, 8)
    starts, stops = data.draw(st.tuples(place, place)), data.draw(st.tuples(place, place))
    steps = data.draw(st.tuples(*[st.integers(-3, 3).filter(bool)] * 2))
    index = tuple(map(slice, starts, stops, steps))
    x = np.arange(20.0).reshape(shape)
    if x[index].size == 0:
        with pytest.raises(IRError, match="empty"):
            graph_of(shape, lambda g, x: compose.slice_(g, x, starts, stops, steps))
    else:
        check(shape, lambda g, x: compose.slice_(g, x, starts, stops, steps), lambda x: x[index])


@given(st.data())
def test_gather(data: st.DataObject) -> None:
    axis = data.draw(st.integers(-2, 1))
    size = (4, 5)[axis]
    rank = data.draw(st.integers(0, 2))
    dims = tuple(data.draw(st.integers(1, 3)) for _ in range(rank))
    flat = data.draw(st.lists(st.integers(-size, size - 1), min_size=int(np.prod(dims)), max_size=int(np.prod(dims))))
    index = np.array(flat, np.int64).reshape(dims)
    check((4, 5), lambda g, x: compose.gather(g, x, index, axis), lambda x: np.take(x, index, axis))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(mode: str) -> None:
    check(
        (3, 4),
        lambda g, x: compose.pad(g, x, (1, 0), (2, 3), mode=mode),
        lambda x: np.pad(x, ((1, 2), (0, 3)), mode=mode),  # type: ignore[call-overload]
    )
    check((3, 4), lambda g, x: compose.pad(g, x, (-1, 0), (0, -2)), lambda x: x[1:, :2])


def test_layout() -> None:
    check((2, 3, 4), lambda g, x: compose.flatten(g, x, 1), lambda x: x.reshape(2, 12))
    check((2, 3, 4), lambda g, x: compose.reshape(g, x, (4, -1)), lambda x: x.reshape(4, 6))
    check((2, 3), lambda g, x: compose.tile(g, x, (2, 1, 3)), lambda x: np.tile(x, (2, 1, 3)))
    check((2, 3), lambda g, x: compose.tile(g, x, (2,)), lambda x: np.tile(x, 2))
    check((1, 3, 1), lambda g, x: compose.squeeze(g, x), lambda x: x[0, :, 0])
    check((1, 3, 1), lambda g, x: compose.squeeze(g, x, (0, 1), strict=False), lambda x: x[0])
    check((3,), lambda g, x: compose.unsqueeze(g, x, (0, -1)), lambda x: x[None, :, None])
    check((3, 1), lambda g, x: compose.expand(g, x, (2, 1, 4)), lambda x: np.broadcast_to(x, (2, 3, 4)))
    check((5, 2), lambda g, x: compose.split(g, x, (2, 3), 0)[1], lambda x: x[2:])
    with pytest.raises(IRError, match="size 1"):
        graph_of((2, 3), lambda g, x: compose.squeeze(g, x, (0,)))
    with pytest.raises(IRError, match="do not make up"):
        graph_of((5, 2), lambda g, x: compose.split(g, x, (2, 2), 0)[0])


def test_what_changes_nothing_writes_nothing() -> None:
    def write(g: PrimalBuilder, x: Operand) -> Any:
        x = compose.reshape(g, compose.permute(g, x, (0, 1)), (2, -1))
        x = compose.slice_(g, compose.expand(g, x, (1, 3)), [0], [99])
        x = compose.pad(g, compose.tile(g, x, (1, 1)), (0, 0), (0, 0))
        return compose.power(g, compose.gather(g, x, np.arange(3), 1), 1.0)

    assert graph_of((2, 3), write).nodes == ()


def test_normalizations() -> None:
    scale, bias, mean = (_rng.normal(size=3) for _ in range(3))
    var = _rng.uniform(0.5, 2.0, 3)
    check(
        (3, 2, 2),
        lambda g, x: compose.batch_norm(g, x, frozen(scale), frozen(bias), frozen(mean), frozen(var), 1e-3, axis=0),
        lambda x: ((x.T - mean) / np.sqrt(var + 1e-3) * scale + bias).T,
    )
    check(
        (2, 3),
        lambda g, x: compose.layer_norm(g, x, (-1,), frozen(scale), frozen(bias), 1e-3),
        lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * scale + bias,
    )


def test_functions() -> None:
    check((5,), lambda g, x: compose.hard_sigmoid(g, x, 0.3, 0.4), lambda x: np.clip(0.3 * x + 0.4, 0, 1))
    check((5,), lambda g, x: compose.elu(g, x, 0.7), lambda x: np.where(x > 0, x, 0.7 * np.expm1(x)))
    check((5,), compose.silu, lambda x: x / (1 + np.exp(-x)))
    check((5,), lambda g, x: compose.log_softmax(g, x, -1), lambda x: x - np.log(np.exp(x).sum()))
    for exponent in (-2.0, -1.0, 1.0, 2.0, 3.0):
        check((5,), lambda g, x, e=exponent: compose.power(g, x, e), lambda x, e=exponent: x**e)
    check((2, 3), lambda g, x: compose.reduce_mean(g, x, (-1,), keepdims=False), lambda x: x.mean(-1))


def _pooled(x: Array, kernel: int, stride: int, low: int, high: int, ceil: bool, include: bool) -> Array:
    """Average pool along the last axis, window by window.

    With ``ceil`` there is one more window where the last one does not reach the end, and none that starts beyond x.
    """
    length = x.shape[-1]
    result = []
    start = -low
    end = length + high
    while (start < length and start - stride + kernel < end) if ceil else start + kernel <= end:
        inside = [place for place in range(start, start + kernel) if 0 <= place < length]
        counted = [place for place in range(start, start + kernel) if -low <= place < length + high]
        result.append(x[..., inside].sum(-1) / len(counted if include else inside))
        start += stride
    return np.stack(result, -1)


@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2), st.booleans(), st.booleans(),
    st.integers(4, 7),
)  # fmt: skip
def test_average_pool(kernel: int, stride: int, low: int, high: int, ceil: bool, include: bool, length: int) -> None:
    low, high = min(low, kernel - 1), min(high, kernel - 1)
    check(
        (2, length),
        lambda g, x: compose.average_pool(
            g, x, (kernel,), (stride,), [(low, high)], ceil_mode=ceil, count_include_pad=include
        ),
        lambda x: _pooled(x, kernel, stride, low, high, ceil, include),
    )


def test_linear_matrix_interpolates() -> None:
    for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
        for n_in, n_out in ((3, 7), (7, 3), (1, 4), (4, 1), (4, 4)):
            matrix = compose.linear_matrix(n_in, n_out, coordinates=coordinates)
            assert matrix.shape == (n_out, n_in)
            assert (matrix >= 0).all()
            np.testing.assert_allclose(matrix.sum(axis=1), 1)
    np.testing.assert_allclose(
        compose.linear_matrix(3, 5, coordinates="align_corners") @ [0, 1, 2], [0, 0.5, 1, 1.5, 2]
    )
    np.testing.assert_allclose(compose.linear_matrix(2, 4) @ [0, 1], [0, 0.25, 0.75, 1])


def test_resize() -> None:
    index = compose.nearest_index(3, 6)
    assert index.tolist() == [0, 0, 1, 1, 2, 2]
    check((3, 2), lambda g, x: compose.resize_nearest(g, x, {0: index}), lambda x: x.repeat(2, 0))
    matrix = compose.linear_matrix(3, 4)
    check(
        (3, 2, 3), lambda g, x: compose.resize_linear(g, x, {0: matrix}), lambda x: np.einsum("ij,jkl->ikl", matrix, x)
    )
