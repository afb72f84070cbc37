"""Which executor runs: the one that is named, or for "auto" the one that is fastest by estimate."""

from __future__ import annotations

from boundflow_core.errors import OptionError
from boundflow_core.extension import Executor
from boundflow_core.plugins import Registry

__all__ = ["check_lowering", "executor_of"]


def executor_of(registry: Registry, name: str, lowering: str | None) -> str:
    """The executor to ask for: ``name``, or for "auto" the one whose strategy ``lowering`` is.

    Raises:
        UnknownNameError: no lowering strategy of that name.
    """
    if name != "auto" or lowering is None:
        return name
    for executor in registry.executors.values():
        if any(strategy.name == lowering for strategy in executor.strategies):
            return executor.name
    return registry.lowering(lowering).executor


def check_lowering(executor: Executor, lowering: str | None) -> None:
    """``executor`` can be asked to run by strategy ``lowering``.

    Raises:
        OptionError: it has no such strategy, or that cannot be used here.
    """
    if lowering is None:
        return
    for strategy in executor.strategies:
        if strategy.name == lowering:
            if reason := strategy.unavailable():
                raise OptionError(f"lowering strategy {lowering!r} cannot be used here: {reason}")
            return
    known = ", ".join(strategy.name for strategy in executor.strategies) or "none"
    raise OptionError(f"executor {executor.name!r} has no lowering strategy {lowering!r}; its strategies: {known}")
