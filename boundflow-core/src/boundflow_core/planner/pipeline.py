"""From a program to a plan: passes, tasks, memory, lowering: done once for each program, for any sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from boundflow_core.extension import Executor, Pass
from boundflow_core.ir.program import BoundProgram, Composite, Op, Value
from boundflow_core.planner.cacheplan import plan_cache
from boundflow_core.planner.layout import analyse_layout
from boundflow_core.planner.partition import dependencies, lasting, order_by_dependencies, partition, single_task
from boundflow_core.planner.plan import KernelKey, Lowering, LoweringTable, PlanBundle, TaskOp
from boundflow_core.planner.rewrite import decompose
from boundflow_core.planner.storage import plan_storage
from boundflow_core.planner.taskgraph import TaskGraph

__all__ = ["bind_plan", "make_plan", "run_passes"]


def run_passes(program: BoundProgram, passes: Iterable[Pass], stage: str) -> BoundProgram:
    """``program`` after those of ``passes`` that belong to ``stage``, in the order of their rank, ties by name."""
    for item in sorted(passes, key=lambda item: (item.rank, item.name)):
        if item.stage == stage:
            program = item.run(program)
    return program


def make_plan(
    program: BoundProgram,
    executor: Executor,
    passes: Iterable[Pass] = (),
    *,
    differentiable: bool = False,
    reuse: bool = True,
    one_task: bool = False,
    varying: frozenset[str] = frozenset(),
) -> PlanBundle:
    """The plan of ``program`` on ``executor``, for sizes that are given later (:func:`bind_plan`).

    Args:
        differentiable: keep what a gradient needs; no memory is planned then.
        reuse: whether values share memory.
        one_task: the whole program as a single task.
        varying: if the program is run in loops, the groups of inputs that change from step to step: what depends on
            others alone is computed once for a loop, and keeps its place.
    """
    passes = (*passes, *executor.passes)
    program = run_passes(program, passes, "program")
    fallbacks = _fallbacks(program, executor)
    lowered = decompose(program, executor.fused)
    program = order_by_dependencies(run_passes(lowered, passes, "primitives"), varying)
    graph = (single_task(program) if one_task else partition(program)).validate()
    storage = plan_storage(
        program,
        _beforehand(program),
        executor.traits(),
        reuse=reuse and not differentiable,
        lasting=lasting(program, varying) if varying else frozenset(),
    )
    return PlanBundle(
        program=program,
        sizes={},
        graph=graph,
        storage=storage.validate(),
        cache=plan_cache(graph, program, storage),
        lowering=_lowering_table(graph, executor.name, fallbacks),
        executor=executor.name,
        differentiable=differentiable,
        layout=analyse_layout(lowered, program),
        varying=varying,
    )


def bind_plan(plan: PlanBundle, sizes: Mapping[str, int]) -> PlanBundle:
    """``plan`` with its symbols bound to ``sizes``."""
    needed = {symbol: sizes[symbol] for symbol in plan.program.symbols()}
    return replace(plan, sizes=needed, storage=plan.storage.bind(needed))


def _beforehand(program: BoundProgram) -> frozenset[Value]:
    """Values that are there before a run: constants, and what follows from frozen ones alone."""
    depends = dependencies(program)
    return frozenset(program.constants) | {value for value, on in depends.items() if not on}


def _fallbacks(program: BoundProgram, executor: Executor) -> dict[str, int]:
    counts = Counter(op.name for op in program.ops if isinstance(op.spec, Composite) and op.name not in executor.fused)
    return {f"{name}: {executor.name} has no fused kernel, runs its decomposition": n for name, n in counts.items()}


def _lowering_table(graph: TaskGraph, strategy: str, fallbacks: Mapping[str, int]) -> LoweringTable:
    entries = {task.name: tuple(TaskOp(op, _lowering(op, strategy)) for op in task.ops) for task in graph.tasks}
    return LoweringTable(entries, fallbacks)


def _lowering(op: Op, strategy: str) -> Lowering:
    types = [value.type for value in op.inputs]
    key = KernelKey(
        op=op.name,
        shapes=tuple(kind.shape for kind in types),
        dtypes=tuple(str(kind.dtype) for kind in types),
        attrs=op.attrs,
        layout="row-major",
        target=strategy,
    )
    return Lowering(strategy, key, f"executor {strategy}")
