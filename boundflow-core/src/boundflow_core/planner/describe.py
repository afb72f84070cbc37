"""A plan as plain data: what ``boundflow plan`` shows, prints as JSON and draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from boundflow_core.ir.program import Op, Value, bind_attrs
from boundflow_core.ir.types import concrete_shape, format_shape
from boundflow_core.planner.description import (
    BufferEntry,
    ChunkEntry,
    LayoutEntry,
    LoweringEntry,
    LoweringRow,
    MemoryStep,
    OpEntry,
    PlanDescription,
    StorageEntry,
    ValueEntry,
)
from boundflow_core.planner.plan import KernelKey, PlanBundle, TaskOp
from boundflow_core.planner.storage import StoragePlan, nbytes

__all__ = ["describe_plan"]


def describe_plan(plan: PlanBundle, chunks: ChunkEntry | None = None) -> PlanDescription:
    """``plan``, bound to sizes, as plain data that ``json.dumps`` takes.

    Args:
        chunks: how calls are cut, where there is a memory limit.

    Raises:
        KeyError: the plan is not bound to sizes.
    """
    stage_of = {name: stage.name for stage in plan.cache.stages for name in stage.tasks}
    step_of = {op: step for step, op in enumerate(plan.program.ops)}
    return {
        "program": plan.program.name,
        "executor": plan.executor,
        "differentiable": plan.differentiable,
        "sizes": dict(plan.sizes),
        "inputs": _names(plan.program.inputs),
        "outputs": {name: value.name for name, value in plan.program.outputs.items()},
        "tasks": [
            {
                "name": task.name,
                "kind": task.kind,
                "depends": sorted(task.depends),
                "stage": stage_of.get(task.name, ""),
                "inputs": _names(task.inputs),
                "outputs": _names(task.outputs),
                "bytes_out": _total(task.outputs, plan.sizes),
                "ops": [_op(entry, step_of[entry.op], plan) for entry in plan.lowering.entries[task.name]],
            }
            for task in plan.tasks
        ],
        "edges": [
            {
                "producer": edge.producer,
                "consumer": edge.consumer,
                "value": edge.value.name,
                "bytes": nbytes(edge.value, plan.sizes),
            }
            for edge in plan.graph.edges
        ],
        "buffers": _buffers(plan.storage),
        "storage": _storage(plan.storage, len(plan.program.ops)),
        "stages": [
            {
                "name": stage.name,
                "depends": sorted(stage.depends),
                "tasks": list(stage.tasks),
                "keeps": _names(stage.keeps),
                "bytes_kept": _total(stage.keeps, plan.sizes),
                "cached": stage.cached,
            }
            for stage in plan.cache.stages
        ],
        "lowering": _lowering(plan),
        "layout": _layout(plan),
        "chunks": chunks,
    }


def _names(values: tuple[Value, ...]) -> list[str]:
    return [value.name for value in values]


def _total(values: tuple[Value, ...], sizes: Mapping[str, int]) -> int:
    return sum(nbytes(value, sizes) for value in values)


def _type(value: Value, sizes: Mapping[str, int]) -> str:
    return f"{value.type.dtype}{format_shape(concrete_shape(value.shape, sizes))}"


# -- operations -------------------------------------------------------------------------------------------------------


def _op(entry: TaskOp, step: int, plan: PlanBundle) -> OpEntry:
    op, lowering = entry.op, entry.lowering
    return {
        "step": step,
        "name": op.name,
        "origin": op.origin,
        "inputs": _names(op.inputs),
        "outputs": _names(op.outputs),
        "type": ", ".join(_type(value, plan.sizes) for value in op.outputs),
        "memory": _memory(op, plan.storage),
        "strategy": lowering.strategy,
        "kernel": _kernel(lowering.key, plan.sizes),
        "reason": lowering.reason,
    }


def _memory(op: Op, storage: StoragePlan) -> str:
    value = op.outputs[0]
    if value not in storage.home:
        return "beforehand"
    if storage.views[value].base is not value:
        return "view"
    if value in storage.onto:
        return "in place"
    return "arena" if storage.buffers[storage.home[value]].planned else "own"


def _kernel(key: KernelKey, sizes: Mapping[str, int]) -> str:
    """The kernel key as text: equal texts, equal kernels."""
    shapes = [format_shape(concrete_shape(shape, sizes)) for shape in key.shapes]
    operands = ", ".join(f"{dtype}{shape}" for dtype, shape in zip(key.dtypes, shapes, strict=True))
    attrs = f" {{{bind_attrs(key.attrs, sizes)}}}" if key.attrs else ""
    return f"{key.op}({operands}){attrs}; {key.layout}; {key.target}"


def _lowering(plan: PlanBundle) -> LoweringEntry:
    kernels: dict[tuple[str, str], list[str]] = {}
    for entries in plan.lowering.entries.values():
        for entry in entries:
            kernels.setdefault((entry.op.name, entry.lowering.strategy), []).append(
                _kernel(entry.lowering.key, plan.sizes)
            )
    rows: list[LoweringRow] = [
        {"op": op, "strategy": strategy, "ops": len(found), "kernels": len(set(found))}
        for (op, strategy), found in sorted(kernels.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return {
        "ops": dict(plan.lowering.counts),
        "kernels": sum(row["kernels"] for row in rows),
        "fallbacks": dict(plan.lowering.fallbacks),
        "table": rows,
    }


# -- memory -----------------------------------------------------------------------------------------------------------


def _buffers(storage: StoragePlan) -> list[BufferEntry]:
    offsets = storage.offsets
    return [
        {
            "index": buffer.index,
            "bytes": buffer.nbytes(storage.sizes),
            "dtype": str(buffer.dtype),
            "offset": offsets[buffer.index] if buffer.planned else None,
            "planned": buffer.planned,
            "first_def": buffer.first_def,
            "last_use": buffer.last_use,
            "values": [_value(value, storage) for value in buffer.alias_group],
        }
        for buffer in storage.buffers
    ]


def _value(value: Value, storage: StoragePlan) -> ValueEntry:
    base = storage.views[value].base
    first, last = storage.lifetimes[value]
    return {
        "name": value.name,
        "type": _type(value, storage.sizes),
        "bytes": nbytes(value, storage.sizes),
        "first_def": first,
        "last_use": last,
        "view_of": None if base is value else base.name,
        "written_onto": storage.onto[value].name if value in storage.onto else None,
    }


def _storage(storage: StoragePlan, ops: int) -> StorageEntry:
    steps = _steps(storage, ops)
    return {
        "peak_bytes": storage.peak_bytes,
        "naive_bytes": storage.naive_bytes,
        "arena_bytes": storage.arena_bytes,
        "beside_bytes": storage.peak_bytes - storage.arena_bytes,
        "arena_buffers": sum(buffer.planned for buffer in storage.buffers),
        "own_buffers": sum(not buffer.planned for buffer in storage.buffers),
        "steps": steps,
    }


def _steps(storage: StoragePlan, ops: int) -> list[MemoryStep]:
    """Memory at each step, from changes at the steps where a piece of memory begins and ends to hold something."""
    used, own, naive = (Counter[int]() for _ in range(3))
    for buffer in storage.buffers:
        changes = used if buffer.planned else own
        for first, last, count in _occupied(buffer.alias_group, storage):
            changes[first] += count
            changes[last + 1] -= count
    for value in storage.home:
        naive[storage.lifetimes[value][0]] += nbytes(value, storage.sizes)
    steps: list[MemoryStep] = []
    total = {"used": 0, "own": 0, "naive": 0}
    for step in range(-1, ops + 1):
        for name, changes in (("used", used), ("own", own), ("naive", naive)):
            total[name] += changes[step]
        steps.append(
            {
                "step": step,
                "arena_used": total["used"],
                "own": total["own"],
                "workspace": storage.temporary_bytes(step),
                "naive": total["naive"],
            }
        )
    return steps


def _occupied(group: tuple[Value, ...], storage: StoragePlan) -> list[tuple[int, int, int]]:
    """(first, last, bytes) for which a buffer holds something alive; a value written onto another goes on with it."""
    ends: dict[Value, int] = {}
    for value in group:
        base = storage.views[value].base
        ends[base] = max(ends.get(base, -1), storage.lifetimes[value][1])
    return [
        # The step at which a value is written onto another belongs to both, and is counted with the other.
        (storage.lifetimes[root][0] + (root in storage.onto), end, nbytes(root, storage.sizes))
        for root, end in ends.items()
    ]


def _layout(plan: PlanBundle) -> LayoutEntry:
    report = plan.layout
    return {
        "before": dict(report.before),
        "after": dict(report.after),
        "eliminated": dict(report.eliminated),
        "values": [
            {
                "name": value.name,
                "shape": format_shape(concrete_shape(value.shape, plan.sizes)),
                "possible": list(value.possible),
                "preferred": value.preferred,
                "reason": value.reason,
            }
            for value in report.values
        ],
    }
