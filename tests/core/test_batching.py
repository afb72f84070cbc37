"""Many regions and many rows at once: in one run, in chunks, and gathered from several threads."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

import boundflow_core as bf
from boundflow_core.batching import BatchRunner
from boundflow_core.compiled import Bounds
from boundflow_core.errors import InputError, MemoryLimitError, OptionError
from boundflow_core.memory import parse_bytes
from boundflow_core.regions import Box, LpBall
from boundflow_core.specs import LinearSpec

from .toy import OUTPUTS, SHAPE, compiled

RNG = np.random.default_rng(0)
CENTERS, ROWS, OFFSETS = RNG.normal(size=(64, *SHAPE)), RNG.normal(size=(64, OUTPUTS)), RNG.normal(size=64)


def close(got: Bounds, lower: Any, upper: Any) -> None:
    """Equal up to rounding: products of matrices of other sizes are summed in another order."""
    np.testing.assert_allclose(got.lower, lower, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(got.upper, upper, rtol=1e-12, atol=1e-12)


def one_by_one(regions: int, rows: int, *, per_region: bool = False) -> tuple[Any, Any]:
    """Bounds [regions, rows], each computed by a call of its own."""
    run = compiled()
    lower, upper = np.empty((regions, rows)), np.empty((regions, rows))
    for r in range(regions):
        for s in range(rows):
            row = ROWS[s : s + 1] * (r + 1 if per_region else 1)
            bounds = run(LpBall(CENTERS[r], 0.1), LinearSpec(row, OFFSETS[s : s + 1]))
            lower[r, s], upper[r, s] = bounds.lower[0, 0], bounds.upper[0, 0]
    return lower, upper


@pytest.mark.parametrize(("regions", "rows"), [(1, 64), (64, 1), (6, 7), (1, 1)])
def test_batches_equal_single_runs(regions: int, rows: int) -> None:
    run = compiled()
    region = LpBall(CENTERS[:regions], 0.1)
    close(run(region, LinearSpec(ROWS[:rows], OFFSETS[:rows])), *one_by_one(regions, rows))
    each = ROWS[None, :rows] * np.arange(1, regions + 1)[:, None, None]
    close(run(region, LinearSpec(each, OFFSETS[:rows])), *one_by_one(regions, rows, per_region=True))
    assert run.stats.plans <= 3  # whatever the sizes


@pytest.mark.parametrize("per_region", [False, True])
def test_chunks_give_the_same_answer(per_region: bool) -> None:
    region = LpBall(CENTERS[:13], 0.1)
    each = ROWS[None, :9] * np.arange(1, 14)[:, None, None] if per_region else ROWS[:9]
    spec = LinearSpec(each, OFFSETS[:9])
    whole = compiled()
    want = whole(region, spec)
    peak = whole.plan.storage.peak_bytes
    chunks = set()
    for limit in (peak, peak - 1, peak // 3, peak // 10, 2048):
        run = compiled(memory_limit=limit)
        close(run(region, spec), want.lower, want.upper)
        assert run.plan.storage.peak_bytes <= limit
        held = [
            schedule.plan.storage.peak_bytes
            for recipe in run._recipes.values()
            for schedule in recipe.main._schedules.values()
        ]
        assert sum(held) <= limit
        chunks.add(run.stats.chunks)
    assert len(chunks) >= 3 and min(chunks) == 1


def test_what_does_not_fit_says_how_much_it_needs() -> None:
    region, spec = LpBall(CENTERS[:2], 0.1), LinearSpec(ROWS[:3])
    run = compiled(memory_limit=100)
    with pytest.raises(MemoryLimitError, match=r"one region and one specification row takes [0-9,]+ bytes") as error:
        run(region, spec)
    least = int(str(error.value).split("takes ")[1].split(" bytes")[0].replace(",", ""))
    compiled(memory_limit=least)(region, spec)
    with pytest.raises(MemoryLimitError):
        compiled(memory_limit=least - 1)(region, spec)
    assert run.stats.calls == 0


@pytest.mark.parametrize(
    ("text", "count"), [("4096", 4096), (4096, 4096), ("1KiB", 1024), ("1.5 GB", 1500000000), ("2gib", 2**31)]
)
def test_amounts_of_memory(text: str | int, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1", "0", "1 parsec", True, "1e9"])
def test_no_amounts_of_memory(text: Any) -> None:
    with pytest.raises(OptionError, match="no amount of memory"):
        parse_bytes(text)


# -- the runner -------------------------------------------------------------------------------------------------------


def requests() -> list[tuple[Any, LinearSpec | None]]:
    """Of every form: single regions and batches, balls and boxes, shared rows and rows per region, several counts."""
    found: list[tuple[Any, LinearSpec | None]] = []
    for i in range(24):
        count = i % 3
        center = CENTERS[i] if count == 0 else CENTERS[i : i + count]
        region = Box(center - 0.1, center + 0.2) if i % 4 == 0 else LpBall(center, 0.01 * i)
        if i % 6 == 5 and count:
            region = LpBall(center, np.linspace(0.1, 0.2, count))
        rows = ROWS[i : i + 1 + i % 4]
        spec = None if i % 5 == 0 else LinearSpec(rows, OFFSETS[: len(rows)] if i % 2 else None)
        if i % 7 == 3 and count:
            spec = LinearSpec(np.stack([rows * (n + 1) for n in range(count)]))
        found.append((region, spec))
    return found


@pytest.mark.parametrize("max_batch", [1, 5, 1000])
def test_each_request_gets_its_own_bounds(max_batch: int) -> None:
    plain = compiled()
    with BatchRunner(compiled(), max_batch, max_wait=None) as runner:
        futures = [runner.submit(region, spec) for region, spec in requests()]
    for future, (region, spec) in zip(futures, requests(), strict=True):
        want = plain(region, spec)
        assert future.result(0).lower.shape == want.lower.shape
        close(future.result(0), want.lower, want.upper)


def test_requests_of_several_threads_run_together() -> None:
    run, plain = compiled(), compiled()
    wanted = requests()
    futures: list[Future[Bounds] | None] = [None] * len(wanted)
    with BatchRunner(run, max_batch=1000, max_wait=60.0) as runner:

        def submit(first: int) -> None:
            for i in range(first, len(wanted), 4):
                futures[i] = runner.submit(*wanted[i])

        threads = [threading.Thread(target=submit, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert run.stats.calls == 0
        runner.flush()
        assert 0 < run.stats.calls < len(wanted)
    for future, (region, spec) in zip(futures, wanted, strict=True):
        want = plain(region, spec)
        assert future is not None
        close(future.result(0), want.lower, want.upper)


def test_a_request_waits_no_longer_than_told() -> None:
    runner = BatchRunner(compiled(), max_batch=1000, max_wait=0.01)
    bounds = runner.submit(LpBall(CENTERS[0], 0.1)).result(60)
    np.testing.assert_array_equal(bounds.lower, compiled()(LpBall(CENTERS[0], 0.1)).lower)
    runner.close()


def test_an_error_belongs_to_the_request_that_caused_it() -> None:
    run = compiled()

    class Failing:
        graph = run.graph

        def __call__(self, region: Any, spec: Any = None) -> Bounds:
            if (np.atleast_2d(region.center)[:, 0] == 99).any():
                raise InputError("the one with 99")
            return run(region, spec)

    bad = CENTERS[2].copy()
    bad[0] = 99
    with BatchRunner(Failing(), 100, max_wait=None) as runner:  # type: ignore[arg-type]
        futures = [runner.submit(LpBall(center, 0.1)) for center in (CENTERS[0], bad, CENTERS[1])]
        misfit = runner.submit(LpBall(np.zeros((2, 9)), 0.1))
        rows = runner.submit(LpBall(CENTERS[0], 0.1), LinearSpec(np.ones((1, OUTPUTS + 1))))
    with pytest.raises(InputError, match="99"):
        futures[1].result(0)
    for future, center in ((futures[0], CENTERS[0]), (futures[2], CENTERS[1])):
        np.testing.assert_allclose(future.result(0).lower, run(LpBall(center, 0.1)).lower)
    with pytest.raises(InputError, match="shape"):
        misfit.result(0)
    with pytest.raises(InputError, match="outputs"):
        rows.result(0)


def test_closed_cancelled_and_misused() -> None:
    runner = BatchRunner(compiled(), 100, max_wait=None)
    future = runner.submit(LpBall(CENTERS[0], 0.1))
    assert future.cancel()
    runner.close()
    with pytest.raises(OptionError, match="closed"):
        runner.submit(LpBall(CENTERS[0], 0.1))
    with pytest.raises(OptionError, match="max_batch"):
        BatchRunner(compiled(), 0)
    with pytest.raises(OptionError, match="max_wait"):
        BatchRunner(compiled(), 1, -1.0)
    assert bf.BatchRunner is BatchRunner
