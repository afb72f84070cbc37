"""The plan: everything that is decided before a bound is computed, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from boundflow_core.ir.program import BoundProgram, Op
from boundflow_core.ir.types import Attrs, Shape
from boundflow_core.planner.cacheplan import CachePlan
from boundflow_core.planner.layout.analysis import LayoutReport
from boundflow_core.planner.shared import SharedPiece
from boundflow_core.planner.storage import StoragePlan
from boundflow_core.planner.taskgraph import BoundTask, TaskGraph

__all__ = ["KernelKey", "LayoutHint", "Lowering", "LoweringTable", "PlanBundle", "ScheduleHint", "TaskOp"]


@dataclass(frozen=True)
class KernelKey:
    """Identifies a compiled kernel: two operations of one key run the same code."""

    op: str
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    attrs: Attrs
    layout: str
    target: str


@dataclass(frozen=True)
class ScheduleHint:
    """How a kernel should be scheduled, as far as the planner has an opinion."""

    tiles: tuple[int, ...] = ()
    threads: int = 1


@dataclass(frozen=True)
class LayoutHint:
    """Which layouts a kernel should read and write ("NCHW", "NHWC"...)."""

    inputs: tuple[str, ...] = ()
    output: str = ""


@dataclass(frozen=True)
class Lowering:
    """How one operation runs.

    Attributes:
        strategy: the lowering strategy that runs it ("reference", "torch"...).
        key: the kernel.
        reason: why this strategy.
        kernel: the strategy's code, where the executor has not got it: ``kernel(op) -> function(*operands)``.
    """

    strategy: str
    key: KernelKey
    reason: str
    schedule: ScheduleHint | None = None
    layout: LayoutHint | None = None
    kernel: Callable[[Op], Callable[..., Any]] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class TaskOp:
    """An operation of a task, with how it runs."""

    op: Op
    lowering: Lowering


@dataclass(frozen=True)
class LoweringTable:
    """How each operation runs.

    Attributes:
        entries: by task, in program order.
        fallbacks: number of operations that could not run as they were written, or as was asked, by reason.
        asked: the strategy that the caller asked for; None: the best for each operation.
    """

    entries: Mapping[str, tuple[TaskOp, ...]] = field(default_factory=dict)
    fallbacks: Mapping[str, int] = field(default_factory=dict)
    asked: str | None = None

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of operations per strategy."""
        found: dict[str, int] = {}
        for entries in self.entries.values():
            for entry in entries:
                found[entry.lowering.strategy] = found.get(entry.lowering.strategy, 0) + 1
        return found


@dataclass(frozen=True)
class PlanBundle:
    """A program with all decisions about how it runs, bound to sizes.

    Attributes:
        program: the program with symbolic shapes, its operations in the order in which they run.
        sizes: values of its symbols ("B": regions, "S": specification rows).
        graph: the tasks and what they hand to each other.
        storage: where each value lies.
        cache: which results are kept between calls.
        lowering: on what each operation runs.
        executor: who runs the tasks.
        differentiable: whether what a gradient needs is kept; then no memory is planned, reused or freed early.
        layout: layouts that values may have, and which layout operations the passes took away.
        varying: groups of inputs that change from step to step of a loop; none if it is not for loops.
        shared: memory that the arena may lie in, with those of other plans; whoever runs one holds its lock. None: the
            arena is this plan's own.
    """

    program: BoundProgram
    sizes: Mapping[str, int]
    graph: TaskGraph
    storage: StoragePlan
    cache: CachePlan
    lowering: LoweringTable
    executor: str
    differentiable: bool = False
    layout: LayoutReport = field(default_factory=LayoutReport)
    varying: frozenset[str] = frozenset()
    shared: SharedPiece | None = None

    @property
    def tasks(self) -> tuple[BoundTask, ...]:
        """The tasks in the order in which they run."""
        return self.graph.topo_sort()
