"""The regions of a plan that Relax runs: the operations of a task as one function, whatever the sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from boundflow_core.errors import IRError
from boundflow_core.ir.program import Op, Value
from boundflow_core.planner.plan import PlanBundle
from boundflow_tvm.backend_relax import Function, Relax
from boundflow_tvm.relax import NAME
from boundflow_tvm.relax.primitives import emit

__all__ = ["Region", "regions_of", "write_region"]


@dataclass(frozen=True)
class Region:
    """What one function computes.

    Attributes:
        ops: in the order in which they run, views of memory among them.
        inputs: values that it reads and others make.
        outputs: values that it makes and others read; none is a view of another one.
    """

    ops: tuple[Op, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @property
    def parameters(self) -> tuple[Value, ...]:
        """The inputs that have elements."""
        return tuple(value for value in self.inputs if 0 not in value.shape)


def regions_of(plan: PlanBundle, known: set[Value]) -> dict[str, Region]:
    """The region of each task that has something to compute.

    Args:
        known: values that are there before any run.

    Raises:
        IRError: an operation is lowered in another way.
    """
    for entry in (entry for part in plan.lowering.entries.values() for entry in part):
        if entry.op.outputs[0] not in known and entry.lowering.strategy not in (NAME, plan.executor):
            raise IRError(f"{entry.op.name} is lowered to {entry.lowering.strategy!r} in a plan for {NAME!r}")
    tasks = plan.graph.topo_sort()
    makers = {value: task.name for task in tasks for op in task.ops for value in op.outputs}
    read = set(plan.program.outputs.values())
    for task in tasks:
        read.update(value for op in task.ops for value in op.inputs if makers.get(value) != task.name)
    read.update(value for stage in plan.cache.stages for value in stage.keeps)
    found = {}
    for task in tasks:
        ops = tuple(op for op in task.ops if op.outputs[0] not in known)
        made = [value for op in ops for value in op.outputs]
        inputs = dict.fromkeys(value for op in ops for value in op.inputs if value not in set(made))
        # what reads a view reads the memory of what it is a view of
        bases = (plan.storage.views[value].base for value in made if value in read)
        outputs = tuple(value for value in dict.fromkeys(bases) if value in set(made))
        if outputs:
            found[task.name] = Region(ops, tuple(inputs), outputs)
    return found


def write_region(r: Relax, builder: Any, name: str, region: Region, symbols: Sequence[str]) -> None:
    """Adds the function ``name`` of the parameters and the sizes."""
    f = Function(r, builder, symbols)
    parameters = [f.parameter(f"p{i}", value.shape, value.type.dtype) for i, value in enumerate(region.parameters)]
    values = dict(zip(region.parameters, parameters, strict=True))

    def body() -> list[Any]:
        for value in region.inputs:
            if value not in values:
                values[value] = f.full(value.shape, 0, value.type.dtype)
        for op in region.ops:
            values[op.outputs[0]] = emit(f, op, [values[value] for value in op.inputs])
        return [values[value] for value in region.outputs]

    f.write(name, parameters, body)
