"""Option ``linear``: the linear functions of the input below and above the rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from crown_networks import residual, small_mlp, tanh_net

import boundflow_core as bf
from boundflow_core.errors import OptionError
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.normalize import normalize


def convolutions(seed: int) -> PrimalGraph:
    """Rows of its last convolution are windows of the image."""
    rng = np.random.default_rng(seed)
    window = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    g = PrimalBuilder("convolutions", "x", (1, 8, 8))
    y = g.op("relu", g.op("conv2d", g.input, rng.normal(size=(2, 1, 3, 3)), rng.normal(size=2), **window))
    return normalize(
        g.finish(g.op("conv2d", y, rng.normal(size=(1, 2, 3, 3)), rng.normal(size=1), **window)), batch_axis=False
    )


NETWORKS: dict[str, Callable[[int], PrimalGraph]] = {
    "mlp": small_mlp,
    "tanh": tanh_net,
    "residual": residual,
    "convolutions": convolutions,
}


def region_of(graph: PrimalGraph, kind: str) -> bf.Region:
    x = np.random.default_rng(1).normal(size=(3, *graph.input_type.shape))
    if kind == "box":
        return bf.Box(x - 0.1, x + 0.1)
    return bf.LpBall(x, np.full(3, 0.2), p=2)


@pytest.mark.parametrize("kind", ["box", "ball"])
@pytest.mark.parametrize("method", ["crown-ibp", "crown"])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_lie_between_the_linear_functions_and_these_give_the_bounds(name: str, method: str, kind: str) -> None:
    graph = NETWORKS[name](0)
    region = region_of(graph, kind)
    plain = bf.bound(graph, region, method=method, intersect=False, executor="reference", dtype="float64")
    found = bf.bound(graph, region, method=method, intersect=False, executor="reference", dtype="float64", linear=True)
    np.testing.assert_allclose(found.lower, plain.lower, rtol=1e-12, atol=1e-12)
    assert not plain.linear and set(found.linear) == {"lower", "upper"}
    numbers = np.random.default_rng(2)
    (A, b), (A_up, b_up) = found.linear["lower"], found.linear["upper"]
    outputs = graph.output_type.shape
    assert A.shape == A_up.shape == (3, *outputs, *graph.input_type.shape) and b.shape == (3, *outputs)
    flat, flat_up = A.reshape(3, b[0].size, -1), A_up.reshape(3, b[0].size, -1)
    if isinstance(region, bf.Box):
        low, high = (np.asarray(side).reshape(3, -1) for side in (region.lower, region.upper))
        points = low + numbers.random((50, *low.shape)) * (high - low)
        reach = np.einsum("bsn,bn->bs", np.abs(flat), (high - low) / 2)
        middle = (low + high) / 2
    else:
        middle = np.asarray(region.center).reshape(3, -1)
        step = numbers.normal(size=(50, *middle.shape))
        points = middle + 0.2 * step / np.linalg.norm(step, axis=-1, keepdims=True)
        reach = 0.2 * np.linalg.norm(flat, axis=-1)
    least = np.einsum("bsn,bn->bs", flat, middle) + b.reshape(3, -1) - reach
    np.testing.assert_allclose(least, found.lower.reshape(3, -1), rtol=1e-9, atol=1e-9)
    for x in points:
        y = evaluate_graph(graph, x.reshape(3, *graph.input_type.shape)).reshape(3, -1)
        assert np.all(np.einsum("bsn,bn->bs", flat, x) + b.reshape(3, -1) <= y + 1e-9)
        assert np.all(np.einsum("bsn,bn->bs", flat_up, x) + b_up.reshape(3, -1) >= y - 1e-9)


def test_rows_and_one_side() -> None:
    graph = small_mlp()
    region, spec = (
        region_of(graph, "box"),
        bf.LinearSpec(np.array([[1.0, -1.0, 0.5], [0.0, 2.0, 1.0]]), np.array([0.5, 0.0])),
    )
    found = bf.bound(graph, region, spec=spec, method="crown", side="lower", linear=True, executor="reference")
    assert set(found.linear) == {"lower"}
    A, b = found.linear["lower"]
    assert A.shape == (3, 2, 5) and b.shape == (3, 2)
    one = bf.Box(region.lower[:1], region.upper[:1])
    single = bf.bound(graph, one, spec=spec, method="crown", linear=True, executor="reference")
    np.testing.assert_allclose(single.linear["lower"][0], A[:1], rtol=1e-4, atol=1e-5)


def test_coefficients_are_not_given_as_if_they_were_exact() -> None:
    for method in ("crown-ibp", "crown"):
        with pytest.raises(OptionError, match="linear=True"):
            bf.bound(
                small_mlp(),
                region_of(small_mlp(), "box"),
                method=method,
                linear=True,
                dtype="float64",
                rounding="outward",
            )
    with pytest.raises(OptionError, match="linear"):
        bf.compile(small_mlp(), method="crown", linear="yes")
