"""Memory of a program: lifetimes of its values, and the peak that follows."""

from __future__ import annotations

import math

from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.ir.types import concrete_shape
from boundflow_core.planner.plan import StoragePlan

__all__ = ["last_uses", "nbytes", "plan_storage"]


def nbytes(value: Value) -> int:
    """Size of ``value`` in bytes; its shape must be concrete."""
    return math.prod(concrete_shape(value.shape, {})) * value.type.dtype.itemsize


def last_uses(program: BoundProgram) -> dict[Value, int]:
    """Index of the last operation that reads each value; outputs live to the end."""
    last = {value: index for index, op in enumerate(program.ops) for value in op.inputs}
    return {**last, **dict.fromkeys(program.outputs.values(), len(program.ops))}


def plan_storage(program: BoundProgram) -> StoragePlan:
    """Peak of the bytes that are alive at once when each value is freed after its last use."""
    last = last_uses(program)
    alive = peak = naive = 0
    made: set[Value] = set()
    for index, op in enumerate(program.ops):
        made.update(op.outputs)
        fresh = sum(map(nbytes, op.outputs))
        alive, naive = alive + fresh, naive + fresh
        peak = max(peak, alive)
        alive -= sum(nbytes(value) for value in dict.fromkeys(op.inputs) if value in made and last[value] == index)
    return StoragePlan(naive_bytes=naive, peak_bytes=peak)
