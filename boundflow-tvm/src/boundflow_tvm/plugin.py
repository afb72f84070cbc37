"""What this distribution registers with BoundFlow. Light: TVM is imported when something is compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boundflow_core.extension import Command, Executor, LoweringStrategy, Pass
from boundflow_core.ir.program import BoundProgram, Composite
from boundflow_core.plugins import hookimpl
from boundflow_tvm.backend import unavailable

if TYPE_CHECKING:
    import click

    from boundflow_core.planner.cost import Cost
    from boundflow_core.planner.plan import PlanBundle
    from boundflow_core.planner.storage import MemoryTraits
    from boundflow_core.scheduler import Session

BOUNDFLOW_API = (1, 1)


@hookimpl
def boundflow_register_executors() -> list[Executor]:
    from boundflow_tvm.cuda.executor import unavailable as no_gpu

    return [
        Executor(
            "cuda",
            "PyTorch on a GPU of NVIDIA, with kernels of TVM for what is no product",
            rank=1,  # below executor torch, which "auto" takes there
            unavailable=no_gpu,
            open=_open_cuda,
            traits=_traits_cuda,
            passes=(
                Pass(
                    "fuse",
                    "elementwise and layout operations become kernels",
                    rank=200,
                    run=_fuse,
                    strategies=("cuda_tir",),
                ),
            ),
        ),
        Executor(
            "tvm",
            "compiled kernels on the CPU",
            rank=5,
            unavailable=unavailable,
            open=_open,
            traits=_traits,
            cost=_cost,
            passes=(
                Pass(
                    "rows",
                    "what rows go through becomes one operation",
                    rank=50,
                    run=_fuse_rows,
                    stage="program",
                    strategies=("call_tir",),
                ),
                Pass(
                    "fuse",
                    "elementwise and layout operations become loop nests",
                    rank=200,
                    run=_fuse,
                    strategies=("call_tir",),
                ),
            ),
        ),
    ]


@hookimpl
def boundflow_register_lowerings() -> list[LoweringStrategy]:
    from boundflow_tvm.cuda.executor import STRATEGY
    from boundflow_tvm.strategies import STRATEGIES

    return [*STRATEGIES, STRATEGY]


@hookimpl
def boundflow_register_primitives() -> list[Composite]:
    from boundflow_tvm.fused import FUSED
    from boundflow_tvm.rowprogram import ROW_PROGRAM

    return [FUSED, ROW_PROGRAM]


@hookimpl
def boundflow_register_commands() -> list[Command]:
    return [Command("cache", "Show or clear the cache of compiled kernels.", _command)]


def _open(plan: PlanBundle, device: Any) -> Session:
    from boundflow_tvm import relax
    from boundflow_tvm.session import open_session

    if relax.NAME in plan.lowering.counts:
        from boundflow_tvm.relax.session import RelaxSession

        return RelaxSession(plan)

    return open_session(plan, device)


def _open_cuda(plan: PlanBundle, device: Any) -> Session:
    from boundflow_tvm.cuda.session import open_session

    return open_session(plan, device)


def _traits_cuda() -> MemoryTraits:
    from boundflow_tvm.cuda.session import TRAITS

    return TRAITS


def _traits() -> MemoryTraits:
    from boundflow_tvm.session import TRAITS

    return TRAITS


def _cost(plan: PlanBundle) -> Cost:
    from boundflow_tvm.costs import plan_cost

    return plan_cost(plan)


def _fuse(program: BoundProgram) -> BoundProgram:
    from boundflow_tvm.fuse import fuse

    return fuse(program)


def _fuse_rows(program: BoundProgram) -> BoundProgram:
    from boundflow_tvm.rowfusion import fuse_rows

    return fuse_rows(program)


def _command() -> click.Command:
    from boundflow_tvm.cli import command

    return command
