"""Branch and bound by splitting neurons: on either side of zero a relu is linear, on either side of a point lines are
nearer to a curve."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.attack import Attack
from boundflow_bab.branching import candidates, gains
from boundflow_bab.clock import Clock
from boundflow_bab.frontier import Boxes, Frontier, Leaves, joined
from boundflow_bab.input_split import MOST_INPUTS, halvable, halves
from boundflow_bab.leaf_bounds import LeafBounds, filled
from boundflow_bab.looks import Looks
from boundflow_bab.neurons import bias_of
from boundflow_bab.problem import Part
from boundflow_bab.roots import Roots
from boundflow_bab.scores import scored
from boundflow_bab.tighten import Tightener, outward32
from boundflow_bab.verdict import Counterexample
from boundflow_core.extension import Branching
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.splits import ACTIVE, INACTIVE

__all__ = ["ActivationSearch"]

Array = NDArray[Any]

# What is kept of multipliers while they wait; half precision has no larger numbers.
LARGEST = 6e4
# Leaves that wait for confirmation meanwhile.
CONFIRMED_AT_ONCE = 256
# The share of the time of a search that goes into further attacks.
ATTACK_SHARE = 0.1
# How near to a bound, relative to it or to 1, the value of a point counts as equal.
REACHED = 1e-5


@dataclass
class ActivationSearch:
    """One search over the boxes and groups of a part.

    Attributes:
        graph: whose outputs have the rows that are bounded, one for each group.
        part: the boxes, and what attacks violate.
        closed: subproblems shown to be safe (and confirmed).
        stuck: subproblems that can be split no further.
        elsewhere: open subproblems that are held by others.
        narrowed: whether all bounds inside of the network were tightened, in the time that there was for it.
    """

    graph: PrimalGraph
    part: Part
    bounds: LeafBounds
    branching: Branching
    attack: Attack
    clock: Clock
    observe: Callable[[ActivationSearch], None] = lambda search: None
    closed: int = 0
    stuck: int = 0
    elsewhere: int = 0
    narrowed: bool = False

    def __post_init__(self) -> None:
        self._bias = bias_of(self.graph, self.bounds.neurons)
        self._waiting: list[Leaves] = []  # closed by float32 bounds, to be confirmed
        self._met: Counterexample | None = None  # found while bounding
        self._attacking = 0.1  # the first attack has been before the search
        start = self._start()
        self.frontier = Frontier(start[:0])
        self._unbounded = len(start)
        self._looks = Looks(self.bounds.effort.candidates)
        quick, exact = self.bounds.quick, self.bounds.exact is not None
        self.tightener = Tightener(quick.graph, quick.executor, self.clock, exact=exact, curves=quick.curves)

    def _start(self) -> Leaves:
        return self.bounds.start(len(self.part.lower))

    @property
    def bounded(self) -> int:
        """Subproblems bounded so far."""
        return self.bounds.count

    @property
    def open(self) -> int:
        """Subproblems that are not shown to be safe."""
        return len(self.frontier) + sum(map(len, self._waiting)) + self.stuck + self._unbounded + self.elsewhere

    def root(self) -> None:
        """Bounds without any split; what these do not show waits to be split.

        Raises:
            OutOfTime: the time is up.
        """
        effort, start = self.bounds.effort, self._start()
        with self.clock.phase("alpha-crown"):
            self.bounds.measure(start)
            self._settle(self.bounds.optimised(start, effort.root))
            self._unbounded = 0
        self._confirm()
        if len(self.frontier) and len(self.part.lower) == 1 and effort.tighten > 0 and self.bounds.quick.sloped:
            with self.clock.phase("tighten"):
                self._tighten()
            left = self._start()[np.unique(self.frontier.held.group)]
            self.frontier, self._unbounded = Frontier(left[:0]), len(left)
            with self.clock.phase("alpha-crown"):
                self._settle(self.bounds.optimised(left, effort.root))
                self._unbounded = 0
            self._confirm()
        self.observe(self)

    def _tighten(self) -> None:
        """Tighter bounds of the box, which other neurons may be undecided in."""
        bounds, roots = self.bounds, self.bounds.roots
        known = roots.bounds if bounds.exact is None else roots.exact
        known = {name: known[name] for name in bounds.quick.needed}
        seconds = bounds.effort.tighten * min(self.clock.left, 1e3)
        until = self.clock.elapsed + seconds
        found = self.tightener(self.part.lower, self.part.upper, known, seconds=seconds)
        self.narrowed = self.clock.elapsed < until and not bounds.quick.curves
        roots.tighten(outward32(found), None if bounds.exact is None else found)
        bounds.choose_neurons()
        self._bias = bias_of(self.graph, bounds.neurons)

    def run(self, seconds: float | None = None) -> Counterexample | None:
        """Searches until every subproblem is closed or stuck, a counterexample is found, or ``seconds`` are over.

        Raises:
            OutOfTime: the time is up; what was found out so far is in the attributes.
        """
        until = math.inf if seconds is None else self.clock.elapsed + seconds
        while (len(self.frontier) or self._waiting) and self.clock.elapsed < until:
            if len(self.frontier):
                self._split(self.frontier.take(max(self.bounds.batch // 2, 1)))
            if self._waiting and (not len(self.frontier) or sum(map(len, self._waiting)) >= CONFIRMED_AT_ONCE):
                self._confirm()
            self.observe(self)
            found = self._attacked()
            if found is not None:
                return found
        return None

    def _split(self, parents: Leaves) -> None:
        """Splits ``parents``, and bounds their children."""
        started = time.perf_counter()
        with self.clock.phase("branching"):
            children = self._branch(parents)
        if len(children) and self._met is None:
            with self.clock.phase("search"):
                self._settle(self.bounds.optimised(children, self.bounds.effort.child))
        self._looks.done(time.perf_counter() - started, len(parents))

    # -- for cells ----------------------------------------------------------------------------------------------------

    def hold(self, roots: Roots, leaves: Leaves, waiting: Sequence[Leaves] = ()) -> None:
        """Goes on with other ``leaves``, on other boxes, and those ``waiting`` to be confirmed."""
        self.bounds.roots, self.frontier, self._waiting = roots, Frontier(leaves[:0]), list(waiting)
        self.frontier.add(leaves)

    def give_up(self) -> tuple[Array, list[Leaves]]:
        """Groups of what is open, and leaves of these that wait to be confirmed; all else is confirmed."""
        left = np.unique(self.frontier.held.group)
        open_ = [leaves[np.isin(leaves.group, left)] for leaves in self._waiting]
        waiting = [leaves[~np.isin(leaves.group, left)] for leaves in self._waiting]
        self._waiting = [leaves for leaves in waiting if len(leaves)]
        self._confirm()
        return np.unique(self.frontier.held.group), [leaves for leaves in open_ if len(leaves)]

    def bound(self, leaves: Leaves) -> Leaves:
        """``leaves`` on the boxes held, with better bounds; where assumptions leave nothing, infinite ones."""
        with np.errstate(over="ignore"):
            return self.bounds.optimised(leaves, self.bounds.effort.child)

    def settle_cell(self, roots: Roots, leaves: Leaves) -> Leaves:
        """Those of ``leaves``, which are bounded, that are not shown to be safe."""
        self.hold(roots, leaves[:0])
        self._settle(leaves)
        self._confirm()
        return self.frontier.held[np.arange(len(self.frontier))]

    def scores(self, leaves: Leaves) -> Array:
        """The heuristic's score of all neurons, [B, N]."""
        return self._scores(leaves)[0]

    def _attacked(self) -> Counterexample | None:
        """A counterexample in the boxes, if it is time for another attack and it succeeds."""
        if self._met is not None:
            return self._met
        spent = self.clock.seconds
        worked = spent.get("search", 0.0) + spent.get("branching", 0.0)
        if not len(self.frontier) or worked * ATTACK_SHARE < self._attacking:
            return None
        started = time.perf_counter()
        boxes, groups = self.frontier.distinct("box"), self.frontier.distinct("group")
        boxes = boxes[: self.attack.schedule.batch]
        roots = self.bounds.roots
        part = Part(roots.lower[boxes], roots.upper[boxes], self.part.rows.select(groups))
        starts = max(self.attack.schedule.batch // (len(boxes) * len(groups)), 1)
        with self.clock.phase("attack"):
            found = self.attack.on_part(part, starts)
        self._attacking += time.perf_counter() - started
        return found

    # -- bounding -----------------------------------------------------------------------------------------------------

    def _settle(self, leaves: Leaves) -> None:
        """Closes what is shown to be safe; the rest waits to be split."""
        safe = leaves.bound > 0
        if self.bounds.exact is None:
            self.closed += int(safe.sum())
        elif safe.any():
            self._waiting.append(leaves[safe])
        self._wait(leaves[~safe])

    def _wait(self, leaves: Leaves) -> None:
        if len(leaves):
            beta = np.clip(leaves.beta, -LARGEST, LARGEST).astype(np.float16)
            self.frontier.add(replace(leaves, alpha=leaves.alpha.astype(np.float16), beta=beta))

    def _confirm(self) -> None:
        """Leaves whose bounds do not hold in exact arithmetic go back, to be split further."""
        if not self._waiting:
            return
        leaves, self._waiting = joined(*self._waiting), []
        with self.clock.phase("confirm"):
            bound = self.bounds.exactly(leaves)
        self.closed += int((bound > 0).sum())
        self._wait(replace(leaves, bound=bound)[~(bound > 0)])

    # -- branching ----------------------------------------------------------------------------------------------------

    def _branch(self, parents: Leaves) -> Leaves:
        """Both children of each of ``parents`` that can be split."""
        self.clock.check()
        count = len(parents)
        score, able, point = self._scores(parents)
        chosen = candidates(score, able, self._looks.number)
        if not chosen.shape[1]:
            chosen = np.full((count, 1), -1)
        fine = chosen[:, 0] >= 0
        whole = self._halved(self._optimal(parents[~fine])) if not fine.all() else parents[:0]
        parents, chosen, point = parents[fine], chosen[fine], point[fine]
        if not len(parents):
            return whole
        best = self._looked_at(parents, chosen, point) if chosen.shape[1] > 1 else chosen[:, 0]
        point = point[np.arange(len(parents)), best]
        return joined(*(self._child(parents, best, sign, point) for sign in (ACTIVE, INACTIVE)), whole)

    def _child(self, parents: Leaves, neuron: Array, sign: int, point: Array) -> Leaves:
        signs, ends = self.bounds.neurons.child(parents.signs, parents.ends, neuron, sign, point)
        return replace(parents, signs=signs, ends=ends)

    def _optimal(self, leaves: Leaves) -> Leaves:
        """Those of ``leaves``, without a neuron to split, that may be shown to be safe on parts of their boxes.

        Where the best multipliers do not show it and a point takes the value of the bound, up to rounding, the point
        is a counterexample or nothing will show it.
        """
        if self.bounds.neurons.curves or not len(leaves):
            return leaves
        found = self.bounds.optima(leaves)
        solved = np.array([best is not None for best in found])
        best, rest = [one for one in found if one is not None], leaves[~solved]
        if not best:
            return rest
        leaves = replace(leaves[solved], beta=np.stack([one.multipliers for one in best])[:, None])
        points, bound = np.stack([one.point for one in best]), np.array([one.bound for one in best])
        leaves = replace(leaves, bound=self.bounds.quickly(leaves))
        if self.bounds.exact is not None and (leaves.bound > 0).any():
            leaves.bound[leaves.bound > 0] = self.bounds.exactly(leaves[leaves.bound > 0])
        safe = leaves.bound > 0
        self.closed += int(safe.sum())
        lower, upper = self.bounds.roots.lower[leaves.box], self.bounds.roots.upper[leaves.box]
        margin, _ = self.attack.margins(points, self.part.rows, leaves.group)
        self._met = self.attack.judged(points[~safe], margin[~safe], lower[~safe], upper[~safe])
        reached = ~safe & (margin <= bound + REACHED * (1 + np.abs(bound)))
        self.stuck += int(reached.sum())
        return joined(rest, leaves[~safe & ~reached])

    def _scores(self, leaves: Leaves) -> tuple[Array, Array, Array]:
        """The heuristic's score of all neurons, which can be split, and at what points, if not at zero, [B, N]."""
        bounds, padded = self.bounds, filled(leaves)
        found = scored(self.branching, bounds.quick, bounds.neurons, bounds.problems(padded), padded.signs, self._bias)
        score, able, point = (array[: len(leaves)] for array in found)
        return score, able, point

    def _halved(self, parents: Leaves) -> Leaves:
        """Halves of the boxes of ``parents`` that are open in few directions, for where no neuron is left to split.

        The network is linear there, but which of several rows is positive may depend on the place, and multipliers may
        be far from the best.
        """
        if not len(parents):
            return parents
        roots = self.bounds.roots
        boxes = Boxes(parents.bound, roots.lower[parents.box], roots.upper[parents.box])
        width = (boxes.upper - boxes.lower).reshape(len(boxes), -1)
        few = (width > 0).sum(axis=1) <= MOST_INPUTS
        axis = width.argmax(axis=1)
        numbers = np.flatnonzero(few & halvable(boxes, axis))
        self.stuck += len(parents) - len(numbers)
        if not len(numbers):
            return parents[:0]
        left, right, _ = halves(boxes[numbers], axis[numbers])
        first = len(roots.lower)
        parents = parents[numbers]
        sides = joined(left, right)
        roots.add(sides.lower, sides.upper, np.concatenate([parents.box] * 2))
        both = joined(parents, parents)
        return replace(both, box=first + np.arange(len(both)))

    def _looked_at(self, parents: Leaves, chosen: Array, point: Array) -> Array:
        """The one [B] of the neurons ``chosen`` [B, k] whose split brings most at once."""
        started = time.perf_counter()
        count, number = chosen.shape
        index = np.repeat(np.arange(count), number)
        neuron = np.maximum(chosen, 0).reshape(-1)
        each, at = parents[index], point[index, neuron]
        children = (self._child(each, neuron, sign, at) for sign in (ACTIVE, INACTIVE))
        after = [self.bounds.quickly(pair).reshape(count, number) for pair in children]
        gain = gains(parents.bound, np.stack(after, axis=2))
        gain = np.where(chosen >= 0, np.nan_to_num(gain, nan=0.0), -1.0)
        self._looks.took(time.perf_counter() - started, gain.size)
        return np.asarray(chosen[np.arange(count), gain.argmax(axis=1)])
