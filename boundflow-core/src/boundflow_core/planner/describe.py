"""A plan as plain data: what ``boundflow plan`` shows, prints as JSON and draws.

Everything is numbers, names and lists, so that it can be stored, compared and drawn without the program. Values go by
their names in the program, operations by their step: the index at which they run. Step -1 is before the first one, when
the inputs are there, and the number of operations is the step after the last, when the results are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypedDict

from boundflow_core.ir.program import Op, Value, bind_attrs
from boundflow_core.ir.types import concrete_dim, concrete_shape, format_shape
from boundflow_core.planner.plan import KernelKey, PlanBundle, TaskOp
from boundflow_core.planner.storage import StoragePlan, nbytes

__all__ = [
    "BufferEntry",
    "ChunkEntry",
    "EdgeEntry",
    "LayoutEntry",
    "LoweringEntry",
    "LoweringRow",
    "MemoryStep",
    "OpEntry",
    "PlanDescription",
    "StageEntry",
    "StorageEntry",
    "TaskEntry",
    "ValueEntry",
    "ValueLayoutEntry",
    "describe_plan",
]


class ValueEntry(TypedDict):
    """A value in memory, alive from ``first_def`` to ``last_use``.

    ``view_of`` names the value in whose memory it lies in its own arrangement, ``written_onto`` the one whose memory it
    takes over because it dies there; both are None for a value that begins a piece of memory.
    """

    name: str
    type: str
    bytes: int
    first_def: int
    last_use: int
    view_of: str | None
    written_onto: str | None


class BufferEntry(TypedDict):
    """Memory that ``values`` use one after another; ``offset`` in the arena, None where a kernel allocates it."""

    index: int
    bytes: int
    dtype: str
    offset: int | None
    planned: bool
    first_def: int
    last_use: int
    values: list[ValueEntry]


class OpEntry(TypedDict):
    """An operation and how it runs.

    ``memory`` says where its result lies: "arena", "in place" (onto an operand that dies), "view" (nothing is written),
    "own" (the kernel allocates it) or "beforehand" (computed once, when the plan is prepared).
    """

    step: int
    name: str
    origin: str
    inputs: list[str]
    outputs: list[str]
    type: str
    memory: str
    strategy: str
    kernel: str
    reason: str


class TaskEntry(TypedDict):
    """A task; ``stage`` is empty if it runs only once, when the plan is prepared. ``bytes_out``: what it hands on."""

    name: str
    kind: str
    depends: list[str]
    stage: str
    inputs: list[str]
    outputs: list[str]
    bytes_out: int
    ops: list[OpEntry]


class EdgeEntry(TypedDict):
    producer: str
    consumer: str
    value: str
    bytes: int


class StageEntry(TypedDict):
    """Tasks that run again together or not at all; ``keeps`` is what is stored if it is ``cached``."""

    name: str
    depends: list[str]
    tasks: list[str]
    keeps: list[str]
    bytes_kept: int
    cached: bool


class MemoryStep(TypedDict):
    """Memory while one step runs.

    ``arena_used``: bytes of the arena that hold a value alive; ``own``: results that kernels allocated themselves;
    ``workspace``: what is needed for this step alone (after the last one, for copies of the results); ``naive``: what
    one buffer per value would have taken by now.
    """

    step: int
    arena_used: int
    own: int
    workspace: int
    naive: int


class StorageEntry(TypedDict):
    """``peak_bytes`` is the arena and ``beside_bytes``, the most that kernels' own results and workspace take."""

    peak_bytes: int
    naive_bytes: int
    arena_bytes: int
    beside_bytes: int
    arena_buffers: int
    own_buffers: int
    steps: list[MemoryStep]


class LoweringRow(TypedDict):
    """All operations of one name on one strategy; ``kernels`` counts the different ones among them."""

    op: str
    strategy: str
    ops: int
    kernels: int


class LoweringEntry(TypedDict):
    ops: dict[str, int]
    kernels: int
    fallbacks: dict[str, int]
    table: list[LoweringRow]


class ValueLayoutEntry(TypedDict):
    """Layouts that a value may have and the one that suits its readers; ``reason``: the kind of reader that decided."""

    name: str
    shape: str
    possible: list[str]
    preferred: str
    reason: str


class LayoutEntry(TypedDict):
    """Operations of a run that only move data, by name, before and after the passes, and layouts of all values."""

    before: dict[str, int]
    after: dict[str, int]
    eliminated: dict[str, int]
    values: list[ValueLayoutEntry]


class ChunkEntry(TypedDict):
    """How calls of the ``asked`` sizes are cut so that the planned peak is at most ``limit_bytes``."""

    limit_bytes: int
    asked: dict[str, int]
    count: int


class PlanDescription(TypedDict):
    program: str
    executor: str
    differentiable: bool
    sizes: dict[str, int]
    inputs: list[str]
    outputs: dict[str, str]
    tasks: list[TaskEntry]
    edges: list[EdgeEntry]
    buffers: list[BufferEntry]
    storage: StorageEntry
    stages: list[StageEntry]
    lowering: LoweringEntry
    layout: LayoutEntry
    chunks: ChunkEntry | None


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
                "workspace": sum(concrete_dim(term, storage.sizes) for term in storage.temporaries.get(step, ())),
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
