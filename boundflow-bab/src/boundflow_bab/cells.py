"""Splits that tighten bounds inside of the network: cells.

A neuron assumed active or inactive is exact for all that comes behind it. Bounds of the values behind are found anew
under the assumption, and then hold for all conjunctions: what such a split takes, it gives back many times over where
later values have many undecided neurons. A *cell* is a set of such assumptions with its bounds. Neurons are split
within a cell, without new bounds inside, for as long as splitting the cell would take; what is open then goes to the
cell's two halves.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.activation_split import ActivationSearch
from boundflow_bab.branching import candidates
from boundflow_bab.frontier import Leaves
from boundflow_bab.roots import Roots
from boundflow_bab.tighten import Tightener, outward32
from boundflow_bab.verdict import Counterexample
from boundflow_core.splits import ACTIVE, INACTIVE
from boundflow_crown import Settings

__all__ = ["CellSearch"]

Array = NDArray[Any]

# Neurons of each value that are looked at for the first split; later: of those seen before the best, and a new one.
FIRST, AGAIN, NEW = 4, 2, 1
# How hard bounds are tried that only tell splits apart.
LOOK = Settings(8, 0.3, 0.9, None)
# A search within a cell takes at least so many seconds, and so many times what splitting a cell takes.
LEAST_SECONDS, PATIENCE = 0.5, 1.0
# Cells are not worth while if so many do not fit into the time left.
LEAST_CELLS = 8


@dataclass(frozen=True, eq=False)
class Cell:
    """Assumptions, the bounds inside of the network under them, and what is open: a leaf for each group of rows."""

    roots: Roots
    leaves: Leaves

    @property
    def worst(self) -> float:
        return float(self.leaves.bound.min())

    @property
    def need(self) -> float:
        """By how much bounds must rise, all groups counted."""
        return float(np.maximum(-self.leaves.bound, 0).sum())

    def size(self, rise: float) -> float:
        """The logarithm, to the base 2, of how many subproblems a search takes in which bounds rise by ``rise`` with
        each split."""
        need = np.maximum(-self.leaves.bound, 0) / max(rise, 1e-30)
        return float(np.logaddexp2.reduce(need))


@dataclass
class CellSearch:
    """A search over cells, each of which ``search`` tries first.

    Attributes:
        search: has bounded its root, whose bounds inside are tightened.
        cells: how many were made.
    """

    search: ActivationSearch
    cells: int = 0
    _seen: dict[int, float] = field(default_factory=dict)  # how much splits of a neuron brought

    def __post_init__(self) -> None:
        search = self.search
        self._look = Tightener(
            search.bounds.quick.graph, search.bounds.quick.executor, search.clock, exact=False, steps=LOOK
        )
        self._seconds = max(search.clock.seconds.get("tighten", 0.0), LEAST_SECONDS)

    def run(self) -> Counterexample | None:
        """Searches until everything is closed or stuck, or a counterexample is found.

        Raises:
            OutOfTime: the time is up.
        """
        search = self.search
        waiting = [Cell(search.bounds.roots, search.frontier.held)] if len(search.frontier) else []
        while waiting:
            cell = waiting.pop(int(np.argmin([one.worst for one in waiting])))
            able = self._able(cell)
            search.elsewhere = sum(len(one.leaves) for one in waiting)
            search.hold(cell.roots, cell.leaves)
            whole = self._seconds * LEAST_CELLS > search.clock.left or not able.any()
            before = search.bounded
            found = search.run(None if whole else max(PATIENCE * self._seconds, LEAST_SECONDS))
            if found is not None:
                return found
            left, waiting_here = search.give_up()
            if not len(left):
                continue
            kept = search.frontier.held
            rise = (float(kept.bound.min()) - cell.worst) / np.log2(max(search.bounded - before, 2))
            cell = replace(cell, leaves=cell.leaves[np.isin(cell.leaves.group, left)])
            with search.clock.phase("cells"):
                halves = self._split(cell, rise)
            if halves is not None:
                waiting += halves
                continue
            search.hold(cell.roots, kept, waiting_here)
            found = search.run()
            if found is not None:
                return found
        return None

    # -- splits -------------------------------------------------------------------------------------------------------

    def _able(self, cell: Cell) -> Array:
        """Which neurons [N] are undecided in the cell, and have values behind them."""
        search, parts = self.search, []
        for name, places in search.bounds.neurons.places.items():
            low, high = (side[0].reshape(-1)[places] for side in cell.roots.bounds[name])
            behind = search.tightener.behind(name)
            parts.append((low < 0) & (high > 0) if behind else np.zeros(len(places), dtype=np.bool_))
        return np.asarray(np.concatenate(parts) & (cell.leaves.signs[0] == 0))

    def _split(self, cell: Cell, rise: float) -> list[Cell] | None:
        """What is open of the cell's halves; None: splits without new bounds inside are better.

        Args:
            rise: by how much bounds rose in the cell with each such split, one after the other.
        """
        started = time.perf_counter()
        search, best, pair = self.search, -1, list[Cell]()
        search.hold(cell.roots, cell.leaves)
        for neuron in self._promising(cell):
            made = [self._child(cell, neuron, sign, self._look) for sign in (ACTIVE, INACTIVE)]
            self._seen[neuron] = _gain(cell, made)
            if best < 0 or self._seen[neuron] > self._seen[best]:
                best, pair = neuron, made
        if not np.logaddexp2.reduce([one.size(rise) for one in pair]) < cell.size(rise):
            return None
        if search.tightener.exact:
            pair = [self._child(cell, best, sign, search.tightener) for sign in (ACTIVE, INACTIVE)]
        self.cells += 2
        waiting = []
        for one in pair:
            left = search.settle_cell(one.roots, one.leaves)
            if len(left):
                waiting.append(replace(one, leaves=left))
        seconds = time.perf_counter() - started
        self._seconds = seconds if self.cells <= 4 else 0.7 * self._seconds + 0.3 * seconds
        return waiting

    def _promising(self, cell: Cell) -> list[int]:
        """Numbers of the neurons to look at, at least one."""
        able, score = self._able(cell), self.search.scores(cell.leaves).sum(axis=0)
        tops, start = [], 0
        for places in self.search.bounds.neurons.places.values():
            own = slice(start, start + len(places))
            start += len(places)
            if able[own].any():
                top = candidates(score[None, own], able[None, own], FIRST if not self._seen else len(places))[0]
                tops.append([int(n) + own.start for n in top if n >= 0])
        if not self._seen:
            return [n for top in tops for n in top]
        known = sorted((n for top in tops for n in top if n in self._seen), key=lambda n: -self._seen[n])
        new = [next((n for n in top if n not in self._seen), -1) for top in tops]
        worth = [max((self._seen[n] for n in top if n in self._seen), default=0.0) for top in tops]
        fresh = [new[i] for i in np.argsort(worth)[::-1] if new[i] >= 0]
        return known[:AGAIN] + fresh[: NEW if known else AGAIN + NEW]

    def _child(self, cell: Cell, neuron: int, sign: int, tightener: Tightener) -> Cell:
        search = self.search
        signs = cell.leaves.signs.copy()
        signs[:, neuron] = sign
        leaves, split = replace(cell.leaves, signs=signs), search.bounds.neurons.split(signs[:1], cell.leaves.ends[:1])
        known = cell.roots.exact if tightener.exact else cell.roots.bounds
        own = {name: known[name] for name in search.bounds.quick.needed}
        box = cell.roots.lower[:1], cell.roots.upper[:1]
        behind = search.bounds.neurons.value_of(neuron)
        found = tightener(*box, {n: (low[:1], high[:1]) for n, (low, high) in own.items()}, split=split, behind=behind)
        roots = cell.roots.refined(outward32(found), found if tightener.exact else None)
        search.hold(roots, leaves)
        return Cell(roots, search.bound(leaves))


def _gain(cell: Cell, children: list[Cell]) -> float:
    """How good a split is, by the same measure as :func:`.branching.gains`, all groups together."""
    before = max(cell.need, 1e-12)
    return float(np.prod([max(1 - child.need / before, 0.0) + 1e-3 for child in children]))
