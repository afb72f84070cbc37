"""The method alpha-crown: recorded values, its options, and what every method owes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crown_networks import cnn_rand, mlp_rand, residual, small_mlp, tanh_net
from numpy.typing import NDArray

import boundflow_core as bf
from boundflow_core.errors import MemoryLimitError, OptionError
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder

Array = NDArray[Any]
RECORDED = {"mlp_rand": mlp_rand, "cnn_rand": cnn_rand}
SMALL = {"small_mlp": small_mlp, "residual": residual}
KINKED: Mapping[str, Callable[[], PrimalGraph]] = {
    **SMALL,
    "abs": lambda: small_mlp(0, "abs"),
    "leaky relu": lambda: small_mlp(0, "leaky_relu", np.array(0.1)),
    "falling leaky relu": lambda: small_mlp(0, "leaky_relu", np.array(-0.5)),
}
CLOSE = 1e-12


def run(graph: PrimalGraph, lower: Array, upper: Array, rows: Array | None = None, **options: Any) -> bf.Bounds:
    spec = None if rows is None else bf.LinearSpec(rows)
    choice = {"method": "alpha-crown", "dtype": "float64", "executor": "reference", "cache": False, **options}
    return bf.bound(graph, bf.Box(lower, upper), spec=spec, **choice)


def boxes(graph: PrimalGraph, count: int, radius: float = 0.25, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    center = rng.normal(size=(count, *graph.input_type.shape))
    radii = radius * rng.uniform(0.3, 1, size=(count, *[1] * (center.ndim - 1)))
    return center - radii, center + radii


def rows_for(graph: PrimalGraph, count: int, number: int = 4) -> Array:
    return np.random.default_rng(1).normal(size=(count, number, *graph.output_type.shape))


small = pytest.mark.parametrize("name", SMALL)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_values(shared_dir: Path, name: str) -> None:
    """Reached, or missed by at most a thousandth of their distance from crown's; never below crown's."""
    with np.load(shared_dir / "references" / f"{name}.npz") as file:
        arrays: Mapping[str, Array] = dict(file)
    graph = RECORDED[name](arrays)
    box = arrays["x_L"], arrays["x_U"], arrays["C"]
    ours, crown = run(graph, *box, intersect=False), run(graph, *box, method="crown", intersect=False)
    recorded, start = arrays["alpha20_fixinterm.f64.lb"], arrays["CROWN.f64.lb"]
    gap = recorded - start
    assert gap.max() > 1e-5, "there is something to reach"
    assert (ours.lower >= recorded - 1e-3 * gap - 1e-9 * np.abs(recorded).max()).all()
    assert (ours.lower >= crown.lower).all() and (ours.upper <= crown.upper).all()
    assert (ours.upper < crown.upper).any()


@pytest.mark.parametrize("name", KINKED)
@pytest.mark.parametrize("intersect", [True, False])
def test_between_crown_and_the_network(name: str, intersect: bool) -> None:
    graph = KINKED[name]()
    lower, upper = boxes(graph, 3)
    rows = rows_for(graph, 3)
    found = run(graph, lower, upper, rows, intersect=intersect)
    crown = run(graph, lower, upper, rows, method="crown", intersect=intersect)
    assert (found.lower >= crown.lower).all() and (found.upper <= crown.upper).all()
    assert (found.lower > crown.lower + 1e-4).any() and (found.upper < crown.upper - 1e-4).any()
    points = np.random.default_rng(2).uniform(lower, upper, size=(200, *lower.shape)).reshape(-1, *lower.shape[1:])
    values = evaluate_graph(graph, points).reshape(200, 3, -1)
    margins = np.einsum("bsn,pbn->pbs", rows, values)
    assert (margins >= found.lower - CLOSE).all() and (margins <= found.upper + CLOSE).all()


@small
def test_more_steps_never_lose(name: str) -> None:
    """The best of all steps counts; the first is crown."""
    graph = SMALL[name]()
    box = boxes(graph, 2)
    results = [run(graph, *box, iterations=count) for count in (1, 4, 12)]
    crown = run(graph, *box, method="crown")
    np.testing.assert_allclose(results[0].lower, crown.lower, rtol=0, atol=CLOSE)
    np.testing.assert_allclose(results[0].upper, crown.upper, rtol=0, atol=CLOSE)
    for before, after in pairwise(results):
        assert (after.lower >= before.lower).all() and (after.upper <= before.upper).all()
        assert (after.lower > before.lower).any()


@small
def test_a_rate_that_overshoots_does_no_harm(name: str) -> None:
    graph = SMALL[name]()
    box = boxes(graph, 2)
    wild, crown = run(graph, *box, rate=1e3, decay=1.0), run(graph, *box, method="crown")
    assert (wild.lower >= crown.lower).all() and (wild.upper <= crown.upper).all()


@small
@pytest.mark.parametrize("options", [{}, {"stop": 0.0}, {"side": "lower", "stop": 0.0}])
def test_regions_know_nothing_of_their_company(name: str, options: dict[str, Any]) -> None:
    graph = SMALL[name]()
    lower, upper = boxes(graph, 9, 0.3)
    rows = rows_for(graph, 9, 2)
    together = run(graph, lower, upper, rows, **options)
    for number in range(len(lower)):
        part = slice(number, number + 1)
        alone = run(graph, lower[part], upper[part], rows[part], **options)
        np.testing.assert_allclose(together.lower[part], alone.lower, rtol=0, atol=CLOSE)
        np.testing.assert_allclose(together.upper[part], alone.upper, rtol=0, atol=CLOSE)


@small
def test_without_a_specification_and_with_one_for_all(name: str) -> None:
    graph = SMALL[name]()
    lower, upper = boxes(graph, 5)
    outputs = run(graph, lower, upper, stop=-0.5)
    identity = np.eye(outputs.lower.shape[1])
    shared, each = (run(graph, lower, upper, rows, stop=-0.5) for rows in (identity, np.tile(identity, (5, 1, 1))))
    for other in (shared, each):
        np.testing.assert_allclose(other.lower, outputs.lower, rtol=0, atol=CLOSE)
        np.testing.assert_allclose(other.upper, outputs.upper, rtol=0, atol=CLOSE)


# -- stop -------------------------------------------------------------------------------------------------------------


@small
def test_stop_leaves_decided_regions_alone_and_changes_no_verdict(name: str) -> None:
    graph = SMALL[name]()
    lower, upper = boxes(graph, 24, 0.3)  # of the residual network's, the batch shrinks twice
    rows = rows_for(graph, 24, 2)
    crown, full = run(graph, lower, upper, rows, method="crown"), run(graph, lower, upper, rows)
    goal = float(np.quantile(full.lower.min(1), 0.3))
    stopped = run(graph, lower, upper, rows, stop=goal)
    decided, never = (crown.lower > goal).all(1), (full.lower <= goal).any(1)
    assert decided.any() and never.any()
    np.testing.assert_allclose(stopped.lower[decided], crown.lower[decided], rtol=0, atol=CLOSE)
    np.testing.assert_allclose(stopped.lower[never], full.lower[never], rtol=0, atol=CLOSE)
    np.testing.assert_array_equal((stopped.lower > goal).all(1), ~never)


def test_stop_ends_as_soon_as_all_regions_are_decided() -> None:
    graph = small_mlp()
    lower, upper = boxes(graph, 4)
    steps: list[int] = []
    compiled = bf.compile(graph, method="alpha-crown", stop=-1e6, executor="reference", dtype="float64")
    compiled(bf.Box(lower, upper), progress=lambda done, of: steps.append(done))
    assert steps == [1]


# -- one side ---------------------------------------------------------------------------------------------------------


@small
@pytest.mark.parametrize("method", ["crown-ibp", "crown", "alpha-crown"])
@pytest.mark.parametrize("intersect", [True, False])
def test_one_side_is_half_of_both(name: str, method: str, intersect: bool) -> None:
    graph = SMALL[name]()
    lower, upper = boxes(graph, 3)
    rows = rows_for(graph, 3)
    both, one = (
        run(graph, lower, upper, rows, method=method, intersect=intersect, side=side) for side in ("both", "lower")
    )
    np.testing.assert_allclose(one.lower, both.lower, rtol=0, atol=CLOSE)
    if intersect:  # with intervals, from bounds inside of the network that may be tighter than theirs
        intervals = run(graph, lower, upper, rows, method="ibp")
        assert (one.upper >= both.upper).all() and (one.upper <= intervals.upper + CLOSE).all()
        assert (one.upper > both.upper).any()
    else:
        assert (one.upper == np.inf).all()


@pytest.mark.parametrize("method", ["crown-ibp", "crown"])
def test_one_side_walks_half_as_many_rows(method: str) -> None:
    """In the program, the rows on the input [B, rows, 5] are as many as asked for, not twice as many."""
    graph, count = small_mlp(), 7
    widest = {}
    for side in ("both", "lower"):
        compiled = bf.compile(graph, method=method, spec_rows=count, batch=2, side=side, executor="reference")
        program = compiled.plan.program.bind(compiled.plan.sizes)
        values = [value for op in program.ops for value in op.outputs]
        widest[side] = max(value.shape[1] for value in values if value.rank == 3 and value.shape[2] == 5)
    assert widest == {"both": 2 * count, "lower": count}


def test_one_side_of_alpha_crown_has_half_as_many_slopes() -> None:
    graph = small_mlp()
    lower, upper = boxes(graph, 3)
    runs = {
        side: bf.compile(graph, method="alpha-crown", side=side, executor="reference") for side in ("both", "lower")
    }
    taken = {}
    for side, compiled in runs.items():
        compiled(bf.Box(lower, upper))
        (rows,) = {value.shape[1] for value in compiled.plan.program.inputs if value.name.startswith("alpha:")}
        taken[side] = int(rows)  # type: ignore[arg-type]
    assert taken == {"both": 6, "lower": 3}


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"iterations": 0},
        {"iterations": 2.5},
        {"iterations": True},
        {"rate": 0},
        {"rate": -1.0},
        {"rate": float("nan")},
        {"rate": float("inf")},
        {"rate": "fast"},
        {"decay": 0},
        {"decay": 1.5},
        {"decay": None},
        {"stop": "soon"},
        {"stop": float("nan")},
        {"intermediate": "optimised"},
        {"side": "upper"},
        {"slope": "steep"},
        {"refine": "some"},
        {"steps": 3},
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(OptionError, match=name):
        bf.compile(small_mlp(), method="alpha-crown", **options)


@pytest.mark.parametrize("options", [{"side": "upper"}, {"slope": "steep"}, {"intersect": "no"}], ids=str)
@pytest.mark.parametrize("method", ["crown-ibp", "crown"])
def test_bad_options_of_the_others(method: str, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(OptionError, match=name):
        bf.compile(tanh_net(), method=method, **options)


# -- what every method owes -------------------------------------------------------------------------------------------


def test_a_leaky_relu_steeper_on_the_left_has_no_slopes_to_choose() -> None:
    graph = small_mlp(0, "leaky_relu", np.array(1.5))
    box = boxes(graph, 3)
    ours, crown = run(graph, *box), run(graph, *box, method="crown")
    np.testing.assert_array_equal(ours.lower, crown.lower)
    np.testing.assert_array_equal(ours.upper, crown.upper)


def test_without_relu_it_is_crown() -> None:
    graph = tanh_net()
    box = boxes(graph, 3)
    ours, crown = run(graph, *box), run(graph, *box, method="crown")
    np.testing.assert_array_equal(ours.lower, crown.lower)
    np.testing.assert_array_equal(ours.upper, crown.upper)


def test_memory_limit() -> None:
    """In chunks of regions; each program on its own stays within the limit."""
    graph = residual()
    lower, upper = boxes(graph, 6)
    rows = rows_for(graph, 6)
    free = run(graph, lower, upper, rows, iterations=4)
    compiled = bf.compile(
        graph, method="alpha-crown", iterations=4, executor="reference", dtype="float64", memory_limit=400_000
    )
    limited = compiled(bf.Box(lower, upper), bf.LinearSpec(rows))
    np.testing.assert_allclose(limited.lower, free.lower, rtol=0, atol=CLOSE)
    np.testing.assert_allclose(limited.upper, free.upper, rtol=0, atol=CLOSE)
    whole = bf.compile(graph, method="alpha-crown", iterations=4, executor="reference", dtype="float64")
    whole(bf.Box(lower, upper), bf.LinearSpec(rows))
    assert compiled.stats.chunks > whole.stats.chunks
    with pytest.raises(MemoryLimitError):
        run(graph, lower, upper, rows, memory_limit=2000)


def test_the_plan_that_is_shown_is_that_of_a_step() -> None:
    """The largest: not the small one that gives the results."""
    graph = residual()
    compiled = bf.compile(graph, method="alpha-crown", iterations=2, batch=3, spec_rows=4, executor="reference")
    before = compiled.plan
    lower, upper = boxes(graph, 3)
    compiled(bf.Box(lower, upper), bf.LinearSpec(rows_for(graph, 3)))
    for plan in (before, compiled.plan):
        assert "step" in plan.program.name and plan.sizes == {"B": 3, "S": 4}
    assert before.storage.peak_bytes == compiled.plan.storage.peak_bytes


def test_bounds_inside_go_out_and_in() -> None:
    graph = small_mlp()
    lower, upper = boxes(graph, 2)
    compiled = bf.compile(graph, method="alpha-crown", executor="reference", dtype="float64")
    found = compiled(bf.Box(lower, upper))
    again = compiled(bf.Box(lower, upper), intermediate=found.intermediate)
    np.testing.assert_array_equal(found.lower, again.lower)
    loose = {name: (low - 1, high + 1) for name, (low, high) in found.intermediate.items()}
    assert (compiled(bf.Box(lower, upper), intermediate=loose).lower < found.lower).any()


def test_a_region_without_finite_bounds_harms_no_other() -> None:
    """Weights that overflow: bounds of that region are infinite, never NaN; the other one keeps its own."""
    rng = np.random.default_rng(0)
    g = PrimalBuilder("huge", "x", (3,))
    y = g.op("relu", g.op("linear", g.input, rng.normal(size=(4, 3)) * 1e30, np.zeros(4)))
    y = g.op("relu", g.op("linear", y, rng.normal(size=(4, 4)) * 1e-30, rng.normal(size=4)))
    graph = g.finish(g.op("linear", y, rng.normal(size=(2, 4)), np.zeros(2)))
    center = rng.normal(size=(2, 3)).astype(np.float32)
    radius = np.array([[0.1], [3e37]], dtype=np.float32)
    for intersect in (True, False):
        both = run(graph, center - radius, center + radius, dtype="float32", intersect=intersect)
        alone = run(graph, center[:1] - radius[:1], center[:1] + radius[:1], dtype="float32", intersect=intersect)
        assert not np.isnan(both.lower).any() and not np.isnan(both.upper).any()
        assert (both.lower[1] == -np.inf).all() and (both.upper[1] == np.inf).all()
        np.testing.assert_allclose(both.lower[0], alone.lower[0], rtol=1e-5)
        assert np.isfinite(alone.lower).all()


@small
@pytest.mark.parametrize("p", [1.0, 2.0])
def test_balls(name: str, p: float) -> None:
    """Batches that shrink take the balls' centres and radii along."""
    graph = SMALL[name]()
    lower, upper = boxes(graph, 24, 0.3)
    center, radii = (lower + upper) / 2, (upper - lower).reshape(24, -1)[:, 0]
    rows = bf.LinearSpec(rows_for(graph, 24, 1))
    crown, full, stopped = (
        bf.bound(
            graph,
            bf.LpBall(center, radii, p),
            spec=rows,
            dtype="float64",
            executor="reference",
            side="lower",
            **options,
        )
        for options in ({"method": "crown"}, {"method": "alpha-crown"}, {"method": "alpha-crown", "stop": -2.0})
    )
    assert (full.lower >= crown.lower).all() and (full.lower > crown.lower + 1e-4).any()
    never = full.lower <= -2.0
    assert never.any() and not never.all()
    np.testing.assert_allclose(stopped.lower[never], full.lower[never], rtol=0, atol=CLOSE)
    np.testing.assert_array_equal(stopped.lower <= -2.0, never)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("tensors", [False, True])
@small
def test_torch_gives_the_same(name: str, tensors: bool) -> None:
    import torch

    graph = SMALL[name]()
    arrays = [*boxes(graph, 24, 0.3), rows_for(graph, 24, 2)]
    options: dict[str, Any] = {"iterations": 8, "stop": -4.0, "side": "lower"}
    expected = run(graph, *arrays, **options)
    given = [torch.from_numpy(array) for array in arrays] if tensors else arrays
    found = run(graph, *given, executor="torch", **options)
    assert isinstance(found.lower, torch.Tensor if tensors else np.ndarray)
    # Adam's quotients are those of small numbers where gradients nearly vanish, so rounding shows in later steps.
    np.testing.assert_allclose(np.asarray(found.lower), expected.lower, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.asarray(found.upper), expected.upper, rtol=0, atol=1e-9)
