"""Rules of several operands: the planes hold at random places of random boxes, and are exact where they can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import DType, size
from boundflow_core.walk import forward_states
from boundflow_crown.domain import RULES, is_relaxed
from boundflow_crown.rows import Rows
from boundflow_crown.walk import Start, walk_back
from boundflow_interval import INTERVAL, Interval

Array = NDArray[np.float64]
Write = Callable[[PrimalBuilder], Any]

POOL = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0), "dilation": (1, 1)}


def half(g: PrimalBuilder, number: int) -> Any:
    return g.op("slice", g.input, starts=(3 * number, 0), stops=(3 * number + 3, 4), steps=(1, 1))


def images(g: PrimalBuilder, **attrs: Any) -> Any:
    return g.op("max_pool2d", g.op("reshape", g.input, shape=(1, 6, 4)), **{**POOL, **attrs})


NETWORKS: Mapping[str, Write] = {
    "maximum": lambda g: g.op("maximum", half(g, 0), half(g, 1)),
    "minimum": lambda g: g.op("minimum", half(g, 0), half(g, 1)),
    "maximum of a constant": lambda g: g.op("maximum", g.input, np.linspace(-1.0, 1.0, 4)),
    "minimum of a constant": lambda g: g.op("minimum", np.linspace(-1.0, 1.0, 4), g.input),
    "maximum of itself": lambda g: g.op("maximum", g.input, g.input),
    "maximum, broadcast": lambda g: g.op(
        "maximum", g.input, g.op("slice", g.input, starts=(0, 1), stops=(1, 4), steps=(1, 3))
    ),
    "reduce_max": lambda g: g.op("reduce_max", g.input, axes=(1,), keepdims=False),
    "reduce_max, kept": lambda g: g.op("reduce_max", g.input, axes=(0,), keepdims=True),
    "reduce_max of all": lambda g: g.op("reduce_max", g.input, axes=(0, 1), keepdims=False),
    "reduce_min": lambda g: g.op("reduce_min", g.input, axes=(0,), keepdims=False),
    "max_pool2d": lambda g: images(g),
    "max_pool2d, overlapping": lambda g: images(g, kernel=(3, 2), stride=(1, 1)),
    "max_pool2d, padded": lambda g: images(g, kernel=(3, 3), padding=(1, 1, 1, 0)),
    "max_pool2d, dilated": lambda g: images(g, stride=(1, 2), dilation=(3, 2)),
    "softmax": lambda g: g.op("softmax", g.input, axis=1),
    "softmax, first axis": lambda g: g.op("softmax", g.input, axis=0),
    "mul": lambda g: g.op("mul", half(g, 0), half(g, 1)),
    "matmul": lambda g: g.op("matmul", half(g, 0), g.op("permute", half(g, 1), axes=(1, 0))),
}

every_network = pytest.mark.parametrize("name", NETWORKS)


def planes(name: str, lower: Array, upper: Array) -> tuple[PrimalGraph, Array, Array]:
    """Coefficients [2 n, 6, 4] and biases [2 n] from below of every output and of its negative, for one region."""
    g = PrimalBuilder(name, "x", (6, 4))
    graph = g.finish(NETWORKS[name](g))
    n = size(graph.output_type.shape)
    assert isinstance(n, int)
    b = Builder(DType.FLOAT64)
    region = Interval(b.input("lower", (1, 6, 4)), b.input("upper", (1, 6, 4)))
    states: dict[str, Interval] = forward_states(b, graph, INTERVAL.rules, region, domain="interval")
    start = b.constant(np.eye(n).reshape(1, n, *map(int, graph.output_type.shape)))  # type: ignore[arg-type]
    rows, bias, _ = walk_back(
        b,
        graph,
        RULES,
        lambda node: is_relaxed(graph, node),
        Start(graph.output, start, None, Rows(b, (1, n))),
        states,
        {"slope": "adaptive"},
        both=True,
    )
    zero: Value = b.reduce_sum(rows * 0.0, (2, 3))
    program = b.finish({"rows": rows, "bias": bias if bias is not None else zero})
    found = evaluate(program, {"lower": lower[None], "upper": upper[None]})
    return graph, found["rows"][0], found["bias"][0]


def outputs(graph: PrimalGraph, x: Array) -> Array:
    """Every output and its negative, [2 n, points]."""
    y = evaluate_graph(graph, x).reshape(len(x), -1).T
    return np.concatenate([y, -y])


@every_network
@given(seed=st.integers(0, 2**32 - 1), radius=st.sampled_from([0.0, 1e-6, 0.1, 1.0, 30.0]), ties=st.booleans())
def test_planes_hold(name: str, seed: int, radius: float, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    centre, spread = rng.normal(size=(6, 4)), radius * rng.uniform(size=(6, 4))
    if ties:
        centre, spread = np.round(centre), np.round(spread)
    lower, upper = centre - spread, centre + spread
    graph, rows, bias = planes(name, lower, upper)
    share = np.concatenate([rng.uniform(size=(40, 6, 4)), rng.integers(0, 2, size=(60, 6, 4))])
    x = np.clip(lower + share * (upper - lower), lower, upper)
    below = np.einsum("rij,pij->rp", rows, x) + bias[:, None]
    assert np.all(np.isfinite(below))
    assert np.max(below - outputs(graph, x)) <= 1e-12 * (1.0 + np.abs(below).max()) * (1.0 + radius) ** 2


@every_network
def test_planes_are_exact_on_points(name: str) -> None:
    x = np.random.default_rng(3).normal(size=(6, 4))
    graph, rows, bias = planes(name, x, x)
    below = np.einsum("rij,ij->r", rows, x) + bias
    np.testing.assert_allclose(below, outputs(graph, x[None])[:, 0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["reduce_max", "reduce_min", "max_pool2d", "maximum", "minimum"])
def test_extrema_are_exact_where_one_dominates(name: str) -> None:
    """Where no other can be larger, rows and biases of outputs and of their negatives are each other's negatives."""
    centre = np.random.default_rng(1).permutation(24).reshape(6, 4).astype(float)
    _, rows, bias = planes(name, centre - 0.3, centre + 0.3)
    n = len(rows) // 2
    np.testing.assert_array_equal(rows[:n], -rows[n:])
    np.testing.assert_allclose(bias[:n], -bias[n:], atol=1e-15)


def test_upper_planes_of_maxima_are_below_the_largest_bound() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        centre, spread = rng.normal(size=(6, 4)), rng.uniform(size=(6, 4))
        _, rows, bias = planes("reduce_max", centre - spread, centre + spread)
        n = len(rows) // 2
        highest = -(bias[n:] + np.einsum("rij,ij->r", rows[n:], centre) - np.einsum("rij,ij->r", abs(rows[n:]), spread))
        np.testing.assert_allclose(highest, (centre + spread).max(axis=1), rtol=1e-12)


def test_softmax_of_large_numbers_stays_finite() -> None:
    """Where exp overflows."""
    centre = np.random.default_rng(5).normal(size=(6, 4)) * 2000.0
    graph, rows, bias = planes("softmax", centre - 500.0, centre + 500.0)
    assert np.all(np.isfinite(rows)) and np.all(np.isfinite(bias))
    below = np.einsum("rij,ij->r", rows, centre) + bias
    assert np.all(below <= outputs(graph, centre[None])[:, 0] + 1e-9)


@pytest.mark.parametrize("name", ["reduce_max", "reduce_min", "max_pool2d", "softmax", "mul", "matmul", "maximum"])
@pytest.mark.parametrize(
    "ends", [(np.nan, np.nan), (-np.inf, np.inf), (0.0, np.inf), (-np.inf, 0.0), (-1.7e308, 1.7e308)]
)
def test_unbounded_elements_give_no_wrong_planes(name: str, ends: tuple[float, float]) -> None:
    rng = np.random.default_rng(7)
    lower, upper = rng.normal(size=(6, 4)), np.empty((6, 4))
    upper[:] = lower + 1.0
    lower[:, 1], upper[:, 1] = ends
    graph, rows, bias = planes(name, lower, upper)
    x = np.clip(rng.normal(size=(50, 6, 4)) * 5.0, np.nan_to_num(lower), np.nan_to_num(upper))
    with np.errstate(all="ignore"):
        below = np.einsum("rij,pij->rp", rows, x) + bias[:, None]
        assert not np.any(below > outputs(graph, x) + 1e-9 * (1.0 + np.abs(x).max()))


def test_padding_takes_no_share_of_a_plane() -> None:
    """Where no element has a lower bound, the border must not be among those whose mean is the lower plane."""
    upper = np.full((6, 4), -3.0)
    graph, rows, bias = planes("max_pool2d, padded", np.full((6, 4), -np.inf), upper)
    n = len(rows) // 2
    below = np.einsum("rij,ij->r", rows[:n], upper) + bias[:n]
    assert np.all(np.isfinite(below))
    assert np.max(below - outputs(graph, upper[None])[:n, 0]) <= 1e-12
