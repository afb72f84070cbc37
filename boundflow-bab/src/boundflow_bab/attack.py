"""The search for counterexamples: projected gradient descent on the property's margin, many starts in a batch.

Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018: steps along the sign of the gradient,
projected back into the box. The margin of a conjunction is the largest of its rows, which a counterexample has at most
0. Gradients are those of the network's own program (:mod:`boundflow_core.derivative`), planned as any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.clock import Clock
from boundflow_bab.problem import Part, Rows
from boundflow_bab.verdict import Counterexample
from boundflow_bab.witness import Witness
from boundflow_core.derivative import gradient_program
from boundflow_core.extension import Executor
from boundflow_core.forward import forward_values
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.program import BoundProgram
from boundflow_core.ir.types import DType, SymDim, concrete_shape, size
from boundflow_core.plugins import registry
from boundflow_core.runner import Planning, ProgramRunner, RunStats

__all__ = ["Attack", "Margins"]

Array = NDArray[Any]

# Rows of other conjunctions than the one aimed at are lowered by this, so that they are never the largest.
FAR = 1e30


@dataclass(frozen=True)
class Schedule:
    """How an attack goes.

    Attributes:
        steps: of each start.
        first, last: size of the first and the last step, as parts of the box's width; those between in proportion.
        batch: points at once.
        judged: candidates per step that are run through the network itself.
    """

    steps: int = 60
    first: float = 0.5
    last: float = 1e-4
    batch: int = 256
    judged: int = 4

    def size(self, number: int) -> float:
        return float(self.first * (self.last / self.first) ** (number / max(self.steps - 1, 1)))


class Margins:
    """Margins of points and their gradients, for one network.

    Args:
        executor: runs the program.
    """

    def __init__(self, graph: PrimalGraph, executor: Executor, stats: RunStats) -> None:
        self._graph = graph
        planning = Planning(executor, tuple(registry().passes.values()), "attack")
        self._run = ProgramRunner(self._program, planning, stats, cuts=("B",))

    def __call__(self, x: Array, rows: Rows, aim: Array) -> tuple[Array, Array]:
        """Margins [B] and their gradients [B, *input] at the points ``x`` [B, *input].

        Args:
            aim: group [B] that each point is to violate.
        """
        focus = np.where(rows.group[None] == aim[:, None], 0.0, -FAR)
        inputs = {"x": x, "C": rows.C, "offset": rows.offset, "focus": focus}
        found = self._run({name: np.asarray(array, dtype=np.float32) for name, array in inputs.items()})
        return np.asarray(found["margin"]), np.asarray(found["grad:x"])

    def _program(self) -> BoundProgram:
        graph, points, number = self._graph, SymDim.of("B"), SymDim.of("S")
        b = Builder(DType.FLOAT32, f"margins of {graph.name}")
        outputs = size(concrete_shape(graph.output_type.shape, {}))
        x = b.input("x", (points, *graph.input_type.shape), group="points")
        C = b.input("C", (number, outputs), group="spec")
        offset = b.input("offset", (number,), group="spec")
        focus = b.input("focus", (points, number), group="points")
        y = b.reshape(forward_values(b, graph, x)[graph.output], (points, outputs))
        each = b.matmul(y, C, transpose_b=True) + offset + focus
        return gradient_program(b.finish({"margin": b.reduce_max(each, (1,))}), "margin", ["x"])


@dataclass
class Attack:
    """Attacks on one network and property.

    Attributes:
        clock: ends the attack when the time is up.
        tried: points so far.
    """

    margins: Margins
    witness: Witness
    clock: Clock
    seed: int = 0
    schedule: Schedule = Schedule()
    tried: int = 0

    def __post_init__(self) -> None:
        self._numbers = np.random.default_rng(self.seed)

    def on_part(self, part: Part, starts: int, seconds: float = math.inf) -> Counterexample | None:
        """A counterexample in the boxes of ``part``, from ``starts`` points for each box and conjunction, or from less
        where ``seconds`` are over: no other batch is begun with then.

        Raises:
            OutOfTime: the time is up.
        """
        boxes, groups = len(part.lower), part.rows.groups
        pairs = boxes * groups
        until = self.clock.elapsed + seconds
        for start in range(0, pairs * starts, self.schedule.batch):
            if start and self.clock.elapsed > until:
                break
            number = np.arange(start, min(start + self.schedule.batch, pairs * starts))
            box, aim = np.divmod(number % pairs, groups)  # one start of each, then the next one
            lower, upper = part.lower[box], part.upper[box]
            found = self.descend(self._starts(lower, upper, middle=number < pairs), lower, upper, part.rows, aim)
            if found is not None:
                return found
        return None

    def descend(self, x: Array, lower: Array, upper: Array, rows: Rows, aim: Array) -> Counterexample | None:
        """Descends from the points ``x`` [B, *input] within their boxes.

        Raises:
            OutOfTime: the time is up.
        """
        width = upper - lower
        self.tried += len(x)
        for number in range(self.schedule.steps + 1):
            self.clock.check()
            margin, gradient = self.margins(x, rows, aim)
            found = self.judged(x, margin, lower, upper)
            if found is not None:
                return found
            if number < self.schedule.steps:
                x = np.clip(x - self.schedule.size(number) * width * np.sign(gradient), lower, upper)
        return None

    def judged(self, x: Array, margin: Array, lower: Array, upper: Array) -> Counterexample | None:
        """The most promising of points that seem to be counterexamples, if one of them is."""
        # A margin that rounding alone keeps above 0 deserves a look.
        promising = np.flatnonzero(margin <= 1e-6 * (1 + np.abs(margin)))
        for i in promising[np.argsort(margin[promising], kind="stable")][: self.schedule.judged]:
            found = self.witness.judge(x[i], lower[i], upper[i])
            if found is not None:
                return found
        return None

    def _starts(self, lower: Array, upper: Array, *, middle: Array) -> Array:
        """Random points of boxes; the middles of those marked in ``middle`` [B]."""
        share = self._numbers.random(lower.shape)
        share[middle] = 0.5
        return np.asarray(lower + share * (upper - lower))
