"""Affine forms: soundness around every operator, what they make of networks of few inputs, and crown with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from crown_networks import residual, small_mlp, tanh_net
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from running import run_once
from test_methods import attacked, regions, rows

import boundflow_core as bf
from boundflow_core.errors import OptionError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.plugins import registry
from boundflow_core.testing import op_cases
from boundflow_core.walk import forward_states
from boundflow_crown.forms import RULES, interval_by_forms
from boundflow_crown.relax import RELAXATIONS
from boundflow_interval import Interval

Array = NDArray[Any]
OPS = sorted({*RULES, *RELAXATIONS, "concat", "matmul", "maximum", "max_pool2d", "softmax"})
NETWORKS: dict[str, Callable[[int], PrimalGraph]] = {"mlp": small_mlp, "tanh": tanh_net, "residual": residual}


def by_forms(graph: PrimalGraph, lower: Array, upper: Array) -> tuple[Array, Array, Array, Array]:
    """Bounds of the output by forms, and by intervals, [B, n]."""
    b = Builder(DType.FLOAT64)
    shape = (SymDim.of("B"), *graph.input_type.shape)
    region = Interval(b.input("lower", shape, group="region"), b.input("upper", shape, group="region"))
    states = forward_states(b, graph, registry().domain("interval").rules, region, domain="interval")
    forms, intervals = interval_by_forms(b, graph, region, states, graph.output), states[graph.output]
    program = b.finish({"a": forms.lower, "b": forms.upper, "c": intervals.lower, "d": intervals.upper})
    with np.errstate(all="ignore"):
        found = run_once(program, {"lower": lower.astype(float), "upper": upper.astype(float)}, "reference")
    first, second, third, fourth = (found[name].reshape(len(lower), -1) for name in "abcd")
    return first, second, third, fourth


@pytest.mark.parametrize("op", OPS)
def test_points_lie_within(op: str) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=op_cases(op), seed=st.integers(0, 1000))
    def check(case: Any, seed: int) -> None:
        lower, upper, *_ = by_forms(case.graph, case.lower, case.upper)
        share = np.random.default_rng(seed).random((len(case.lower), 20, *case.lower.shape[1:]))
        share[:, :8] = share[:, :8].round()
        low, high = case.lower[:, None].astype(float), case.upper[:, None].astype(float)
        y = case.outputs(low + share * (high - low))
        room = 1e-9 * (1 + np.abs(y).max(initial=0))
        known = ~np.isnan(lower)[:, None], ~np.isnan(upper)[:, None]
        assert ((y >= lower[:, None] - room) | ~known[0] | np.isnan(y)).all()
        assert ((y <= upper[:, None] + room) | ~known[1] | np.isnan(y)).all()

    check()


def test_affine_networks_lose_nothing() -> None:
    rng = np.random.default_rng(0)
    g = PrimalBuilder("affine", "x", (2,))
    y = g.op("linear", g.input, rng.normal(size=(12, 2)), rng.normal(size=12))
    y = g.op(
        "mul", g.op("add", g.op("reshape", y, shape=(3, 2, 2)), rng.normal(size=(3, 1, 2))), rng.normal(size=(2, 1))
    )
    window = {"stride": (1, 1), "padding": (1, 0, 0, 1), "dilation": (1, 1), "groups": 1}
    y = g.op("conv2d", y, rng.normal(size=(2, 3, 2, 2)), rng.normal(size=2), **window)
    y = g.op("conv_transpose2d", y, rng.normal(size=(2, 1, 2, 2)), rng.normal(size=1), **window, output_padding=(0, 0))
    y = g.op("pad", y, low=(0, 1, 0), high=(0, 0, 1), value=0.75)
    y = g.op("add", y, g.op("mul", g.op("permute", y, axes=(0, 1, 2)), np.array(-0.5)))
    graph = g.finish(g.op("reduce_sum", y, axes=(1,), keepdims=False))
    x = rng.normal(size=(4, 2))
    eps = np.array([0.5, 0.0])
    lower, upper, low, high = by_forms(graph, x - eps, x + eps)
    from boundflow_core.forward import evaluate_graph

    ends = [evaluate_graph(graph, x + sign * eps).reshape(4, -1) for sign in (-1, 1)]
    np.testing.assert_allclose(lower, np.minimum(*ends), atol=1e-9)
    np.testing.assert_allclose(upper, np.maximum(*ends), atol=1e-9)
    assert (high - low).sum() > 1.5 * (upper - lower).sum()  # intervals lose what terms share


@pytest.mark.parametrize("name", NETWORKS)
def test_crown_with_forms_is_sound_and_hardly_ever_looser(name: str) -> None:
    graph = NETWORKS[name](3)
    region = regions(graph, 5)
    outputs = attacked(graph, region, 4)
    run: dict[str, Any] = {"method": "crown", "executor": "reference", "dtype": "float64"}
    found = bf.bound(graph, region, forward=True, **run)
    assert (outputs >= found.lower - 1e-10).all() and (outputs <= found.upper + 1e-10).all()
    spec = rows(5)
    on_rows = np.einsum("bsn,kbn->kbs", spec.C, outputs) + spec.offset
    found, plain = (bf.bound(graph, region, spec=spec, forward=forward, **run) for forward in (True, False))
    assert (on_rows >= found.lower - 1e-10).all() and (on_rows <= found.upper + 1e-10).all()
    width, before = found.upper - found.lower, plain.upper - plain.lower
    assert width.sum() < 1.02 * before.sum()
    exact = bf.bound(graph, region, spec=spec, forward=True, rounding="outward", **run)
    np.testing.assert_allclose(exact.lower, found.lower, atol=1e-6)
    assert (exact.lower <= found.lower).all() and (exact.upper >= found.upper).all()


def test_company_changes_nothing_and_balls_are_left_to_rows() -> None:
    graph = small_mlp(2)
    region, run = regions(graph, 5), {"method": "crown", "forward": True, "executor": "reference", "dtype": "float64"}
    together = bf.bound(graph, region, **run)
    for number in range(5):
        one = bf.bound(graph, bf.Box(region.lower[number], region.upper[number]), **run)
        np.testing.assert_allclose(one.lower[0], together.lower[number], atol=1e-12)
    ball = bf.LpBall((region.lower + region.upper) / 2, np.full(5, 0.1), p=2)
    ours, plain = bf.bound(graph, ball, **run), bf.bound(graph, ball, **{**run, "forward": False})
    np.testing.assert_array_equal(ours.lower, plain.lower)
    with pytest.raises(OptionError, match="forward"):
        bf.compile(graph, method="crown", forward="yes")
