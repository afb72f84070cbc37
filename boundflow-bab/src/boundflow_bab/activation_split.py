"""Branch and bound by splitting neurons: on either side of zero a relu is linear, on either side of a point lines are
nearer to a curve."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.attack import Attack
from boundflow_bab.bounds import batch_size
from boundflow_bab.branching import candidates, gains
from boundflow_bab.clock import Clock
from boundflow_bab.frontier import Boxes, Frontier, Leaves, joined
from boundflow_bab.input_split import MOST_INPUTS, halvable, halves
from boundflow_bab.neurons import Neurons, bias_of
from boundflow_bab.problem import Part
from boundflow_bab.roots import Roots
from boundflow_bab.scores import scored
from boundflow_bab.tighten import Tightener, outward32
from boundflow_bab.verdict import Counterexample
from boundflow_core.extension import Branching
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.splits import ACTIVE, INACTIVE
from boundflow_crown import BetaCrown, Settings, Subproblems

__all__ = ["EFFORT", "ActivationSearch", "Effort"]

Array = NDArray[Any]

# What is kept of multipliers while they wait; half precision has no larger numbers.
LARGEST = 6e4
# Leaves that wait for confirmation meanwhile.
CONFIRMED_AT_ONCE = 256
# The share of the time of a search that goes into further attacks.
ATTACK_SHARE = 0.1
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


@dataclass
class ActivationSearch:
    """One search over the boxes and groups of a part.

    Attributes:
        quick: bounds in float32.
        exact: bounds that hold in exact arithmetic; None: those of ``quick`` are trusted.
        bounded: subproblems bounded so far.
        closed: subproblems shown to be safe (and confirmed).
        stuck: subproblems that can be split no further.
        elsewhere: open subproblems that are held by others.
        narrowed: whether all bounds inside of the network were tightened, in the time that there was for it.
    """

    graph: PrimalGraph
    part: Part
    roots: Roots
    quick: BetaCrown
    exact: BetaCrown | None
    branching: Branching
    attack: Attack
    clock: Clock
    observe: Callable[[ActivationSearch], None] = lambda search: None
    effort: Effort = EFFORT
    bounded: int = 0
    closed: int = 0
    stuck: int = 0
    elsewhere: int = 0
    narrowed: bool = False

    def __post_init__(self) -> None:
        self.neurons = Neurons.undecided(self.quick.values, self.roots.bounds, self.quick.curves)
        self._bias = bias_of(self.graph, self.neurons)
        self._waiting: list[Leaves] = []  # closed by float32 bounds, to be confirmed
        rows, size = self.roots.offset.shape[1], sum(int(np.prod(shape)) for shape in self.quick.values.values())
        self.batch, self._most = (
            max(min(batch_size(count // max(rows * size, 1)) // 2, most), 1)
            for count, most in ((FIRST_NEURONS, 64), (MOST_NEURONS, LARGEST_BATCH))
        )
        self._unit: dict[str, Array] = {}
        self._attacking = 0.1  # the first attack has been before the search
        start = self._start()
        self.frontier = Frontier(start[:0])
        self._unbounded = len(start)
        self.beta_rate = self.effort.curve_rate if self.quick.curves else self.effort.beta_rate
        exact = self.exact is not None
        self.tightener = Tightener(
            self.quick.graph, self.quick.executor, self.clock, exact=exact, curves=self.quick.curves
        )

    def _start(self) -> Leaves:
        """Each box with each group; slopes as crown takes them."""
        boxes, groups, rows = len(self.part.lower), *self.roots.offset.shape
        box, group = np.divmod(np.arange(boxes * groups), groups)
        middle = self.neurons.picked({name: low + high for name, (low, high) in self.roots.bounds.items()})
        alpha = np.repeat((middle > 0)[box][:, None], rows, axis=1).astype(np.float16)
        signs = np.zeros((len(box), len(self.neurons)), dtype=np.int8)
        ends = self.neurons.nowhere(len(box))
        return Leaves(np.full(len(box), -np.inf), box, group, signs, ends, alpha, np.zeros_like(alpha))

    @property
    def open(self) -> int:
        """Subproblems that are not shown to be safe."""
        return len(self.frontier) + sum(map(len, self._waiting)) + self.stuck + self._unbounded + self.elsewhere

    def root(self) -> None:
        """Bounds without any split; what these do not show waits to be split.

        Raises:
            OutOfTime: the time is up.
        """
        start = self._start()
        with self.clock.phase("alpha-crown"):
            self._measure(start)
            self._settle(self._bound(start, self.effort.root))
            self._unbounded = 0
        self._confirm()
        if len(self.frontier) and len(self.part.lower) == 1 and self.effort.tighten > 0 and self.quick.sloped:
            with self.clock.phase("tighten"):
                self._tighten()
            left = self._start()[np.unique(self.frontier.held.group)]
            self.frontier, self._unbounded = Frontier(left[:0]), len(left)
            with self.clock.phase("alpha-crown"):
                self._settle(self._bound(left, self.effort.root))
                self._unbounded = 0
            self._confirm()
        self.observe(self)

    def _tighten(self) -> None:
        """Tighter bounds of the box, which other neurons may be undecided in."""
        known = self.roots.bounds if self.exact is None else self.roots.exact
        known = {name: known[name] for name in self.quick.needed}
        seconds = self.effort.tighten * min(self.clock.left, 1e3)
        until = self.clock.elapsed + seconds
        found = self.tightener(self.part.lower, self.part.upper, known, seconds=seconds)
        self.narrowed = self.clock.elapsed < until and not self.quick.curves
        self.roots.tighten(outward32(found), None if self.exact is None else found)
        self.neurons = Neurons.undecided(self.quick.values, self.roots.bounds, self.quick.curves)
        self._bias = bias_of(self.graph, self.neurons)

    def run(self, seconds: float | None = None) -> Counterexample | None:
        """Searches until every subproblem is closed or stuck, a counterexample is found, or ``seconds`` are over.

        Raises:
            OutOfTime: the time is up; what was found out so far is in the attributes.
        """
        until = math.inf if seconds is None else self.clock.elapsed + seconds
        while (len(self.frontier) or self._waiting) and self.clock.elapsed < until:
            if len(self.frontier):
                parents = self.frontier.take(max(self.batch // 2, 1))
                with self.clock.phase("branching"):
                    children = self._branch(parents)
                if len(children):
                    with self.clock.phase("search"):
                        self._settle(self._bound(children, self.effort.child))
            if self._waiting and (not len(self.frontier) or sum(map(len, self._waiting)) >= CONFIRMED_AT_ONCE):
                self._confirm()
            self.observe(self)
            found = self._attacked()
            if found is not None:
                return found
        return None

    # -- for cells ----------------------------------------------------------------------------------------------------

    def hold(self, roots: Roots, leaves: Leaves) -> None:
        """Goes on with other ``leaves``, on other boxes."""
        self.roots, self.frontier, self._waiting = roots, Frontier(leaves[:0]), []
        self.frontier.add(leaves)

    def give_up(self) -> Array:
        """Groups of what is open; all else is confirmed."""
        left = np.unique(self.frontier.held.group)
        waiting = [leaves[~np.isin(leaves.group, left)] for leaves in self._waiting]
        self._waiting = [leaves for leaves in waiting if len(leaves)]
        self._confirm()
        return np.unique(self.frontier.held.group)

    def bound(self, leaves: Leaves) -> Leaves:
        """``leaves`` on the boxes held, with better bounds; where assumptions leave nothing, infinite ones."""
        with np.errstate(over="ignore"):
            return self._bound(leaves, self.effort.child)

    def settle_cell(self, roots: Roots, leaves: Leaves) -> Leaves:
        """Those of ``leaves``, which are bounded, that are not shown to be safe."""
        self.hold(roots, leaves[:0])
        self._settle(leaves)
        self._confirm()
        return self.frontier.held[np.arange(len(self.frontier))]

    def scores(self, leaves: Leaves) -> Array:
        """The heuristic's score of all neurons, [B, N]."""
        filled = leaves[np.minimum(np.arange(batch_size(len(leaves))), len(leaves) - 1)]
        return self._scores(filled)[0][: len(leaves)]

    def _attacked(self) -> Counterexample | None:
        """A counterexample in the boxes, if it is time for another attack and it succeeds."""
        spent = self.clock.seconds
        worked = spent.get("search", 0.0) + spent.get("branching", 0.0)
        if not len(self.frontier) or worked * ATTACK_SHARE < self._attacking:
            return None
        started = time.perf_counter()
        boxes, groups = self.frontier.distinct("box"), self.frontier.distinct("group")
        boxes = boxes[: self.attack.schedule.batch]
        part = Part(self.roots.lower[boxes], self.roots.upper[boxes], self.part.rows.select(groups))
        starts = max(self.attack.schedule.batch // (len(boxes) * len(groups)), 1)
        with self.clock.phase("attack"):
            found = self.attack.on_part(part, starts)
        self._attacking += time.perf_counter() - started
        return found

    # -- bounding -----------------------------------------------------------------------------------------------------

    def _problems(self, leaves: Leaves, *, exact: bool = False) -> Subproblems:
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

    def _measure(self, start: Leaves) -> None:
        """The unit of multipliers: the average coefficient of the value's rows on neurons, group by group."""
        first = start[: len(self.roots.offset)]
        met: dict[str, list[Array]] = {name: [] for name in self.quick.values}
        for number in range(len(first)):
            self.clock.check()
            _, rows = self.quick.rows(self._problems(first[number : number + 1]))
            for name, found in rows.items():
                met[name].append(np.abs(found).mean())
        self._unit = {name: np.maximum(np.nan_to_num(sizes), 1e-6).astype(np.float32) for name, sizes in met.items()}

    def _bound(self, leaves: Leaves, settings: Settings) -> Leaves:
        """``leaves`` with better bounds, and the slopes and multipliers, in float32, that give them."""
        found, done = [], 0
        while done < len(leaves):
            self.clock.check()
            some = leaves[done : done + self.batch]
            count, size = len(some), batch_size(len(some))
            started = time.perf_counter()
            filled = some[np.minimum(np.arange(size), count - 1)]
            best = self.quick.optimised(
                self._problems(filled), settings, beta_rate=self.beta_rate, patience=self.effort.patience
            )
            self._learn(size, (time.perf_counter() - started) * self.effort.child.iterations / settings.iterations)
            bound = np.where(np.isnan(best.lower), -np.inf, best.lower).max(axis=1)[:count]
            alpha, beta = (self.neurons.picked(arrays)[:count] for arrays in (best.slopes, best.multipliers))
            found.append(replace(some, bound=np.maximum(some.bound, bound), alpha=alpha, beta=beta))
            done += count
        self.bounded += len(leaves)
        return joined(*found)

    def _learn(self, size: int, seconds: float) -> None:
        """The next batch is larger if this one was quick, smaller if it took too long."""
        if size >= self.batch and seconds < RUN_SECONDS / 2:
            self.batch = min(2 * size, self._most)
        elif seconds > 2 * RUN_SECONDS and size > 1:
            self.batch = size // 2

    def _settle(self, leaves: Leaves) -> None:
        """Closes what is shown to be safe; the rest waits to be split."""
        safe = leaves.bound > 0
        if self.exact is None:
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
        assert self.exact is not None
        leaves, self._waiting = joined(*self._waiting), []
        with self.clock.phase("confirm"):
            for start in range(0, len(leaves), self.batch):
                self.clock.check()
                some = leaves[start : start + self.batch]
                filled = some[np.minimum(np.arange(batch_size(len(some))), len(some) - 1)]
                lower = self.exact.bounds(self._problems(filled, exact=True))[: len(some)]
                bound = np.where(np.isnan(lower), -np.inf, lower).max(axis=1)
                self.closed += int((bound > 0).sum())
                self._wait(replace(some, bound=bound)[~(bound > 0)])

    # -- branching ----------------------------------------------------------------------------------------------------

    def _branch(self, parents: Leaves) -> Leaves:
        """Both children of each of ``parents`` that can be split."""
        self.clock.check()
        filled = parents[np.minimum(np.arange(batch_size(len(parents))), len(parents) - 1)]
        count = len(parents)
        score, able, point = (found[:count] for found in self._scores(filled))
        chosen = candidates(score, able, self.effort.candidates)
        if not chosen.shape[1]:
            chosen = np.full((count, 1), -1)
        fine = chosen[:, 0] >= 0
        whole = self._halved(parents[~fine]) if not fine.all() else parents[:0]
        parents, chosen, point = parents[fine], chosen[fine], point[fine]
        if not len(parents):
            return whole
        best = self._looked_at(parents, chosen, point) if chosen.shape[1] > 1 else chosen[:, 0]
        point = point[np.arange(len(parents)), best]
        return joined(*(self._child(parents, best, sign, point) for sign in (ACTIVE, INACTIVE)), whole)

    def _child(self, parents: Leaves, neuron: Array, sign: int, point: Array) -> Leaves:
        signs, ends = self.neurons.child(parents.signs, parents.ends, neuron, sign, point)
        return replace(parents, signs=signs, ends=ends)

    def _scores(self, leaves: Leaves) -> tuple[Array, Array, Array]:
        """The heuristic's score of all neurons, which can be split, and at what points, if not at zero, [B, N]."""
        return scored(self.branching, self.quick, self.neurons, self._problems(leaves), leaves.signs, self._bias)

    def _halved(self, parents: Leaves) -> Leaves:
        """Halves of the boxes of ``parents`` that are open in few directions, for where no neuron is left to split.

        The network is linear there, but which of several rows is positive may depend on the place, and multipliers may
        be far from the best.
        """
        boxes = Boxes(parents.bound, self.roots.lower[parents.box], self.roots.upper[parents.box])
        width = (boxes.upper - boxes.lower).reshape(len(boxes), -1)
        few = (width > 0).sum(axis=1) <= MOST_INPUTS
        axis = width.argmax(axis=1)
        numbers = np.flatnonzero(few & halvable(boxes, axis))
        self.stuck += len(parents) - len(numbers)
        if not len(numbers):
            return parents[:0]
        left, right, _ = halves(boxes[numbers], axis[numbers])
        first = len(self.roots.lower)
        parents = parents[numbers]
        sides = joined(left, right)
        self.roots.add(sides.lower, sides.upper, np.concatenate([parents.box] * 2))
        both = joined(parents, parents)
        return replace(both, box=first + np.arange(len(both)))

    def _looked_at(self, parents: Leaves, chosen: Array, point: Array) -> Array:
        """The one [B] of the neurons ``chosen`` [B, k] whose split brings most at once."""
        count, number = chosen.shape
        index = np.repeat(np.arange(count), number)
        neuron = np.maximum(chosen, 0).reshape(-1)
        each, at = parents[index], point[index, neuron]
        after = []
        for sign in (ACTIVE, INACTIVE):
            children = self._child(each, neuron, sign, at)
            found = []
            for start in range(0, len(children), self.batch):
                self.clock.check()
                some = children[start : start + self.batch]
                filled = some[np.minimum(np.arange(batch_size(len(some))), len(some) - 1)]
                found.append(self.quick.bounds(self._problems(filled)).max(axis=1)[: len(some)])
            after.append(np.concatenate(found).reshape(count, number))
        gain = gains(parents.bound, np.stack(after, axis=2))
        gain = np.where(chosen >= 0, np.nan_to_num(gain, nan=0.0), -1.0)
        return np.asarray(chosen[np.arange(count), gain.argmax(axis=1)])
