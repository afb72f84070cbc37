"""Tighter bounds inside of the network: each undecided neuron's own, with slopes optimised for it alone.

What goes on to the search must hold wherever the search's own bounds do. So slopes are found in float32 and, unless
float32 is trusted, the bounds that they give are computed in exact arithmetic and rounded outwards for the search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.bounds import batch_size, exact_executor
from boundflow_bab.clock import Clock
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.splits import SplitState
from boundflow_crown import BetaCrown, Settings, Subproblems

__all__ = ["Tightener", "outward32"]

Array = NDArray[Any]
Bounds = Mapping[str, tuple[Array, Array]]

STEPS = Settings(20, 0.3, 0.9, None)
# Slopes of one run, all rows and neurons counted.
RUN_SLOPES = 1 << 20


@dataclass
class Tightener:
    """Tightens bounds inside of one network, value by value; programs are written once.

    Attributes:
        graph: the network, in the operators that the bounds know.
        exact: bounds handed in hold in exact arithmetic, and so will the results, float64; else float32.
        curves: names of values whose bounds matter wherever they are; of others, only where they are undecided.
    """

    graph: PrimalGraph
    executor: str
    clock: Clock
    exact: bool
    steps: Settings = STEPS
    curves: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._quick: dict[str, BetaCrown] = {}
        self._sure: dict[str, BetaCrown] = {}

    def __call__(
        self,
        lower: Array,
        upper: Array,
        bounds: Bounds,
        *,
        seconds: float = math.inf,
        split: SplitState | None = None,
        behind: str | None = None,
    ) -> dict[str, tuple[Array, Array]]:
        """``bounds`` (lower, upper) [1, *value] on one box, tightened; where assumptions leave nothing, they cross.

        Args:
            seconds: after which no other value is begun with.
            split: what is assumed, one subproblem; None: nothing.
            behind: the value before which nothing has changed since ``bounds`` were found; None: all are tightened.

        Raises:
            OutOfTime: the time is up.
        """
        found, until = dict(bounds), self.clock.elapsed + seconds
        if split is not None:
            found = {name: split.clip(name, *pair) for name, pair in found.items()}
        for name in bounds:
            if self.clock.elapsed > until or any((low > high).any() for low, high in found.values()):
                break
            if behind is None or behind in self._at(name, exact=False).values:
                found[name] = self._tightened(name, lower, upper, found, split, until)
        return found

    def behind(self, name: str) -> bool:
        """Whether bounds of any value follow from those of the value ``name``."""
        return any(name in quick.values for quick in self._quick.values())

    def _at(self, name: str, *, exact: bool) -> BetaCrown:
        """Bounds of the value ``name``."""
        made = self._sure if exact else self._quick
        if name not in made:
            executor = exact_executor(self.executor) if exact else self.executor
            made[name] = BetaCrown(_until(self.graph, name), executor, exact=exact)
        return made[name]

    def _tightened(
        self, name: str, lower: Array, upper: Array, found: Bounds, split: SplitState | None, until: float
    ) -> tuple[Array, Array]:
        quick, shape = self._at(name, exact=False), found[name][0].shape
        low, high = (side.reshape(-1).copy() for side in found[name])
        undecided = np.flatnonzero(low < high if name in self.curves else (low < 0) & (high > 0))
        if not (quick.sloped or (quick.values and split is not None)) or not len(undecided):
            return found[name]
        sure = self._at(name, exact=True) if self.exact else quick
        slopes = sum(int(np.prod(value)) for value in quick.values.values())
        length = max(min(batch_size(len(undecided)), RUN_SLOPES // (2 * slopes)), 1)
        for start in range(0, len(undecided), length):
            self.clock.check()
            if self.clock.elapsed > until:
                break
            neurons = undecided[start : start + length]
            filled = neurons[np.minimum(np.arange(batch_size(len(neurons))), len(neurons) - 1)]
            least = _least(quick, sure, lower, upper, found, filled, len(low), split, self.steps)
            below, above = least[: len(neurons)], -least[len(filled) : len(filled) + len(neurons)]
            better_low, better_high = np.maximum(low[neurons], below), np.minimum(high[neurons], above)
            sound = better_low <= better_high  # rounding alone lets them cross, in float32
            low[neurons] = np.where(sound, better_low, low[neurons])
            high[neurons] = np.where(sound, better_high, high[neurons])
        return low.reshape(shape), high.reshape(shape)


def _until(graph: PrimalGraph, name: str) -> PrimalGraph:
    """The part of the network that computes the value ``name``."""
    needed, kept = {name}, []
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            kept.append(node)
    constants = {key: constant for key, constant in graph.constants.items() if key in needed}
    return replace(graph, nodes=tuple(reversed(kept)), output=name, constants=constants)


def _least(
    quick: BetaCrown,
    sure: BetaCrown,
    lower: Array,
    upper: Array,
    known: Bounds,
    neurons: Array,
    count: int,
    split: SplitState | None,
    steps: Settings,
) -> Array:
    """Lower bounds [2 R] of the flat neurons [R], and of their negatives, of the output."""
    C = np.zeros((1, 2 * len(neurons), count), dtype=np.float32)
    C[0, np.arange(len(neurons)), neurons] = 1
    C[0, len(neurons) + np.arange(len(neurons)), neurons] = -1
    problems = Subproblems(
        lower,
        upper,
        C,
        np.zeros(C.shape[:2], dtype=np.float32),
        {name: known[name] for name in quick.needed},
        _of(quick, split),
        {},
        {},
        {},
    )
    best = quick.optimised(problems, steps, beta_rate=steps.rate)
    if sure is quick:
        return np.asarray(np.nan_to_num(best.lower[0], nan=-np.inf, neginf=-np.inf, posinf=-np.inf))
    return np.asarray(sure.bounds(replace(problems, slopes=best.slopes, multipliers=best.multipliers))[0])


def _of(quick: BetaCrown, split: SplitState | None) -> SplitState:
    """What is assumed of the values before one value."""
    if split is None:
        return quick.undecided(1)
    return split.of(quick.values)


def outward32(bounds: Bounds) -> dict[str, tuple[Array, Array]]:
    """``bounds`` in float32, no narrower."""
    found = {}
    for name, (low, high) in bounds.items():
        down, up = low.astype(np.float32), high.astype(np.float32)
        down = np.where(down > low, np.nextafter(down, np.float32(-np.inf)), down)
        up = np.where(up < high, np.nextafter(up, np.float32(np.inf)), up)
        found[name] = down, up
    return found
