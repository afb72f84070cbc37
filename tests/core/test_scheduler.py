"""What runs again and what does not: never a stale answer, and no task more than needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from boundflow_core.api import _cache
from boundflow_core.cache import BoundCache
from boundflow_core.compiled import Bounds, CompiledBounds
from boundflow_core.errors import OptionError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import Constant
from boundflow_core.ir.types import DType, TensorType
from boundflow_core.regions import Box, LpBall
from boundflow_core.scheduler import RunCounts
from boundflow_core.specs import LinearSpec
from boundflow_core.testing.programs import B, LiveArray, live

from .running import run, schedule
from .toy import OUTPUTS, SHAPE, Array, compiled, network

RNG = np.random.default_rng(0)
CENTERS, ROWS = RNG.normal(size=(6, *SHAPE)), RNG.normal(size=(6, OUTPUTS))
REGION, SPEC = LpBall(CENTERS[:2], 0.1), LinearSpec(ROWS[:2])


def same(got: Bounds, want: Bounds) -> None:
    np.testing.assert_array_equal(got.lower, want.lower)
    np.testing.assert_array_equal(got.upper, want.upper)


def tasks_of(run: CompiledBounds, call: Callable[[], Any]) -> int:
    """Number of tasks that ``call`` ran."""
    before = run.stats.tasks_run
    call()
    return run.stats.tasks_run - before


def test_an_identical_call_runs_no_task() -> None:
    bounds = compiled(cache=BoundCache())
    first = bounds(REGION, SPEC)
    before = bounds.stats.cache_hits
    assert tasks_of(bounds, lambda: same(bounds(REGION, SPEC), first)) == 0
    assert bounds.stats.cache_hits == before + 1
    assert tasks_of(bounds, lambda: same(bounds(LpBall(CENTERS[:2].copy(), np.array([0.1, 0.1])), SPEC), first)) == 0


def test_another_specification_runs_only_what_depends_on_it() -> None:
    bounds, plain = compiled(cache=BoundCache()), compiled()
    bounds(REGION, SPEC)
    stages = {stage.name: stage for stage in bounds.plan.cache.stages}
    other = LinearSpec(ROWS[2:4])
    expected = sum(len(stage.tasks) for stage in stages.values() if "spec" in stage.depends)
    assert tasks_of(bounds, lambda: same(bounds(REGION, other), plain(REGION, other))) == expected
    everything = sum(len(stage.tasks) for stage in stages.values())
    assert 0 < expected < everything
    # and another region only what depends on that
    region = LpBall(CENTERS[2:4], 0.1)
    expected = sum(len(stage.tasks) for stage in stages.values() if "region" in stage.depends)
    assert tasks_of(bounds, lambda: same(bounds(region, SPEC), plain(region, SPEC))) == expected


@pytest.mark.parametrize(
    ("region", "spec"),
    [
        (LpBall(CENTERS[:2], 0.2), SPEC),
        (LpBall(CENTERS[:2], np.array([0.1, 0.2])), SPEC),
        (LpBall(CENTERS[1::-1], 0.1), SPEC),
        (Box(CENTERS[:2], CENTERS[:2] + 0.1), SPEC),
        (LpBall(CENTERS[:1], 0.1), SPEC),
        (LpBall(CENTERS[:3], 0.1), SPEC),
        (REGION, LinearSpec(ROWS[1::-1])),
        (REGION, LinearSpec(-ROWS[:2])),
        (REGION, LinearSpec(ROWS[:2], np.array([0.0, 1.0]))),
        (REGION, LinearSpec(ROWS[:1])),
        (REGION, LinearSpec(np.stack([ROWS[:2], ROWS[2:4]]))),
        (REGION, None),
        # as they lie in memory is no matter, what they hold is
        (LpBall(np.asfortranarray(CENTERS[:2]) + 0.0, 0.1), LinearSpec(np.repeat(ROWS[:2], 2, 1)[:, ::2])),
        (LpBall(np.repeat(CENTERS, 2, 0)[1:4:2], 0.1), LinearSpec(ROWS[::2][:2])),
    ],
)
def test_another_region_or_specification_is_never_answered_from_the_cache(
    region: LpBall | Box, spec: LinearSpec | None
) -> None:
    bounds = compiled(cache=BoundCache())
    bounds(REGION, SPEC)
    want = compiled()(region, spec)
    same(bounds(region, spec), want)
    same(bounds(region, spec), want)
    same(bounds(REGION, SPEC), compiled()(REGION, SPEC))


def test_zeros_of_both_signs() -> None:
    b = Builder()
    program = b.finish({"out": b.div(b.constant(np.ones(2)), b.input("x", (B, 2)))})
    made = schedule(program, {"B": 1}, cache=BoundCache())
    assert (run(made, {"x": np.array([[0.0, 0.0]])})["out"] == np.inf).all()
    assert (run(made, {"x": np.array([[-0.0, 0.0]])})["out"] == [-np.inf, np.inf]).all()


def test_weights_that_change_in_place() -> None:
    memory = RNG.normal(size=(4, 5))
    graph = network(weight=Constant(TensorType(DType.FLOAT64, (4, 5)), LiveArray(memory)))
    bounds, plain = compiled(graph, cache=BoundCache()), compiled(graph)
    seen = [bounds(REGION, SPEC)]
    for change in (1e-9, 1.0, 0.5):
        last = memory.copy()
        memory += change
        seen.append(bounds(REGION, SPEC))
        same(seen[-1], plain(REGION, SPEC))
        assert (seen[-1].lower != seen[-2].lower).any()
    memory[...] = last
    assert tasks_of(bounds, lambda: bounds(REGION, SPEC)) == 0  # as they were before


def test_weights_spread_over_the_batch_belong_to_their_batch() -> None:
    b = Builder()
    x = b.input("x", (B, 2), group="region")
    spread = b.exp(b.broadcast(b.constant(live(np.ones(2))), (B, 2)))
    program = b.finish({"total": b.reduce_sum(spread, (0,)), "x": b.neg(x)})
    cache = BoundCache()
    for batch in (1, 4, 1, 4):
        got = run(schedule(program, {"B": batch}, cache=cache), {"x": np.zeros((batch, 2))})
        np.testing.assert_allclose(got["total"], batch * np.e)


def test_other_networks_methods_options_and_types_share_a_store_but_no_results() -> None:
    store = BoundCache()
    made = {
        "one": lambda cache: compiled(network(0), cache=cache),
        "other weights": lambda cache: compiled(network(1), cache=cache),
        "other option": lambda cache: compiled(network(0), cache=cache, slack=0.5),
        "other type": lambda cache: compiled(network(0), cache=cache, dtype=DType.FLOAT32),
    }
    for _ in range(2):
        for make in made.values():
            same(make(store)(REGION, SPEC), make(None)(REGION, SPEC))
    again = compiled(network(0), cache=store)
    assert tasks_of(again, lambda: again(REGION, SPEC)) == 0  # the same weights, read again, are the same network


def test_further_inputs_count_as_split_state() -> None:
    b = Builder()
    x = b.input("x", (B, 4), group="region")
    state = b.input("state", (B, 4), group="split")
    deep = b.tanh(b.matmul(x, b.constant(np.eye(4))))
    program = b.finish({"out": b.where(b.compare(state, 0.0, "ge"), deep, -1.0)})
    made = schedule(program, {"B": 2}, cache=BoundCache())
    plain = schedule(program, {"B": 2})
    inputs: dict[str, Array] = {"x": RNG.normal(size=(2, 4)), "state": np.zeros((2, 4))}
    run(made, inputs)
    for element in ((0, 0), (1, 3)):
        inputs["state"][element] = -1.0
        counts = RunCounts()
        np.testing.assert_array_equal(run(made, inputs, counts)["out"], run(plain, inputs)["out"])
        assert 0 < counts.tasks_run < len(made.plan.tasks)  # the region's part did not run again


def test_the_caller_owns_the_results() -> None:
    bounds = compiled(cache=BoundCache())
    want = compiled()(REGION, SPEC)
    for _ in range(3):
        got = bounds(REGION, SPEC)
        same(got, want)
        got.lower[...] = np.nan
        got.upper[...] = np.nan


def test_the_caller_may_write_to_the_inputs_afterwards() -> None:
    lower, rows = CENTERS[:2].copy(), ROWS[:2].copy()
    bounds = compiled(cache=BoundCache())
    want = bounds(Box(lower, lower + 1), LinearSpec(rows))
    region, spec = Box(lower.copy(), lower + 1), LinearSpec(rows.copy())
    lower[...], rows[...] = 0, 0
    same(bounds(region, spec), want)


def test_threads_get_their_own_results() -> None:
    bounds, plain = compiled(cache=BoundCache(capacity=3000)), compiled()
    regions = [LpBall(CENTERS[i : i + 1 + i % 2], 0.1) for i in range(4)]
    specs = [LinearSpec(ROWS[i : i + 1 + i % 3]) for i in range(3)]
    want = {(r, s): plain(regions[r], specs[s]) for r in range(4) for s in range(3)}
    failures: list[BaseException] = []

    def hammer(seed: int) -> None:
        numbers = np.random.default_rng(seed)
        try:
            for _ in range(60):
                r, s = int(numbers.integers(4)), int(numbers.integers(3))
                same(bounds(regions[r], specs[s]), want[r, s])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert bounds.stats.calls == 360
    assert bounds.stats.chunks == 360


def test_scopes() -> None:
    from boundflow_core.cache import process_cache
    from boundflow_core.plugins import Registry

    plugins = Registry()
    assert _cache(False, plugins) is None
    mine = BoundCache()
    assert _cache(mine, plugins) is mine
    assert _cache(True, plugins) is not _cache(True, plugins)
    assert _cache("process", plugins) is _cache("process", plugins) is process_cache()
    with pytest.raises(OptionError, match="cache must be"):
        _cache("forever", plugins)
