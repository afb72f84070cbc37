"""Lower bounds of groups of rows over boxes, in batches of few different sizes, and their confirmation."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import boundflow_core as bf
from boundflow_bab.clock import Clock
from boundflow_bab.problem import Rows
from boundflow_core.compiled import choose_executor
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.types import concrete_shape
from boundflow_core.plugins import registry
from boundflow_core.selection import candidates

__all__ = ["Bounder", "batch_size", "exact_executor", "suited_executor"]

Array = NDArray[Any]

# Bounds (lower, upper) [B, *value] of values inside of the network, by name.
Inside = dict[str, tuple[Array, Array]]

# A run should not take much longer, so that nobody waits for it when the time is up.
RUN_SECONDS = 0.4
LARGEST_BATCH = 4096
# Bounds in exact arithmetic carry errors along, several arrays for one, which should stay in caches.
LARGEST_EXACT = 64
# Of a network of so many parameters, one box is bounded at first; of smaller ones, as many as come to the same work.
FIRST_PARAMETERS = 1 << 20
# Inputs of networks of which the coefficients of bounds are kept, for each row and box.
MOST_COEFFICIENTS = 64
# Inputs of networks, but small ones, whose bounds inside are looked for by affine forms first.
FORWARD_INPUTS = 16
# Networks of which so many come to that work are small: to prepare a program takes longer than to run it. So one box is
# bounded as two, as a batch of one would be run by programs of its own.
NEVER_ALONE = 64


def exact_executor(name: str) -> str:
    """Who computes what must hold in exact arithmetic: the executor ``name``, or the best one that states how exactly
    it computes."""
    return name if name == "auto" or registry().executor(name).exact else "auto"


def suited_executor(graph: PrimalGraph, name: str) -> str:
    """The executor ``name``; for "auto" and a small network the simplest of those that start at once.

    To import torch takes longer than many searches, and operations on small arrays are no faster there: on ACAS Xu even
    thousands of boxes take as long with NumPy.
    """
    if name != "auto" or _first_batch(graph) < NEVER_ALONE:
        return name
    found = candidates(registry(), name, differentiable=False, outward=True).executors
    return min(found, key=lambda executor: (executor.startup(), executor.rank)).name


def _first_batch(graph: PrimalGraph) -> int:
    """How many boxes are bounded at first."""
    return min(max(FIRST_PARAMETERS // max(graph.parameter_count(), 1), 1), 256)


def batch_size(count: int) -> int:
    """The power of two that ``count`` boxes are filled up to: for every size something is prepared."""
    return 1 << max(count - 1, 0).bit_length()


class Bounder:
    """``bounder(lower, upper, rows) -> best [B, G]``, see :meth:`boundflow_bab.problem.Rows.best`.

    Attributes:
        method: name of the method.
        exact: whether its bounds hold in exact arithmetic.
        batch: boxes that a run may take; found while running.
        boxes: how many were bounded so far.
    """

    def __init__(
        self,
        graph: PrimalGraph,
        method: str,
        executor: str,
        clock: Clock,
        *,
        exact: bool = False,
    ) -> None:
        self.method, self.exact, self.boxes, self._clock = method, exact, 0, clock
        self._most = LARGEST_EXACT if exact else LARGEST_BATCH
        self.batch = min(_first_batch(graph), self._most)
        self._least = 2 if self.batch >= NEVER_ALONE else 1
        self._latest: tuple[Array, Array, Inside] | None = None
        # What is looked for is whether rows are positive, so that upper bounds are of no use.
        known = registry().method(method).options
        inputs = np.prod(concrete_shape(graph.input_type.shape, {}))
        wanted = {
            "side": "lower",
            "linear": bool(inputs <= MOST_COEFFICIENTS and not exact),
            "forward": bool(inputs <= FORWARD_INPUTS and self.batch < NEVER_ALONE),
        }
        options: dict[str, Any] = {name: value for name, value in wanted.items() if name in known}
        # By rank, not by an estimate for one box: searches bound many at once.
        name = exact_executor(executor) if exact else executor
        self._run = bf.compile(
            graph,
            method=method,
            executor=choose_executor(registry(), name, differentiable=False, outward=exact).name,
            dtype="float64" if exact else "float32",
            rounding="outward" if exact else "nearest",
            cache=False,
            share_memory=True,
            **options,
        )

    @property
    def lowering(self) -> dict[str, int]:
        """Operations per strategy."""
        return dict(self._run.stats.lowering)

    def __call__(self, lower: Array, upper: Array, rows: Rows) -> Array:
        """How far each group of ``rows`` is shown on each box, [B, G]; boxes are [B, *input] float64.

        Raises:
            OutOfTime: the time is up.
        """
        return self.with_rows(lower, upper, rows)[0]

    def with_rows(self, lower: Array, upper: Array, rows: Rows) -> tuple[Array, Array | None]:
        """The same, and the coefficients [B, S, *input] of linear functions of the input below the rows, if there are
        any.

        Raises:
            OutOfTime: the time is up.
        """
        found, done = [], 0
        while done < len(lower):
            self._clock.check()
            count = min(self.batch, len(lower) - done)
            found.append(self._batch(lower[done : done + count], upper[done : done + count], rows))
            done += count
        best, slopes = zip(*found, strict=True)
        return np.concatenate(best), None if slopes[0] is None else np.concatenate(slopes)

    def inside(self, lower: Array, upper: Array, rows: Rows) -> Inside:
        """Bounds [B, *value] of the values inside of the network that the method finds on its way, by name.

        Raises:
            OutOfTime: the time is up.
        """
        found: list[Inside] = []
        for number in range(len(lower)):
            self._clock.check()
            one = slice(number, number + 1)
            if not self._known(lower[one], upper[one]):
                self._batch(lower[one], upper[one], rows)
            found.append(self._known(lower[one], upper[one]))
        return {
            name: (np.concatenate([part[name][0] for part in found]), np.concatenate([part[name][1] for part in found]))
            for name in found[0]
        }

    def _batch(self, lower: Array, upper: Array, rows: Rows) -> tuple[Array, Array | None]:
        count, size = len(lower), max(batch_size(len(lower)), self._least)
        more = np.minimum(np.arange(size), count - 1)
        started = time.perf_counter()
        known = self._known(lower, upper) if count == 1 else {}
        # Rows for each box, though they are the same: those of a single one are such, and programs for both are more.
        spec = bf.LinearSpec(*(np.broadcast_to(part, (size, *part.shape)) for part in (rows.C, rows.offset)))
        taken = {name: (low.repeat(size, 0), high.repeat(size, 0)) for name, (low, high) in known.items()}
        bounds = self._run(bf.Box(lower[more], upper[more]), spec, intermediate=taken)
        if count == 1:
            inside = {n: (np.asarray(low)[:1], np.asarray(high)[:1]) for n, (low, high) in bounds.intermediate.items()}
            self._latest = (lower, upper, {**known, **inside})
        self._learn(size, time.perf_counter() - started)
        self.boxes += count
        slopes = np.asarray(bounds.linear["lower"][0])[:count] if bounds.linear else None
        return rows.best(np.asarray(bounds.lower)[:count]), slopes

    def _known(self, lower: Array, upper: Array) -> Inside:
        """Bounds inside of the network on the one box that was bounded last; nothing on another one."""
        if self._latest is None:
            return {}
        low, high, found = self._latest
        return found if np.array_equal(low, lower) and np.array_equal(high, upper) else {}

    def _learn(self, size: int, seconds: float) -> None:
        """The next batch is larger if this one was quick, smaller if it took too long."""
        if size >= self.batch and seconds < RUN_SECONDS / 2:
            self.batch = min(2 * size, self._most)
        elif seconds > 2 * RUN_SECONDS and size > 1:
            self.batch = size // 2
