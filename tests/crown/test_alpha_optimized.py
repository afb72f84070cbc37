"""The method alpha-crown where slopes of the walks that bound neurons inside are optimised as well."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crown_networks import cnn_rand, mlp_rand, relu_inputs, residual, small_mlp, tanh_net
from numpy.typing import NDArray

import boundflow_core as bf
from boundflow_core.errors import MemoryLimitError, OptionError
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder

Array = NDArray[Any]
CLOSE = 1e-12


def steep_channels() -> PrimalGraph:
    """Leaky relus whose slope differs from channel to channel, behind convolutions."""
    rng = np.random.default_rng(3)
    same = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    slope = np.array([0.1, -0.4, 0.6]).reshape(3, 1, 1)
    g = PrimalBuilder("steep_channels", "x", (2, 5, 5))
    y = g.input
    for channels in (2, 3):
        y = g.op("conv2d", y, rng.normal(size=(3, channels, 3, 3)) / 3, rng.normal(size=3) / 4, **same)
        y = g.op("leaky_relu", y, slope)
    y = g.op("relu", g.op("conv2d", y, rng.normal(size=(2, 3, 3, 3)) / 3, rng.normal(size=2) / 4, **same))
    flat = g.op("reshape", y, shape=(50,))
    return g.finish(g.op("linear", flat, rng.normal(size=(3, 50)), rng.normal(size=3)))


def mixed() -> PrimalGraph:
    """Relu, tanh, relu: relaxations that slopes move although they have none to choose."""
    rng = np.random.default_rng(4)
    g = PrimalBuilder("mixed", "x", (5,))
    y, width = g.input, 5
    for count, op in ((8, "relu"), (7, "tanh"), (6, "relu")):
        inner = g.op("linear", y, rng.normal(size=(count, width)) / 2, rng.normal(size=count) / 3)
        y, width = g.op(op, inner), count
    return g.finish(g.op("linear", y, rng.normal(size=(3, width))))


NETWORKS: Mapping[str, Callable[[], PrimalGraph]] = {
    "relu": small_mlp,
    "abs": lambda: small_mlp(0, "abs"),
    "leaky relu": lambda: small_mlp(0, "leaky_relu", np.array(0.1)),
    "residual": residual,
    "steep channels": steep_channels,
    "mixed": mixed,
}
networks = pytest.mark.parametrize("name", NETWORKS)


def run(graph: PrimalGraph, lower: Array, upper: Array, rows: Array | None = None, **options: Any) -> bf.Bounds:
    spec = None if rows is None else bf.LinearSpec(rows)
    choice = {"method": "alpha-crown", "dtype": "float64", "executor": "reference", "cache": False, **options}
    if choice["method"] == "alpha-crown":
        choice = {"intermediate": "optimized", **choice}
    return bf.bound(graph, bf.Box(lower, upper), spec=spec, **choice)


def boxes(graph: PrimalGraph, count: int, radius: float = 0.25, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    center = rng.normal(size=(count, *graph.input_type.shape))
    radii = radius * rng.uniform(0.3, 1, size=(count, *[1] * (center.ndim - 1)))
    return center - radii, center + radii


def rows_for(graph: PrimalGraph, count: int, number: int = 3) -> Array:
    return np.random.default_rng(1).normal(size=(count, number, *graph.output_type.shape))


def attacked(graph: PrimalGraph, lower: Array, upper: Array, rows: Array, count: int = 300) -> tuple[Array, Array]:
    """The least and the largest margins [B, S] of points that sampling, corners and a random search find."""
    rng = np.random.default_rng(2)
    lead = (count, *lower.shape)
    corners = np.where(rng.random(lead) < 0.5, lower, upper)
    points = np.concatenate([rng.uniform(lower, upper, size=lead), corners])
    low, high = np.full(rows.shape[:2], np.inf), np.full(rows.shape[:2], -np.inf)
    for step in range(6):
        values = evaluate_graph(graph, points.reshape(-1, *lower.shape[1:])).reshape(len(points), len(lower), -1)
        margins = np.einsum("bsn,pbn->pbs", rows, values)
        low, high = np.minimum(low, margins.min(0)), np.maximum(high, margins.max(0))
        for_row = margins[:, :, step % rows.shape[1]]  # around the best points of one row
        best = np.argmin(for_row if step < 3 else -for_row, axis=0)
        near = points[best, np.arange(len(lower))] + rng.normal(size=points.shape) * (upper - lower) / 2 ** (step + 2)
        points = np.clip(near, lower, upper)
    return low, high


@networks
@pytest.mark.parametrize("intersect", [True, False])
def test_between_crown_and_the_network(name: str, intersect: bool) -> None:
    graph = NETWORKS[name]()
    lower, upper = boxes(graph, 2)
    rows = rows_for(graph, 2)
    found = run(graph, lower, upper, rows, intersect=intersect, iterations=8)
    crown = run(graph, lower, upper, rows, method="crown", intersect=intersect)
    assert (found.lower >= crown.lower - CLOSE).all() and (found.upper <= crown.upper + CLOSE).all()
    assert (found.lower > crown.lower + 1e-4).any() and (found.upper < crown.upper - 1e-4).any()
    low, high = attacked(graph, lower, upper, rows)
    assert (low >= found.lower - CLOSE).all() and (high <= found.upper + CLOSE).all()


@networks
def test_bounds_inside_are_never_looser_and_hold(name: str) -> None:
    graph = NETWORKS[name]()
    lower, upper = boxes(graph, 2)
    found, crown = run(graph, lower, upper, iterations=8), run(graph, lower, upper, method="crown")
    rng = np.random.default_rng(2)
    points = np.where(rng.random((400, *lower.shape)) < 0.3, lower, rng.uniform(lower, upper, (400, *lower.shape)))
    tighter = False
    for value, (low, high) in found.intermediate.items():
        before_low, before_high = crown.intermediate[value]
        assert (low >= before_low).all() and (high <= before_high).all() and (low <= high).all()
        tighter |= bool((high - low < before_high - before_low - 1e-4).any())
        part = PrimalGraph(graph.name, graph.input, graph.input_type, graph.nodes, value, graph.constants)
        values = evaluate_graph(part, points.reshape(-1, *lower.shape[1:])).reshape(400, *low.shape)
        assert (values >= low - CLOSE).all() and (values <= high + CLOSE).all()
    assert tighter


def test_on_average_tighter_than_with_fixed_bounds_inside() -> None:
    widths: dict[str, list[float]] = {"fixed": [], "optimized": []}
    for seed in (0, 2, 3):  # whose networks are not level over the box
        for graph in (small_mlp(seed), residual(seed)):
            lower, upper = boxes(graph, 1, 0.4, seed)
            for choice, widths_found in widths.items():
                bounds = run(graph, lower, upper, intermediate=choice, iterations=10)
                widths_found.append(float(np.mean(bounds.upper - bounds.lower)))
    ratios = np.array(widths["optimized"]) / np.array(widths["fixed"])
    assert ratios.mean() < 0.97 and ratios.max() < 1.01


@networks
def test_the_first_step_is_crown_and_more_never_lose(name: str) -> None:
    graph = NETWORKS[name]()
    box = boxes(graph, 1)
    crown = run(graph, *box, method="crown")
    before = run(graph, *box, iterations=1)
    np.testing.assert_allclose(before.lower, crown.lower, rtol=0, atol=CLOSE)
    np.testing.assert_allclose(before.upper, crown.upper, rtol=0, atol=CLOSE)
    after = run(graph, *box, iterations=6)
    assert (after.lower >= before.lower - CLOSE).all() and (after.upper <= before.upper + CLOSE).all()
    assert (after.lower > before.lower).any()


@pytest.mark.parametrize("name", ["relu", "residual"])
def test_a_rate_that_overshoots_does_no_harm(name: str) -> None:
    """Slopes that leave what is allowed are brought back before they count."""
    graph = NETWORKS[name]()
    lower, upper = boxes(graph, 2)
    rows = rows_for(graph, 2)
    wild = run(graph, lower, upper, rows, rate=1e3, decay=1.0, iterations=6)
    crown = run(graph, lower, upper, rows, method="crown")
    assert (wild.lower >= crown.lower - CLOSE).all() and (wild.upper <= crown.upper + CLOSE).all()
    low, high = attacked(graph, lower, upper, rows)
    assert (low >= wild.lower - CLOSE).all() and (high <= wild.upper + CLOSE).all()


@pytest.mark.parametrize("name", ["relu", "residual"])
@pytest.mark.parametrize("options", [{}, {"stop": -2.0}, {"side": "lower", "stop": -2.0}], ids=str)
def test_regions_know_nothing_of_their_company(name: str, options: dict[str, Any]) -> None:
    graph = NETWORKS[name]()
    lower, upper = boxes(graph, 3, 0.3)
    rows = rows_for(graph, 3, 2)
    options = {**options, "iterations": 5}
    together = run(graph, lower, upper, rows, **options)
    for number in range(3):
        part = slice(number, number + 1)
        alone = run(graph, lower[part], upper[part], rows[part], **options)
        np.testing.assert_allclose(together.lower[part], alone.lower, rtol=0, atol=1e-10)
        np.testing.assert_allclose(together.upper[part], alone.upper, rtol=0, atol=1e-10)
        for value, sides in together.intermediate.items():
            for side, own in zip(sides, alone.intermediate[value], strict=True):
                np.testing.assert_allclose(side[part], own, rtol=0, atol=1e-10)


def test_without_a_specification_and_with_one_for_all() -> None:
    graph = small_mlp()
    lower, upper = boxes(graph, 2)
    outputs = run(graph, lower, upper, iterations=6)
    identity = np.eye(3)
    for rows in (identity, np.tile(identity, (2, 1, 1))):
        other = run(graph, lower, upper, rows, iterations=6)
        np.testing.assert_allclose(other.lower, outputs.lower, rtol=0, atol=1e-10)
        np.testing.assert_allclose(other.upper, outputs.upper, rtol=0, atol=1e-10)


def test_decided_rows_have_no_say() -> None:
    """A row that is decided from the start changes nothing for the one that is not; it does where no goal is set."""
    graph = residual()
    lower, upper = boxes(graph, 1, 0.3)
    rows, choice = rows_for(graph, 1, 2), {"method": "alpha-crown", "dtype": "float64", "executor": "reference"}

    def found(offset: list[float], **options: Any) -> Array:
        spec = bf.LinearSpec(rows[:, : len(offset)], np.array([offset]))
        options = {**choice, "intermediate": "optimized", "side": "lower", "iterations": 6, "cache": False, **options}
        bounds: Array = bf.bound(graph, bf.Box(lower, upper), spec=spec, **options).lower
        return bounds

    one, two = found([-100.0], stop=0.0), found([-100.0, 100.0], stop=0.0)
    assert two[0, 0] < 0 < two[0, 1]
    np.testing.assert_allclose(two[0, 0], one[0, 0], rtol=0, atol=1e-10)
    assert abs(found([-100.0, 100.0])[0, 0] - one[0, 0]) > 1e-4


def test_stop_ends_a_region_as_soon_as_it_is_decided() -> None:
    graph = small_mlp()
    lower, upper = boxes(graph, 3)
    steps: list[tuple[int, int]] = []
    choice: dict[str, Any] = {"method": "alpha-crown", "intermediate": "optimized", "executor": "reference"}
    bf.compile(graph, stop=-1e6, **choice)(bf.Box(lower, upper), progress=lambda done, of: steps.append((done, of)))
    assert steps == [(1, 61), (21, 61), (41, 61)]


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_balls(p: float) -> None:
    graph = residual()
    lower, upper = boxes(graph, 2)
    center, radii = (lower + upper) / 2, np.array([0.5, 0.8])
    options: dict[str, Any] = {"spec": bf.LinearSpec(rows_for(graph, 2)), "dtype": "float64", "executor": "reference"}
    ball = bf.LpBall(center, radii, p)
    crown = bf.bound(graph, ball, method="crown", **options)
    found = bf.bound(graph, ball, method="alpha-crown", intermediate="optimized", iterations=6, **options)
    assert (found.lower >= crown.lower - CLOSE).all() and (found.lower > crown.lower + 1e-4).any()


def test_refining_all_neurons() -> None:
    graph = small_mlp()
    box = boxes(graph, 2)
    crown, found = (run(graph, *box, method=m, refine="all") for m in ("crown", "alpha-crown"))
    assert (found.lower >= crown.lower - CLOSE).all() and (found.upper <= crown.upper + CLOSE).all()
    assert (found.upper < crown.upper - 1e-4).any()


def test_bounds_handed_in_are_where_it_begins() -> None:
    graph = small_mlp()
    lower, upper = boxes(graph, 2)
    choice: dict[str, Any] = {"executor": "reference", "dtype": "float64"}
    compiled = bf.compile(graph, method="alpha-crown", intermediate="optimized", **choice)
    found = compiled(bf.Box(lower, upper))
    kept = {name: (low.copy(), high.copy()) for name, (low, high) in found.intermediate.items()}
    again = compiled(bf.Box(lower, upper), intermediate=found.intermediate)
    for name, (low, high) in kept.items():  # what was handed in is the caller's
        np.testing.assert_array_equal(found.intermediate[name][0], low)
        assert (again.intermediate[name][0] >= low).all() and (again.intermediate[name][1] <= high).all()


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_nothing_inside_to_optimise(name: str) -> None:
    """One hidden layer, whose bounds no slope changes: as with fixed ones; no slopes at all: crown."""
    rng = np.random.default_rng(0)
    g = PrimalBuilder("shallow", "x", (5,))
    y = g.op(name, g.op("linear", g.input, rng.normal(size=(8, 5)), rng.normal(size=8)))
    graph = g.finish(g.op("linear", y, rng.normal(size=(3, 8))))
    for network in (graph, *([tanh_net()] if name == "tanh" else [])):
        box = boxes(network, 2)
        one, other = (run(network, *box, intermediate=choice) for choice in ("optimized", "fixed"))
        np.testing.assert_array_equal(one.lower, other.lower)
        np.testing.assert_array_equal(one.upper, other.upper)


def test_memory_limit() -> None:
    graph = residual()
    lower, upper = boxes(graph, 3)
    free, limited = (run(graph, lower, upper, iterations=3, memory_limit=limit) for limit in (None, 2_000_000))
    np.testing.assert_allclose(limited.lower, free.lower, rtol=0, atol=1e-10)
    with pytest.raises(MemoryLimitError, match=r'neurons of one region takes .* intermediate="fixed"'):
        run(graph, lower, upper, iterations=3, memory_limit=200_000)


def test_options() -> None:
    for bad in ("optimised", True, None):
        with pytest.raises(OptionError, match="intermediate must be fixed or optimized"):
            bf.compile(small_mlp(), method="alpha-crown", intermediate=bad)
    with pytest.raises(OptionError, match="intermediate"):
        bf.compile(small_mlp(), method="crown", intermediate="optimized")


@pytest.mark.parametrize("name", ["mlp_rand", "cnn_rand"])
def test_recorded_values(shared_dir: Path, name: str) -> None:
    """Nearer to the recorded values, whose slopes were optimised inside too, than fixed bounds inside come."""
    with np.load(shared_dir / "references" / f"{name}.npz") as file:
        arrays: Mapping[str, Array] = dict(file)
    graph = {"mlp_rand": mlp_rand, "cnn_rand": cnn_rand}[name](arrays)
    box = arrays["x_L"][:1], arrays["x_U"][:1], arrays["C"][:1]
    executor = "torch" if importlib.util.find_spec("torch") else "reference"
    ours = run(graph, *box, side="lower", executor=executor)
    recorded, fixed = (arrays[f"{tag}.f64.lb"][:1] for tag in ("alpha20", "alpha20_fixinterm"))
    assert (recorded > fixed).any() and set(relu_inputs(graph)) == set(ours.intermediate)
    assert (ours.lower >= fixed - 1e-9).all()
    assert (ours.lower - recorded).mean() >= -0.02 * (recorded - arrays["CROWN.f64.lb"][:1]).mean()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("name", ["relu", "residual"])
def test_torch_gives_the_same(name: str, tensors: bool) -> None:
    import torch

    graph = NETWORKS[name]()
    arrays = [*boxes(graph, 2, 0.3), rows_for(graph, 2, 2)]
    expected = run(graph, *arrays, iterations=5)
    given = [torch.from_numpy(array) for array in arrays] if tensors else arrays
    found = run(graph, *given, iterations=5, executor="torch")
    assert isinstance(found.lower, torch.Tensor if tensors else np.ndarray)
    # Adam's quotients are those of small numbers where gradients nearly vanish, so rounding shows in later steps.
    np.testing.assert_allclose(np.asarray(found.lower), expected.lower, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.asarray(found.upper), expected.upper, rtol=0, atol=1e-6)
