"""Bounds of leaves, in batches of few different sizes: optimised, quick, and such that hold in exact arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.bounds import batch_size
from boundflow_bab.clock import Clock
from boundflow_bab.decided import Optimum, optimum
from boundflow_bab.frontier import Leaves, joined
from boundflow_bab.neurons import Neurons
from boundflow_bab.roots import Roots
from boundflow_crown import BetaCrown, Settings, Subproblems

__all__ = ["EFFORT", "Effort", "LeafBounds", "filled"]

Array = NDArray[Any]

# A batch should not take much longer, in seconds.
RUN_SECONDS = 1.0
LARGEST_BATCH = 1024
# Neurons of a batch in the beginning, and at most, all values and rows counted: of more, arrays do not stay in caches.
FIRST_NEURONS, MOST_NEURONS = 1 << 17, 1 << 19
# Bounds of the root are worth many steps: all of the tree starts from its slopes.
ROOT, CHILD = Settings(60, 0.2, 0.97, 0.0), Settings(10, 0.03, 0.98, 0.0)


@dataclass(frozen=True)
class Effort:
    """How hard to try.

    Attributes:
        root: how bounds are optimised without any split.
        child: how, after a split, starting from what the parent had.
        beta_rate: size of a step of multipliers, in the unit of the coefficients of their value's rows.
        curve_rate: the same for networks with neurons that are split at points, many times, so that each split needs
            smaller multipliers.
        patience: further steps for subproblems that are about to be closed.
        candidates: neurons whose splits are looked at before one is chosen; 1: the best by score.
        tighten: the share of the time left that may go into tighter bounds inside of the network before any split.
    """

    root: Settings = ROOT
    child: Settings = CHILD
    beta_rate: float = 3.0
    curve_rate: float = 0.1
    patience: int = 30
    candidates: int = 32
    tighten: float = 0.2


EFFORT = Effort()


def filled(leaves: Leaves) -> Leaves:
    """``leaves``, the last one repeated, as many as programs are prepared for."""
    return leaves[np.minimum(np.arange(batch_size(len(leaves))), len(leaves) - 1)]


@dataclass
class LeafBounds:
    """Bounds of leaves on the boxes and rows of ``roots``.

    Attributes:
        quick: bounds in float32.
        exact: bounds that hold in exact arithmetic; None: those of ``quick`` are trusted.
        neurons: those that leaves split.
        batch: leaves that a run takes; found while running.
        count: leaves bounded so far.
    """

    roots: Roots
    quick: BetaCrown
    exact: BetaCrown | None
    clock: Clock
    effort: Effort = EFFORT
    count: int = 0

    def __post_init__(self) -> None:
        self.choose_neurons()
        rows, size = self.roots.offset.shape[1], sum(int(np.prod(shape)) for shape in self.quick.values.values())
        self.batch, self._most = (
            max(min(batch_size(count // max(rows * size, 1)) // 2, most), 1)
            for count, most in ((FIRST_NEURONS, 64), (MOST_NEURONS, LARGEST_BATCH))
        )
        self._unit: dict[str, Array] = {}
        self._beta_rate = self.effort.curve_rate if self.quick.curves else self.effort.beta_rate

    def choose_neurons(self) -> None:
        """Takes those that are undecided on the boxes of ``roots``."""
        self.neurons = Neurons.undecided(self.quick.values, self.roots.bounds, self.quick.curves)

    def start(self, boxes: int) -> Leaves:
        """Each of the first ``boxes`` with each group; slopes as crown takes them."""
        groups, rows = self.roots.offset.shape
        box, group = np.divmod(np.arange(boxes * groups), groups)
        middle = self.neurons.picked({name: low + high for name, (low, high) in self.roots.bounds.items()})
        alpha = np.repeat((middle > 0)[box][:, None], rows, axis=1).astype(np.float16)
        signs = np.zeros((len(box), len(self.neurons)), dtype=np.int8)
        ends = self.neurons.nowhere(len(box))
        return Leaves(np.full(len(box), -np.inf), box, group, signs, ends, alpha, np.zeros_like(alpha))

    def problems(self, leaves: Leaves, *, exact: bool = False) -> Subproblems:
        unit = {name: unit[leaves.group] for name, unit in self._unit.items()}
        return self.roots.problems(
            self.neurons,
            leaves.box,
            leaves.group,
            leaves.signs,
            leaves.ends,
            unit,
            leaves.alpha,
            leaves.beta,
            exact=exact,
        )

    def measure(self, start: Leaves) -> None:
        """Finds the unit of multipliers: the average coefficient of the value's rows on neurons, group by group."""
        first = start[: len(self.roots.offset)]
        met: dict[str, list[Array]] = {name: [] for name in self.quick.values}
        for number in range(len(first)):
            self.clock.check()
            _, rows = self.quick.rows(self.problems(first[number : number + 1]))
            for name, found in rows.items():
                met[name].append(np.abs(found).mean())
        self._unit = {name: np.maximum(np.nan_to_num(sizes), 1e-6).astype(np.float32) for name, sizes in met.items()}

    def optimised(self, leaves: Leaves, settings: Settings) -> Leaves:
        """``leaves`` with better bounds, and the slopes and multipliers, in float32, that give them."""
        found, done = [], 0
        while done < len(leaves):
            self.clock.check()
            some = leaves[done : done + self.batch]
            count, started = len(some), time.perf_counter()
            best = self.quick.optimised(
                self.problems(filled(some)), settings, beta_rate=self._beta_rate, patience=self.effort.patience
            )
            spent = (time.perf_counter() - started) * self.effort.child.iterations / settings.iterations
            self._learn(batch_size(count), spent)
            bound = _best(best.lower)[:count]
            alpha, beta = (self.neurons.picked(arrays)[:count] for arrays in (best.slopes, best.multipliers))
            found.append(replace(some, bound=np.maximum(some.bound, bound), alpha=alpha, beta=beta))
            done += count
        self.count += len(leaves)
        return joined(*found)

    def _learn(self, size: int, seconds: float) -> None:
        """The next batch is larger if this one was quick, smaller if it took too long."""
        if size >= self.batch and seconds < RUN_SECONDS / 2:
            self.batch = min(2 * size, self._most)
        elif seconds > 2 * RUN_SECONDS and size > 1:
            self.batch = size // 2

    def quickly(self, leaves: Leaves) -> Array:
        """Bounds [B] of ``leaves`` for the slopes and multipliers that they have."""
        return self._each(leaves, lambda some: self.quick.bounds(self.problems(some)))

    def exactly(self, leaves: Leaves) -> Array:
        """The same, such as hold in exact arithmetic."""
        exact = self.exact
        assert exact is not None
        return self._each(leaves, lambda some: exact.bounds(self.problems(some, exact=True)))

    def _each(self, leaves: Leaves, bounds: Callable[[Leaves], Array]) -> Array:
        found = []
        for start in range(0, len(leaves), self.batch):
            self.clock.check()
            some = leaves[start : start + self.batch]
            found.append(_best(bounds(filled(some)))[: len(some)])
        return np.concatenate(found)

    def optima(self, leaves: Leaves) -> list[Optimum | None]:
        """The best multipliers there are of ``leaves`` of one row each without a neuron to split."""
        found = []
        for number in range(len(leaves)):
            self.clock.check()
            one = leaves[number : number + 1]
            found.append(optimum(self.quick, self.neurons, self.problems(one), one.signs[0], self.clock.left))
        return found


def _best(lower: Array) -> Array:
    """Of each leaf's rows [B, S] the best; what is not a number shows nothing."""
    return np.asarray(np.where(np.isnan(lower), -np.inf, lower).max(axis=1))
