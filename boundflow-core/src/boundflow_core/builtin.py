"""What the core itself brings, registered as the plugin "core" by the same hooks as everybody else's.

Light: every function imports what it needs when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from boundflow_core.extension import Command, Executor, Frontend, Pass
from boundflow_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    import click

    from boundflow_core.ir.primal import PrimalGraph
    from boundflow_core.ir.program import BoundProgram
    from boundflow_core.planner.cost import Cost
    from boundflow_core.planner.plan import PlanBundle
    from boundflow_core.planner.storage import MemoryTraits
    from boundflow_core.scheduler import Session

BOUNDFLOW_API = (1, 0)


@hookimpl
def boundflow_register_executors() -> list[Executor]:
    return [
        Executor(
            "reference",
            "NumPy, operation by operation: the meaning of the programs",
            rank=0,
            unavailable=lambda: None,
            open=_open("boundflow_core.executors.reference"),
            traits=_traits("boundflow_core.executors.reference"),
            exact=True,
            cost=_cost("reference_cost"),
        ),
        Executor(
            "torch",
            "PyTorch on the CPU, or on CUDA where the arrays are",
            rank=10,
            unavailable=_torch_missing,
            open=_open("boundflow_core.executors.torch"),
            traits=_traits("boundflow_core.executors.torch"),
            differentiable=True,
            exact=True,
            cost=_cost("torch_cost"),
            startup=_torch_startup,
            passes=(
                Pass(
                    "phases",
                    "strided adjoints that only sums read stay in the order in which they are computed",
                    rank=200,
                    run=_pass("boundflow_core.executors.phases", "sum_by_phases"),
                ),
            ),
        ),
    ]


@hookimpl
def boundflow_register_frontends() -> list[Frontend]:
    return [
        Frontend(
            "torch",
            "torch.nn.Module and torch.export.ExportedProgram",
            accepts=is_torch_model,
            load=_load_module,
            options=("example_inputs", "batch_axis", "name", "converters"),
        )
    ]


@hookimpl
def boundflow_register_passes() -> list[Pass]:
    return [
        Pass(
            "layout-simplify",
            "identities, runs and inverse pairs of layout operations become fewer",
            rank=100,
            run=_pass("boundflow_core.planner.layout.local", "simplify_layout"),
        ),
        Pass(
            "layout-sink",
            "permutations and reshapes move to where they cancel",
            rank=110,
            run=_pass("boundflow_core.planner.layout.sink", "sink_layout"),
        ),
    ]


@hookimpl
def boundflow_register_commands() -> list[Command]:
    return [
        Command("plugins", "Show which plugins are installed, and what they bring.", _command("plugins")),
        Command("inspect", "Summarize a network, and which methods support it.", _command("inspect")),
        Command("bound", "Compute guaranteed bounds on the outputs of a network.", _command("bound")),
        Command("plan", "Show how bounds would be computed: tasks, memory, caching.", _command("plan")),
        Command("new-plugin", "Write a distribution with a plugin of one's own.", _command("new_plugin")),
        Command("demo", "Certify two small networks on handwritten digits.", _command("demo")),
    ]


def is_torch_model(source: Any) -> bool:
    """Whether ``source`` is a module or an exported program. Whoever has one has imported torch, so this need not."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    export = sys.modules.get("torch.export")
    types = (getattr(getattr(torch, "nn", None), "Module", None), getattr(export, "ExportedProgram", None))
    return isinstance(source, tuple(kind for kind in types if kind is not None))


def _load_module(source: Any, **options: Any) -> PrimalGraph:
    graph: PrimalGraph = import_module("boundflow_core.frontends.torch_export").load_module(source, **options)
    return graph


def _torch_missing() -> str | None:
    return None if find_spec("torch") else "torch is not installed: pip install 'boundflow-core[torch]'"


def _torch_startup() -> float:
    from boundflow_core.executors.rates import torch_startup

    return torch_startup()


def _open(module: str) -> Callable[[PlanBundle, Any], Session]:
    def open_session(plan: PlanBundle, device: Any) -> Session:
        session: Session = import_module(module).open_session(plan, device)
        return session

    return open_session


def _traits(module: str) -> Callable[[], MemoryTraits]:
    def traits() -> MemoryTraits:
        found: MemoryTraits = import_module(module).TRAITS
        return found

    return traits


def _cost(name: str) -> Callable[[PlanBundle], Cost]:
    def cost(plan: PlanBundle) -> Cost:
        found: Cost = getattr(import_module("boundflow_core.executors.rates"), name)(plan)
        return found

    return cost


def _pass(module: str, name: str) -> Callable[[BoundProgram], BoundProgram]:
    def run(program: BoundProgram) -> BoundProgram:
        changed: BoundProgram = getattr(import_module(module), name)(program)
        return changed

    return run


def _command(name: str) -> Callable[[], click.Command]:
    def load() -> click.Command:
        command: click.Command = import_module(f"boundflow_core.cli.{name}").command
        return command

    return load
