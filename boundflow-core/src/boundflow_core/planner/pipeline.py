"""From a program to a plan: passes, sizes, tasks, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from boundflow_core.extension import Executor, Pass
from boundflow_core.ir.program import BoundProgram, Composite, Op
from boundflow_core.planner.plan import BoundTask, KernelKey, Lowering, LoweringTable, PlanBundle, TaskOp
from boundflow_core.planner.rewrite import decompose
from boundflow_core.planner.storage import plan_storage

__all__ = ["make_plan", "run_passes"]


def run_passes(program: BoundProgram, passes: Iterable[Pass]) -> BoundProgram:
    """``program`` after all ``passes``, in the order of their rank."""
    for item in sorted(passes, key=lambda item: (item.rank, item.name)):
        program = item.run(program)
    return program


def make_plan(
    program: BoundProgram, sizes: Mapping[str, int], executor: Executor, *, differentiable: bool = False
) -> PlanBundle:
    """The plan of ``program`` for these sizes on one executor: a single task."""
    written = Counter(op.name for op in program.ops if isinstance(op.spec, Composite) and op.name not in executor.fused)
    fallbacks = {
        f"{name}: {executor.name} has no fused kernel, runs its decomposition": count for name, count in written.items()
    }
    bound = decompose(program, executor.fused).bind(sizes)
    task = BoundTask(
        name=bound.name,
        executor=executor.name,
        ops=tuple(TaskOp(op, _lowering(op, executor.name)) for op in bound.ops),
        inputs=bound.inputs,
        outputs=tuple(bound.outputs.values()),
    )
    return PlanBundle(
        program=bound,
        sizes=dict(sizes),
        tasks=(task,),
        storage=plan_storage(bound),
        lowering=LoweringTable({executor.name: len(bound.ops)}, fallbacks),
        executor=executor.name,
        differentiable=differentiable,
    )


def _lowering(op: Op, strategy: str) -> Lowering:
    types = [value.type for value in op.inputs]
    key = KernelKey(op.name, tuple(t.shape for t in types), tuple(str(t.dtype) for t in types), op.attrs, strategy)
    return Lowering(strategy, key, f"executor {strategy}")
