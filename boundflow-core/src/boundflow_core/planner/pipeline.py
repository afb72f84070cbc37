"""From a program to a plan: passes, tasks, memory, lowering: done once for each program, for any sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace

from boundflow_core.extension import TYPICAL_SIZE, Executor, LoweringStrategy, Pass, expect, why_unavailable
from boundflow_core.ir.program import BoundProgram, Composite, Op, Value
from boundflow_core.planner.cacheplan import plan_cache
from boundflow_core.planner.cost import known_values
from boundflow_core.planner.layout import analyse_layout, simplify_layout
from boundflow_core.planner.partition import dependencies, lasting, order_by_dependencies, partition, single_task
from boundflow_core.planner.plan import KernelKey, Lowering, LoweringTable, PlanBundle, TaskOp
from boundflow_core.planner.rewrite import decompose
from boundflow_core.planner.storage import MemoryTraits, Operand, Sizes, nbytes, no_workspace, plan_storage
from boundflow_core.planner.taskgraph import TaskGraph

__all__ = ["bind_plan", "make_plan", "run_passes"]


def run_passes(program: BoundProgram, passes: Iterable[Pass], stage: str) -> BoundProgram:
    """``program`` after those of ``passes`` that belong to ``stage``, in the order of their rank, ties by name.

    Raises:
        PluginError: one gives something else than a program.
    """
    for item in sorted(passes, key=lambda item: (item.rank, item.name)):
        if item.stage == stage:
            program = expect(f"pass {item.name!r}", item.run(program), BoundProgram)
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
    lowering: str | None = None,
    analysis: Callable[[BoundProgram], BoundProgram] | None = None,
) -> PlanBundle:
    """The plan of ``program`` on ``executor``, for sizes that are given later (:func:`bind_plan`).

    Args:
        differentiable: keep what a gradient needs; no memory is planned then.
        reuse: whether values share memory.
        one_task: the whole program as a single task.
        varying: if the program is run in loops, the groups of inputs that change from step to step: what depends on
            others alone is computed once for a loop, and keeps its place.
        lowering: name of the executor's strategy that runs all that it supports: composites that it does not are
            written out, and primitives that it does not go to the others. None: the best for each operation.
        analysis: writes more primitives behind those of the program, after the passes: what it writes follows the
            arrangement of the values that it is about, so passes would gain nothing by looking at all of it.
    """
    passes = (*passes, *(p for p in executor.passes if not (lowering and p.strategies) or lowering in p.strategies))
    strategies = [
        strategy
        for strategy in executor.strategies
        if why_unavailable(strategy) is None and not (differentiable and strategy.kernel is not None)
    ]
    asked = [strategy for strategy in strategies if lowering in (None, strategy.name)]
    program = run_passes(program, passes, "program")
    if analysis is None:
        lowered, fallbacks = _written_out(program, executor, asked)
        program = run_passes(lowered, passes, "primitives")
    else:
        lowered, fallbacks = analysis(run_passes(decompose(program), passes, "primitives")), {}
        program = simplify_layout(lowered)
    program = order_by_dependencies(program, varying)
    graph = (single_task(program) if one_task else partition(program)).validate()
    table = _lowering_table(graph, executor.name, strategies, known_values(program), fallbacks, lowering)
    storage = plan_storage(
        program,
        _beforehand(program),
        _with_brought(executor.traits(), table),
        reuse=reuse and not differentiable,
        lasting=lasting(program, varying) if varying else frozenset(),
    )
    return PlanBundle(
        program=program,
        sizes={},
        graph=graph,
        storage=storage.validate(),
        cache=plan_cache(graph, program, storage),
        lowering=table,
        executor=executor.name,
        differentiable=differentiable,
        layout=analyse_layout(lowered, program),
        varying=varying,
    )


def bind_plan(plan: PlanBundle, sizes: Mapping[str, int]) -> PlanBundle:
    """``plan`` with its symbols bound to ``sizes``."""
    needed = {symbol: sizes[symbol] for symbol in plan.program.symbols()}
    return replace(plan, sizes=needed, storage=plan.storage.bind(needed))


def _with_brought(traits: MemoryTraits, lowering: LoweringTable) -> MemoryTraits:
    """``traits`` where plugins bring code: their results are copied into place, so that for a moment they lie twice."""
    brought = {
        entry.op: entry.lowering.kernel
        for entries in lowering.entries.values()
        for entry in entries
        if entry.lowering.kernel is not None
    }
    if not brought:
        return traits

    def workspace(op: Op, sizes: Sizes, operands: Sequence[Operand]) -> int:
        if op in brought:
            return sum(nbytes(value, sizes) for value in op.outputs)
        return traits.workspace(op, sizes, operands)

    composites = {op.name for op in brought if isinstance(op.spec, Composite)}
    everything = traits.working is None and traits.workspace is not no_workspace
    working = None if everything else (traits.working or frozenset()) | {op.name for op in brought}
    return replace(traits, into=traits.into | composites, workspace=workspace, working=working)


def _beforehand(program: BoundProgram) -> frozenset[Value]:
    """Values that are there before a run: constants, and what follows from frozen ones alone."""
    depends = dependencies(program)
    return frozenset(program.constants) | {value for value, on in depends.items() if not on}


def _written_out(
    program: BoundProgram, executor: Executor, strategies: Sequence[LoweringStrategy]
) -> tuple[BoundProgram, dict[str, int]]:
    """``program`` with composites that nothing runs as a whole in primitives, and how many there are, by reason."""
    counts: Counter[str] = Counter()
    while True:
        known = known_values(program)
        refused: dict[Op, str] = {}
        for op in program.ops:
            if isinstance(op.spec, Composite) and op.name not in executor.fused:
                reason = _refusal(op, executor, strategies, [value in known for value in op.inputs])
                if reason:
                    refused[op] = reason
        if not refused:
            return program, dict(counts)
        counts.update(f"{op.name}: {reason}, runs its decomposition" for op, reason in refused.items())
        program = decompose(program, lambda op, refused=refused: op not in refused)  # type: ignore[misc]


def _refusal(op: Op, executor: Executor, strategies: Sequence[LoweringStrategy], known: Sequence[bool]) -> str | None:
    """Why nothing runs the composite ``op`` as a whole; None if something does."""
    if all(known):
        return f"{executor.name} computes it beforehand"
    reasons = []
    for strategy in strategies:
        reason = strategy.supports(op, known)
        if reason is None:
            return None
        reasons.append(reason)
    return reasons[0] if reasons else f"{executor.name} has no fused kernel"


def _lowering_table(
    graph: TaskGraph,
    executor: str,
    strategies: Sequence[LoweringStrategy],
    beforehand: Set[Value],
    fallbacks: Mapping[str, int],
    asked: str | None,
) -> LoweringTable:
    kernels = {strategy.name: strategy.kernel for strategy in strategies}
    counts = Counter(fallbacks)

    def lowered(op: Op) -> Lowering:
        known = [value in beforehand for value in op.inputs]
        refusals = {strategy.name: strategy.supports(op, known) for strategy in strategies}
        offers = [(s.estimate(op, known), s.name) for s in strategies if refusals[s.name] is None]
        if not offers or all(known):
            return Lowering(executor, _key(op, executor), f"executor {executor}")
        if asked is not None and refusals[asked] is None:
            return Lowering(asked, _key(op, asked), f"{asked} is asked for", kernel=kernels[asked])
        (best, name), *others = sorted(offers)
        reason = f"{name} is estimated to take {best * 1e6:.3g} us at sizes of {TYPICAL_SIZE}"
        if others:
            reason += ", " + ", ".join(f"{other} {seconds * 1e6:.3g} us" for seconds, other in others)
        if asked is not None:
            counts[f"{op.name}: {asked}: {refusals[asked]}, runs on {name}"] += 1
            reason = f"{asked} is asked for, but: {refusals[asked]}; {reason}"
        return Lowering(name, _key(op, name), reason, kernel=kernels[name])

    entries = {task.name: tuple(TaskOp(op, lowered(op)) for op in task.ops) for task in graph.tasks}
    return LoweringTable(entries, dict(counts), asked)


def _key(op: Op, strategy: str) -> KernelKey:
    types = [value.type for value in op.inputs]
    return KernelKey(
        op=op.name,
        shapes=tuple(kind.shape for kind in types),
        dtypes=tuple(str(kind.dtype) for kind in types),
        attrs=op.attrs,
        layout="row-major",
        target=strategy,
    )
