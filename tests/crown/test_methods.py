"""The methods crown-ibp and crown: soundness, and that nothing but the network, the region and the rows matters."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from crown_networks import residual, small_mlp, tanh_net
from numpy.typing import NDArray

import boundflow_core as bf
from boundflow_core.compiled import CompiledBounds, CompileOptions
from boundflow_core.errors import InputError, OptionError, UnsupportedOpError
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.normalize import normalize
from boundflow_core.plugins import registry
from boundflow_core.testing import Expectations, check_op_rule

Array = NDArray[Any]
NETWORKS: dict[str, Callable[[int], PrimalGraph]] = {"mlp": small_mlp, "tanh": tanh_net, "residual": residual}
METHODS = ("crown-ibp", "crown")
OPS = sorted(registry().domain("linear").rules)

networks = pytest.mark.parametrize("name", NETWORKS)
methods = pytest.mark.parametrize("method", METHODS)
executors = [
    "reference",
    pytest.param(
        "torch", marks=pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
    ),
]


def regions(graph: PrimalGraph, count: int, seed: int = 1) -> bf.Box:
    """Boxes of widths from nothing to large."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, *graph.input_type.shape))
    eps = np.geomspace(0.01, 1.0, count).reshape(-1, *[1] * (x.ndim - 1)) * rng.random(x.shape)
    eps[0] = 0 if count > 4 else eps[0]
    return bf.Box(x - eps, x + eps)


def rows(count: int, seed: int = 2) -> bf.LinearSpec:
    rng = np.random.default_rng(seed)
    return bf.LinearSpec(rng.normal(size=(count, 4, 3)), rng.normal(size=(count, 4)))


def bound(
    graph: PrimalGraph, region: bf.Region, method: str, executor: str = "reference", **keywords: Any
) -> bf.Bounds:
    return bf.bound(graph, region, method=method, executor=executor, dtype="float64", **keywords)


def equal(one: bf.Bounds, other: bf.Bounds, tolerance: float = 1e-12) -> None:
    for a, b in ((one.lower, other.lower), (one.upper, other.upper)):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


# -- soundness --------------------------------------------------------------------------------------------------------


@methods
@pytest.mark.parametrize("op", OPS)
def test_kit(op: str, method: str) -> None:
    """Not monotone: a smaller region may make another slope the better one."""
    check_op_rule(op, method, expect=Expectations(monotone=False), executors=(), dtypes=("float64",), examples=12)


@methods
@pytest.mark.parametrize("slope", ["same", "zero", "one"])
@pytest.mark.parametrize("op", ["relu", "leaky_relu", "abs", "maximum", "max_pool2d"])
def test_kit_with_other_slopes_and_without_intersection(op: str, slope: str, method: str) -> None:
    options = {"slope": slope, "intersect": False}
    expect = Expectations(monotone=False, finite=False)
    check_op_rule(op, method, expect=expect, options=options, executors=(), dtypes=("float64",), examples=8)


@methods
@pytest.mark.parametrize("op", ["linear", "conv2d", "relu", "add", "tanh"])
def test_kit_in_float32_on_executors(op: str, method: str) -> None:
    check_op_rule(op, method, dtypes=("float32",), expect=Expectations(monotone=False), examples=12)


def attacked(graph: PrimalGraph, region: bf.Box, seed: int) -> Array:
    """Outputs [K, B, n] at random points, at corners, and along an ascent of each output by signs of differences."""
    rng = np.random.default_rng(seed)
    lower, upper = region.lower, region.upper

    def at(points: Array) -> Array:
        return evaluate_graph(graph, points).reshape(len(points), -1)

    found = [at(lower + (upper - lower) * rng.random(lower.shape).round(turn % 2)) for turn in range(100)]
    for output in range(found[0].shape[1]):
        for sign in (1.0, -1.0):
            x = lower + (upper - lower) * rng.random(lower.shape)
            for _ in range(25):
                direction = rng.choice([-1.0, 1.0], size=x.shape)
                change = at(x + 1e-6 * direction)[:, output] - at(x)[:, output]
                step = direction * np.sign(sign * change).reshape(-1, *[1] * (x.ndim - 1))
                x = np.clip(x + 0.3 * (upper - lower) * step, lower, upper)
                found.append(at(x))
    return np.stack(found)


@networks
@methods
def test_sampled_and_attacked_points_lie_within(name: str, method: str) -> None:
    graph = NETWORKS[name](3)
    region = regions(graph, 5)
    outputs = attacked(graph, region, 4)
    found = bound(graph, region, method)
    assert (outputs >= found.lower - 1e-10).all() and (outputs <= found.upper + 1e-10).all()
    spec = rows(5)
    on_rows = np.einsum("bsn,kbn->kbs", spec.C, outputs) + spec.offset
    found = bound(graph, region, method, spec=spec)
    assert (on_rows >= found.lower - 1e-10).all() and (on_rows <= found.upper + 1e-10).all()


@networks
def test_a_method_is_never_looser_than_intervals(name: str) -> None:
    graph = NETWORKS[name](5)
    region, spec = regions(graph, 6), rows(6)
    loose = bound(graph, region, "ibp", spec=spec)
    for method in METHODS:
        found = bound(graph, region, method, spec=spec)
        assert (found.lower >= loose.lower - 1e-12).all() and (found.upper <= loose.upper + 1e-12).all()
        assert (found.upper - found.lower).sum() < 0.9 * (loose.upper - loose.lower).sum()


def ball_points(center: Array, eps: Array, p: float, rng: np.random.Generator, count: int) -> Array:
    """Points [count, B, *input] on the surfaces of balls, some of them in few coordinates."""
    shape = (count, *center.shape)
    d = rng.normal(size=shape) * (rng.random(shape) < rng.choice([0.2, 1.0], size=(count, *[1] * center.ndim)))
    norm = (np.abs(d) ** p).reshape(count, len(center), -1).sum(2) ** (1 / p)
    scale = eps / np.where(norm > 0, norm, 1.0)
    return np.asarray(center + d * scale.reshape(count, -1, *[1] * (center.ndim - 1)))


@networks
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("executor", executors)
def test_balls(name: str, p: float, executor: str) -> None:
    """Sampled points lie within, and the bounds are those of the ball, which its box would loosen."""
    graph, rng = NETWORKS[name](6), np.random.default_rng(7)
    center, eps = rng.normal(size=(3, *graph.input_type.shape)), np.array([0.05, 0.2, 0.6])
    points = ball_points(center, eps, p, rng, 500)
    outputs = evaluate_graph(graph, points.reshape(-1, *graph.input_type.shape)).reshape(500, 3, -1)
    for method in ("ibp", *METHODS):
        found = bound(graph, bf.LpBall(center, eps, p), method, executor)
        box = bound(graph, bf.LpBall(center, eps), method, executor)
        assert (outputs >= found.lower - 1e-10).all() and (outputs <= found.upper + 1e-10).all()
        assert (found.upper - found.lower).sum() < 0.8 * (box.upper - box.lower).sum()


@pytest.mark.parametrize(("p", "q"), [(1, np.inf), (2, 2)])
@methods
def test_a_ball_under_a_linear_network_has_its_exact_range(p: float, q: float, method: str) -> None:
    """Scaled and shifted first, which the intervals of a ball do not know."""
    rng = np.random.default_rng(8)
    weight, scale, center = rng.normal(size=(3, 6)), rng.random(6) + 0.5, rng.normal(size=(2, 6))
    g = PrimalBuilder("scaled", "x", (6,))
    graph = normalize(
        g.finish(g.op("linear", g.op("mul", g.op("add", g.input, scale), scale), weight)), batch_axis=False
    )
    found = bound(graph, bf.LpBall(center, np.array([0.5, 2.0]), p), method)
    middle = (center + scale) * scale @ weight.T
    spread = np.array([[0.5], [2.0]]) * np.linalg.norm(weight * scale, ord=q, axis=1)
    np.testing.assert_allclose(found.lower, middle - spread, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.upper, middle + spread, rtol=1e-12, atol=1e-12)


# -- nothing else matters ---------------------------------------------------------------------------------------------


@networks
@methods
@pytest.mark.parametrize("executor", executors)
def test_a_batch_of_32_equals_32_single_runs(name: str, method: str, executor: str) -> None:
    graph = NETWORKS[name](9)
    region, spec = regions(graph, 32), rows(32)
    together = bound(graph, region, method, executor, spec=spec)
    run = bf.compile(graph, method=method, executor=executor, dtype="float64")
    for i in range(32):
        one = slice(i, i + 1)
        alone = run(bf.Box(region.lower[one], region.upper[one]), bf.LinearSpec(spec.C[one], spec.offset[one]))
        np.testing.assert_allclose(alone.lower, together.lower[one], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(alone.upper, together.upper[one], rtol=1e-12, atol=1e-12)
        for value, (low, high) in together.intermediate.items():
            np.testing.assert_allclose(alone.intermediate[value][0], low[one], rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(alone.intermediate[value][1], high[one], rtol=1e-12, atol=1e-12)


@networks
@methods
def test_rows_bounded_together_equal_rows_bounded_alone(name: str, method: str) -> None:
    graph = NETWORKS[name](9)
    region, spec = regions(graph, 3), rows(3)
    together = bound(graph, region, method, spec=spec)
    for row in range(4):
        alone = bound(graph, region, method, spec=bf.LinearSpec(spec.C[:, [row]], spec.offset[:, [row]]))
        np.testing.assert_allclose(alone.lower[:, 0], together.lower[:, row], rtol=1e-12, atol=1e-12)


@networks
@methods
def test_no_rows_are_rows_of_the_identity(name: str, method: str) -> None:
    graph = NETWORKS[name](10)
    region = regions(graph, 4)
    identity = bf.LinearSpec(np.broadcast_to(np.eye(3), (4, 3, 3)))
    # Without intersection, as intervals of rows are folded into the last layer.
    equal(
        bound(graph, region, method, intersect=False),
        bound(graph, region, method, intersect=False, spec=identity),
    )


@networks
@methods
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_executors_agree(name: str, method: str) -> None:
    graph = NETWORKS[name](11)
    region, spec = regions(graph, 5), rows(5)
    equal(bound(graph, region, method, "torch", spec=spec), bound(graph, region, method, "reference", spec=spec), 1e-11)


@networks
@methods
def test_a_memory_limit_changes_nothing_but_chunks(name: str, method: str) -> None:
    graph = NETWORKS[name](12)
    region, spec = regions(graph, 12), rows(12)
    free = bf.compile(graph, method=method, executor="reference", dtype="float64", cache=False)
    one = bf.compile(graph, method=method, executor="reference", dtype="float64", cache=False, batch=1, spec_rows=4)
    expected = free(region, spec)
    # What one region needs, and a little more for its neurons' rows.
    limit = 2 * one.plan.storage.peak_bytes + 20_000
    tight = bf.compile(graph, method=method, executor="reference", dtype="float64", cache=False, memory_limit=limit)
    equal(tight(region, spec), expected)
    assert tight.stats.chunks > free.stats.chunks


@networks
@methods
def test_the_cache_changes_nothing(name: str, method: str) -> None:
    graph = NETWORKS[name](13)
    cached = bf.compile(graph, method=method, executor="reference", dtype="float64", cache=True)
    plain = bf.compile(graph, method=method, executor="reference", dtype="float64", cache=False)
    boxes, specs = [regions(graph, 3, seed) for seed in (1, 2)], [rows(3, seed) for seed in (3, 4)]
    for box, spec in ((0, 0), (0, 1), (1, 1), (0, 0), (0, 0)):
        equal(cached(boxes[box], specs[spec]), plain(boxes[box], specs[spec]))
    assert cached.stats.cache_hits > 0 and plain.stats.cache_hits == 0


# -- bounds inside of the network -------------------------------------------------------------------------------------


@networks
def test_intermediate_bounds_are_sound_and_can_be_handed_back(name: str) -> None:
    graph = NETWORKS[name](14)
    region, spec = regions(graph, 4), rows(4)
    run = bf.compile(graph, method="crown", executor="reference", dtype="float64", cache=False)
    first = run(region, spec)
    assert set(first.intermediate) == {n.inputs[0] for n in graph.nodes if n.op in ("relu", "tanh")}
    chunks = run.stats.chunks
    again = run(region, spec, intermediate=first.intermediate)
    equal(again, first)
    assert run.stats.chunks == chunks + 1  # the last program alone


def test_looser_intermediate_bounds_are_believed() -> None:
    graph = small_mlp(15)
    region = regions(graph, 2)
    run = bf.compile(graph, method="crown", executor="reference", dtype="float64")
    first = run(region)
    wide = {name: (low - 1, high + 1) for name, (low, high) in first.intermediate.items()}
    loose = run(region, intermediate=wide)
    assert (loose.upper - loose.lower > first.upper - first.lower).all()


def test_intermediate_bounds_that_make_no_sense() -> None:
    graph = small_mlp(16)
    run = bf.compile(graph, method="crown", executor="reference", dtype="float64")
    region = regions(graph, 2)
    name, (low, high) = next(iter(run(region).intermediate.items()))
    with pytest.raises(OptionError, match="nobody"):
        run(region, intermediate={"nobody": (low, high)})
    with pytest.raises(InputError, match=r"1 regions|are 2"):
        run(region, intermediate={name: (low[:1], high[:1])})
    with pytest.raises(InputError, match="lower exceeds upper"):
        run(region, intermediate={name: (high + 1, low)})
    ibp = bf.compile(graph, method="ibp", executor="reference", dtype="float64")
    with pytest.raises(OptionError, match="takes no bounds"):
        ibp(region, intermediate={name: (low, high)})


# -- what is refused --------------------------------------------------------------------------------------------------


@methods
def test_an_unsupported_operator_is_named_before_anything_runs(method: str) -> None:
    g = PrimalBuilder("net", "x", (3,))
    with g.at("/body/Act_7"):
        y = g.op("tanh", g.input)
    graph = normalize(g.finish(y), batch_axis=False)
    plugins = registry()
    linear = plugins.domain("linear")
    rules = {op: rule for op, rule in linear.rules.items() if op != "tanh"}
    less = replace(plugins, domains={**plugins.domains, "linear": replace(linear, rules=rules)})
    with pytest.raises(UnsupportedOpError, match=r"'tanh' at node '/body/Act_7' .*'linear'"):
        CompiledBounds(graph, less.method(method), less, less.executor("reference"), CompileOptions())


@methods
@pytest.mark.parametrize(("option", "value"), [("slope", "steep"), ("colour", 1)])
def test_options_that_are_not_known(method: str, option: str, value: Any) -> None:
    with pytest.raises(OptionError, match=option):
        bf.compile(small_mlp(), method=method, executor="reference", **{option: value})


def test_neurons_to_refine() -> None:
    graph = small_mlp(17)
    region = regions(graph, 4)
    equal(bound(graph, region, "crown", refine="all", intersect=False), bound(graph, region, "crown", intersect=False))
    with pytest.raises(OptionError, match="refine"):
        bf.compile(graph, method="crown", executor="reference", refine="some")


def test_affine_operators_in_a_row_are_walked_as_one():
    """Bounds before any relaxation: those of intervals, one operator after another, lose what elements share."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 5)), rng.normal(size=(4, 6))
    g = PrimalBuilder("chained", "x", (5,))
    scaled = g.op("mul", g.op("linear", g.input, first), np.arange(1.0, 7.0))
    inner = g.op("linear", scaled, second)
    graph = normalize(g.finish(g.op("linear", g.op("relu", inner), np.ones((1, 4)))), batch_axis=False)
    name = next(node.inputs[0] for node in graph.nodes if node.op == "relu")
    region = bf.Box(-np.ones((1, 5)), np.ones((1, 5)))
    found = bf.compile(graph, method="crown", executor="reference", dtype="float64")(region)
    low, high = found.intermediate[name]
    radius = np.abs(second @ np.diag(np.arange(1.0, 7.0)) @ first).sum(axis=1)
    np.testing.assert_allclose(high[0], radius, rtol=1e-12)
    np.testing.assert_allclose(low[0], -radius, rtol=1e-12)
