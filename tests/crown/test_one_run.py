"""Crown in one program gives what crown in stages gives, whatever was asked before."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
from crown_networks import residual, small_mlp
from hypothesis import given, settings
from hypothesis import strategies as st

import boundflow_core as bf
from boundflow_core.ir.primal import PrimalGraph
from boundflow_crown import one_run
from boundflow_crown.one_run import REMEMBERED, OneRun, Rooms
from boundflow_crown.relax.piecewise import SLOPES

# Without torch these tests run on the other executor; with it, in the environment `all`, on both.
EXECUTORS = ["reference", *(["torch"] if importlib.util.find_spec("torch") else [])]

NETS = {
    "mlp": small_mlp,
    "tanh": lambda seed: small_mlp(seed, "tanh"),
    "leaky": lambda seed: small_mlp(seed, "abs"),
    "residual": residual,
}


@pytest.fixture(scope="module", autouse=True)
def no_value_has_room_for_all() -> Iterator[None]:
    """The networks here are so small that there would never be too little room."""
    with mock.patch.object(one_run, "ALL", 0):
        yield


def compiled(graph: PrimalGraph, **options: Any) -> bf.CompiledBounds:
    choice = {"method": "crown", "dtype": "float64", "executor": "reference", "cache": False, **options}
    return bf.compile(graph, **choice)


def box(graph: PrimalGraph, eps: float, seed: int = 0) -> bf.Box:
    center = np.random.default_rng(seed).normal(size=(1, *graph.input_type.shape))
    return bf.Box(center - eps, center + eps)


def rows(seed: int, count: int = 4) -> bf.LinearSpec:
    return bf.LinearSpec(np.random.default_rng(seed).normal(size=(count, 3)))


def equal(one: bf.Bounds, other: bf.Bounds) -> None:
    pairs = [(one.lower, other.lower), (one.upper, other.upper)]
    assert one.intermediate.keys() == other.intermediate.keys()
    for name, sides in one.intermediate.items():
        pairs += zip(sides, other.intermediate[name], strict=True)
    for first, second in pairs:
        np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-12)


def at_once(run: bf.CompiledBounds) -> bool:
    """Whether one program gave the latest results."""
    return any(value.name.startswith("slots:") for value in run.plan.program.inputs)


def stages(graph: PrimalGraph, region: Any, spec: bf.LinearSpec | None = None, **options: Any) -> bf.Bounds:
    """Bounds by an object that was not asked before, in stages."""
    run = compiled(graph, **options)
    found = run(region, spec)
    assert not at_once(run)
    return found


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("net", NETS)
@settings(max_examples=5)
@given(data=st.data())
def test_one_program_gives_what_stages_give(net: str, slope: str, data: st.DataObject) -> None:
    graph = NETS[net](data.draw(st.integers(0, 99)))
    options = {
        "slope": slope,
        "intersect": data.draw(st.booleans()),
        "refine": data.draw(st.sampled_from(["unstable", "all"])),
        "side": data.draw(st.sampled_from(["both", "lower"])),
    }
    region: Any = box(graph, data.draw(st.sampled_from([0.0, 1e-3, 0.1, 0.5, 20.0])), data.draw(st.integers(0, 99)))
    if data.draw(st.booleans()):
        region = bf.LpBall((region.lower + region.upper) / 2, 0.3, data.draw(st.sampled_from([1, 2])))
    spec = rows(data.draw(st.integers(0, 9))) if data.draw(st.booleans()) else None
    run = compiled(graph, **options)
    expected = run(region, spec)
    assert not at_once(run)
    found = run(region, spec)
    assert at_once(run)
    equal(found, expected)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("net", ["mlp", "residual"])
def test_what_was_asked_before_changes_nothing(net: str, executor: str) -> None:
    graph = NETS[net](3)
    run = compiled(graph, executor=executor)
    for number, eps in enumerate((0.0, 1e-3, 0.2, 3.0, 0.05, 50.0, 0.0, 0.4)):
        region, spec = box(graph, eps, number), rows(number, 1 + number % 3)
        equal(run(region, spec), stages(graph, region, spec, executor=executor))
        assert at_once(run) == (number > 0)


@pytest.mark.parametrize("net", ["mlp", "residual"])
def test_more_neurons_than_there_is_room_for_run_again(net: str) -> None:
    """From room for the least to all neurons undecided."""
    graph = NETS[net](1)
    run = compiled(graph)
    run(box(graph, 0.0))
    with mock.patch.object(one_run, "padded_count", lambda count: count):  # no room to spare by rounding
        run(box(graph, 0.0))
        before = run.stats.chunks
        equal(run(box(graph, 30.0)), stages(graph, box(graph, 30.0)))
    assert at_once(run) and run.stats.chunks > before + 1


def test_alpha_crown_takes_bounds_inside_from_one_program() -> None:
    graph = small_mlp(2)
    run = compiled(graph, method="alpha-crown", iterations=3)
    expected = run(box(graph, 0.3), rows(0))
    calls: list[bool] = []
    original = OneRun.__call__

    def noted(self: OneRun, inputs: Any) -> Any:
        found = original(self, inputs)
        calls.append(found is not None)
        return found

    with mock.patch.object(OneRun, "__call__", noted):
        equal(run(box(graph, 0.3), rows(0)), expected)
    assert calls == [True]


def test_bounds_handed_in_are_taken_as_they_are() -> None:
    graph = small_mlp(4)
    run = compiled(graph)
    for _ in range(2):
        known = run(box(graph, 0.3)).intermediate
    name = list(known)[1]
    wide = {name: (known[name][0] - 1, known[name][1] + 1)}
    equal(run(box(graph, 0.3), intermediate=wide), compiled(graph)(box(graph, 0.3), intermediate=wide))
    np.testing.assert_array_equal(run(box(graph, 0.3), intermediate=wide).intermediate[name][0], wide[name][0])


def test_a_memory_limit_that_is_too_small_for_one_program_runs_in_stages() -> None:
    graph = residual(1)
    free = compiled(graph)
    free(box(graph, 0.3), rows(0)), free(box(graph, 0.3), rows(0))
    assert at_once(free)
    peak = free.plan.storage.peak_bytes
    for limit, expected in ((peak, True), (peak - 1, False)):
        run = compiled(graph, memory_limit=limit)
        found = [run(box(graph, 0.3), rows(0)) for _ in range(2)]
        assert at_once(run) == expected
        equal(found[1], found[0])


def test_a_region_bounded_in_stages_is_found_in_the_cache() -> None:
    graph = small_mlp(5)
    run = compiled(graph, cache=True)
    run(box(graph, 0.3), rows(0))
    before = run.stats.tasks_run
    run(box(graph, 0.3), rows(0))
    assert run.stats.tasks_run == before
    for number in (1, 2):
        equal(run(box(graph, 0.3, seed=1), rows(0)), stages(graph, box(graph, 0.3, seed=1), rows(0)))
        assert at_once(run) and (run.stats.tasks_run > before) == (number == 1)
        before = run.stats.tasks_run


def test_room_grows_at_once_and_shrinks_late() -> None:
    rooms = Rooms([1000, 100])
    assert rooms.now is None
    rooms.learn([100, 3])
    assert rooms.now is not None and rooms.now[0] >= 112 and rooms.now[1] == 4
    assert rooms.grown(rooms.now, [100, 4]) == rooms.now
    rooms.learn([10, 98])
    assert rooms.now[0] >= 112 and rooms.now[1] == 100, "no more room than neurons, and none is taken yet"
    first = rooms.now
    for _ in range(REMEMBERED - 2):
        rooms.learn([10, 2])
    assert rooms.now == first
    rooms.learn([10, 2])
    assert rooms.now == (12, 100)
    rooms.learn([10, 2])
    assert rooms.now == (12, 4)


def test_few_neurons_have_room_for_all() -> None:
    rooms = Rooms([1000, 50])
    with mock.patch.object(one_run, "ALL", 64):
        rooms.learn([100, 3])
    assert rooms.now is not None and rooms.now[1] == 50
