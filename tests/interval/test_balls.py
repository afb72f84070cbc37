"""Intervals over balls of the norms 1 and 2: the dual norm in the first affine operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import boundflow_core as bf
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder

Array = NDArray[Any]
CENTER = np.random.default_rng(5).normal(size=(2, 2, 4, 3))
EPS = np.array([0.3, 1.5])


def _linear(rng: np.random.Generator) -> PrimalGraph:
    """A flattened image, so that the ball must come through a reshape and a permute."""
    g = PrimalBuilder("linear", "x", (2, 4, 3))
    y = g.op("reshape", g.op("permute", g.input, axes=(1, 2, 0)), shape=(24,))
    return g.finish(g.op("linear", y, rng.normal(size=(5, 24)), rng.normal(size=5)))


def _rows(rng: np.random.Generator) -> PrimalGraph:
    """A linear operator on the last of three axes."""
    g = PrimalBuilder("rows", "x", (2, 4, 3))
    return g.finish(g.op("linear", g.input, rng.normal(size=(5, 3))))


def _conv(rng: np.random.Generator, padding: tuple[int, ...] = (0, 0, 0, 0)) -> PrimalGraph:
    g = PrimalBuilder("conv", "x", (2, 4, 3))
    window = {"stride": (2, 1), "padding": padding, "dilation": (1, 1), "groups": 1}
    return g.finish(g.op("conv2d", g.input, rng.normal(size=(3, 2, 2, 2)), rng.normal(size=3), **window))


def _padded(rng: np.random.Generator) -> PrimalGraph:
    return _conv(rng, (1, 0, 1, 1))


def _matrix(graph: PrimalGraph) -> tuple[Array, Array]:
    """An affine network as a matrix [outputs, inputs] and an offset."""
    shape = graph.input_type.shape
    inputs = np.concatenate([np.zeros((1, 24)), np.eye(24)]).reshape(25, *shape)
    outputs = evaluate_graph(graph, inputs).reshape(25, -1)
    return (outputs[1:] - outputs[0]).T, outputs[0]


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("build", [_linear, _rows, _conv, _padded])
def test_an_affine_network_has_its_exact_range(build: Any, p: int) -> None:
    graph = build(np.random.default_rng(0))
    matrix, offset = _matrix(graph)
    spread = EPS[:, None] * (np.abs(matrix).max(1) if p == 1 else np.sqrt((matrix**2).sum(1)))
    middle = CENTER.reshape(2, 24) @ matrix.T + offset
    found = bf.bound(graph, bf.LpBall(CENTER, EPS, p), method="ibp", executor="reference", dtype="float64")
    lower, upper = found.lower.reshape(2, -1), found.upper.reshape(2, -1)
    if build is _padded and p == 1:  # the largest weight may be one that lies on padding
        assert (lower <= middle - spread + 1e-12).all() and (middle + spread - 1e-12 <= upper).all()
    else:
        np.testing.assert_allclose(lower, middle - spread, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(upper, middle + spread, rtol=1e-12, atol=1e-12)


def test_the_ball_is_forgotten_where_it_no_longer_holds() -> None:
    """After doubling, a ball that came along would be too small."""
    g = PrimalBuilder("doubled", "x", (3,))
    graph = g.finish(g.op("linear", g.op("mul", g.input, np.full(3, 2.0)), np.ones((1, 3))))
    found = bf.bound(graph, bf.LpBall(np.zeros(3), 1.0, 2), method="ibp", executor="reference", dtype="float64")
    assert found.upper[0, 0] >= 2 * np.sqrt(3) - 1e-12
