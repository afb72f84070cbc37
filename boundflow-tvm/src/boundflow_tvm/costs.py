"""What running a plan on executor `tvm` takes by estimate, with what must be compiled or loaded first."""

from __future__ import annotations

import sys

from boundflow_core.extension import TYPICAL_SIZE
from boundflow_core.planner.cost import Cost, count, known_values, moved, running_ops
from boundflow_core.planner.plan import PlanBundle
from boundflow_tvm import relax
from boundflow_tvm.cache import KERNELS, cache_folder
from boundflow_tvm.session import unit_of
from boundflow_tvm.strategies import STRATEGIES

__all__ = ["plan_cost"]

# Seconds, measured on two-core machines and rounded.
CALL = 3e-6  # of a run of kernels
BYTES_NEAR = 3e10  # a second, of what the caches of the processor hold
SHARE = 0.3  # of what strategies estimate: they are only compared with each other, and are careful
IMPORT_LINKER = 0.2
IMPORT_TVM = 1.0
LOAD = 0.03  # an object file
COMPILE = 0.1  # a kernel, by generated code
COMPILE_TEMPLATE = 0.5
COMPILE_RELAX = 0.02  # an operation


def plan_cost(plan: PlanBundle) -> Cost:
    """The cost of ``plan``, bound to sizes: estimates of its strategies, brought to these sizes."""
    known = known_values(plan.program)
    estimates = {strategy.name: strategy.estimate for strategy in STRATEGIES}
    strategy = {entry.op: entry.lowering.strategy for part in plan.lowering.entries.values() for entry in part}
    typical = dict.fromkeys(plan.program.symbols(), TYPICAL_SIZE)
    run = CALL * max(1, len(plan.tasks))
    for op in running_ops(plan):
        if (estimate := estimates.get(strategy[op])) is not None:
            seconds = estimate(op, [value in known for value in op.inputs])
            grown = count(op.outputs[0], plan.sizes) / max(1, count(op.outputs[0], typical))
            run += max(SHARE * seconds * grown, moved(op, plan.sizes) / BYTES_NEAR)
    return Cost(_prepare(plan), run)


def _prepare(plan: PlanBundle) -> float:
    imported = 0.0 if "tvm" in sys.modules else IMPORT_TVM
    if relax.NAME in plan.lowering.counts:
        return imported + COMPILE_RELAX * len(plan.program.ops)
    unit = unit_of(plan)
    linked = 0.0 if "tvm_ffi_orcjit" in sys.modules else IMPORT_LINKER
    where = KERNELS.holds(unit.key, cache_folder())
    if where:
        return 0.0 if where == "process" else linked + LOAD
    kernels = {(launch.kernel.name, launch.kernel.key): launch.kernel for run in unit.runs for launch in run}
    return imported + linked + sum(COMPILE_TEMPLATE if k.flops else COMPILE for k in kernels.values())
