"""The plan: everything that is decided before a bound is computed, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.ir.types import Attrs, Shape

__all__ = ["BoundTask", "KernelKey", "Lowering", "LoweringTable", "PlanBundle", "StoragePlan", "TaskOp"]


@dataclass(frozen=True)
class KernelKey:
    """Identifies a compiled kernel: two operations of one key run the same code."""

    op: str
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    attrs: Attrs
    target: str


@dataclass(frozen=True)
class Lowering:
    """How one operation runs.

    Attributes:
        strategy: the lowering strategy that runs it ("reference", "torch"...).
        key: the kernel.
        reason: why this strategy.
    """

    strategy: str
    key: KernelKey
    reason: str


@dataclass(frozen=True)
class TaskOp:
    """An operation of a task, with how it runs."""

    op: Op
    lowering: Lowering


@dataclass(frozen=True)
class BoundTask:
    """A region of a program that runs as one piece on one executor."""

    name: str
    executor: str
    ops: tuple[TaskOp, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


@dataclass(frozen=True)
class LoweringTable:
    """Strategy per operation, and what fell back.

    Attributes:
        counts: number of operations per strategy.
        fallbacks: number of operations that could not run as they were written, by reason.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    fallbacks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StoragePlan:
    """Memory of the intermediate values and results, in bytes; inputs and weights are not counted.

    Attributes:
        naive_bytes: one buffer per value.
        peak_bytes: the most that is alive at once.
    """

    naive_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class PlanBundle:
    """A program, bound to sizes, with all decisions about how it runs.

    Attributes:
        program: the program with concrete shapes.
        sizes: values of its symbols ("B": regions, "S": specification rows).
        tasks: in the order in which they run.
        differentiable: whether what a gradient needs is kept; then nothing is reused or freed early.
    """

    program: BoundProgram
    sizes: Mapping[str, int]
    tasks: tuple[BoundTask, ...]
    storage: StoragePlan
    lowering: LoweringTable
    executor: str
    differentiable: bool = False
