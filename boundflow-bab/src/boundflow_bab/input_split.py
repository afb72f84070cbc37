"""Branch and bound by halving input boxes: complete for networks of few inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.attack import Attack
from boundflow_bab.bounds import Bounder
from boundflow_bab.clock import Clock
from boundflow_bab.frontier import Boxes, Frontier, joined
from boundflow_bab.problem import Part
from boundflow_bab.verdict import Counterexample

__all__ = ["MOST_INPUTS", "Search", "halvable", "halves"]

Array = NDArray[Any]

# Boxes open in more directions are not halved: each halving of one of many hardly tightens anything.
MOST_INPUTS = 64

# The share of a box's average slope that counts for directions in which slopes are zero.
FLAT = 0.03

# Boxes that wait for confirmation meanwhile: it seldom fails, and large batches of few different sizes are cheaper.
CONFIRMED_AT_ONCE = 2048


@dataclass
class Search:
    """One search over the boxes of a part.

    Attributes:
        bounder: bounds in float32.
        confirm: bounds that hold in exact arithmetic; None: those of ``bounder`` are trusted.
        attack: looks at the middles of boxes on the way.
        observe: told after each batch.
        bounded: boxes bounded so far.
        closed: boxes shown to be safe (and confirmed).
        stuck: boxes that cannot be halved any more.
    """

    part: Part
    bounder: Bounder
    confirm: Bounder | None
    attack: Attack
    clock: Clock
    observe: Callable[[Search], None] = lambda search: None
    bounded: int = 0
    closed: int = 0
    stuck: int = 0

    def __post_init__(self) -> None:
        start = Boxes(np.full(len(self.part.lower), -np.inf), self.part.lower, self.part.upper)
        self.frontier = Frontier(start)
        self._waiting: list[Boxes] = []  # closed by float32 bounds, to be confirmed

    @property
    def open(self) -> int:
        """Boxes that are not shown to be safe."""
        return len(self.frontier) + sum(map(len, self._waiting)) + self.stuck

    def run(self) -> Counterexample | None:
        """Searches until every box is closed or stuck, or a counterexample is found.

        Raises:
            OutOfTime: the time is up; what was found out so far is in the attributes.
        """
        while len(self.frontier) or self._waiting:
            if len(self.frontier):
                found = self._step()
                if found is not None:
                    return found
            if self._waiting and (not len(self.frontier) or sum(map(len, self._waiting)) >= CONFIRMED_AT_ONCE):
                self._confirm()
            self.observe(self)
        return None

    def _step(self) -> Counterexample | None:
        self.clock.check()
        boxes = self.frontier.take(self.bounder.batch)
        with self.clock.phase("search"):
            best, rows = self.bounder.with_rows(boxes.lower, boxes.upper, self.part.rows)
        self.bounded += len(boxes)
        boxes = Boxes(best.min(axis=1), boxes.lower, boxes.upper)
        safe = boxes.bound > 0
        if safe.any():
            self._close(boxes[safe])
        if safe.all():
            return None
        with self.clock.phase("branching"):
            return self._branch(boxes[~safe], best[~safe].argmin(axis=1), None if rows is None else rows[~safe])

    def _branch(self, boxes: Boxes, aim: Array, rows: Array | None) -> Counterexample | None:
        """Halves each box where that should help the group ``aim`` [B] most.

        The network's own slope in the middle tells where its values lie far apart, the bound's where it loses by taking
        them together; either alone is misled where it is flat.

        Args:
            rows: coefficients [B, S, *input] of the bounds.
        """
        middle = (boxes.lower + boxes.upper) / 2
        margin, slope = self.attack.margins(middle, self.part.rows, aim)
        found = self.attack.judged(middle, margin, boxes.lower, boxes.upper)
        if found is not None:
            return found
        width = (boxes.upper - boxes.lower).reshape(len(boxes), -1)
        score = _shares(slope.reshape(len(boxes), -1), width)
        if rows is not None:
            own = self.part.rows.group == aim[:, None]
            sizes = np.abs(rows.reshape(*own.shape, -1)) * own[..., None]
            score += _shares(sizes.max(axis=1), width)
        left, right, stuck = halves(boxes, score.argmax(axis=1))
        self.stuck += stuck
        self.frontier.add(left)
        self.frontier.add(right)
        return None

    def _close(self, boxes: Boxes) -> None:
        if self.confirm is None:
            self.closed += len(boxes)
        else:
            self._waiting.append(boxes)

    def _confirm(self) -> None:
        """Boxes whose bounds do not hold in exact arithmetic go back, halved."""
        assert self.confirm is not None
        boxes = joined(*self._waiting)
        with self.clock.phase("confirm"):
            best = self.confirm(boxes.lower, boxes.upper, self.part.rows).min(axis=1)
        self._waiting = []
        fine = best > 0
        self.closed += int(fine.sum())
        if not fine.all():
            back = Boxes(best[~fine], boxes.lower[~fine], boxes.upper[~fine])
            width = (back.upper - back.lower).reshape(len(back), -1)
            left, right, stuck = halves(back, width.argmax(axis=1))
            self.stuck += stuck
            self.frontier.add(left)
            self.frontier.add(right)


def _shares(slope: Array, width: Array) -> Array:
    """How much of what a function of these slopes [B, n] changes over each box is due to each input, [B, n]."""
    size = np.abs(slope).astype(np.float64)
    size = np.where(np.isfinite(size), size, 0.0)
    change = (size + FLAT * size.mean(axis=1, keepdims=True) + 1e-30) * width
    return np.asarray(change / np.maximum(change.sum(axis=1, keepdims=True), 1e-300))


def halvable(boxes: Boxes, axis: Array) -> Array:
    """Whether there is a number between the ends of each box along the flat input number ``axis`` [B]."""
    number = np.arange(len(boxes))
    low, high = (side.reshape(len(boxes), -1)[number, axis] for side in (boxes.lower, boxes.upper))
    middle = low + (high - low) / 2
    return np.asarray((low < middle) & (middle < high))


def halves(boxes: Boxes, axis: Array) -> tuple[Boxes, Boxes, int]:
    """Both halves of each box along the flat input number ``axis`` [B], and how many could not be halved.

    They share their border, so that nothing is lost between them.
    """
    number = np.arange(len(boxes))
    lower, upper = boxes.lower.reshape(len(boxes), -1), boxes.upper.reshape(len(boxes), -1)
    low, high = lower[number, axis], upper[number, axis]
    middle = low + (high - low) / 2
    able = halvable(boxes, axis)
    left_upper, right_lower = upper.copy(), lower.copy()
    left_upper[number, axis] = middle
    right_lower[number, axis] = middle
    shape = boxes.lower.shape
    left = Boxes(boxes.bound, boxes.lower, left_upper.reshape(shape))
    right = Boxes(boxes.bound, right_lower.reshape(shape), boxes.upper)
    return left[able], right[able], int((~able).sum())
