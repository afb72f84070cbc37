"""Which executor runs: the one that is named, or for "auto" the one that takes least by estimate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from boundflow_core.errors import OptionError
from boundflow_core.extension import Executor, why_unavailable
from boundflow_core.planner.cost import Cost
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.plugins import Registry

__all__ = ["Candidates", "Choice", "candidates", "check_lowering", "choose"]


@dataclass(frozen=True)
class Candidates:
    """Executors that can run what is asked, best rank first; of a name there is one.

    Attributes:
        reason: why there is only one; empty if there are several.
    """

    executors: tuple[Executor, ...]
    reason: str = ""

    def first(self, reason: str) -> Candidates:
        """The one of the highest rank alone, for this reason if there are several."""
        return Candidates(self.executors[:1], self.reason or reason)


@dataclass(frozen=True)
class Choice:
    """An executor, and why it."""

    executor: Executor
    reason: str


def candidates(
    registry: Registry, name: str, *, differentiable: bool, outward: bool = False, lowering: str | None = None
) -> Candidates:
    """The executor called ``name``; for "auto" all that can run here what is asked.

    Args:
        lowering: name of the strategy that shall run all that it supports; "auto" is the executor that has it.

    Raises:
        UnknownNameError: no executor or lowering strategy of that name.
        OptionError: it cannot run here, or not what is asked.
    """
    if name == "auto" and lowering is not None:
        name = _executor_with(registry, lowering)
    if name != "auto":
        executor = registry.executor(name)
        if reason := why_unavailable(executor):
            raise OptionError(f"executor {name!r} cannot run here: {reason}")
        if differentiable and not executor.differentiable:
            raise OptionError(f"executor {name!r} gives no gradients")
        if outward and not executor.exact:
            raise OptionError(f"executor {name!r} does not state how exactly it computes, as outward rounding needs")
        check_lowering(executor, lowering)
        return Candidates((executor,), f"strategy {lowering} is asked for" if lowering else "asked for")
    fitting = [e for e in registry.executors.values() if e.differentiable or not differentiable]
    available = [e for e in fitting if why_unavailable(e) is None and (e.exact or not outward)]
    if not available:
        raise OptionError("no executor that gives gradients can run here: install boundflow-core[torch]")
    ranked = tuple(sorted(available, key=lambda e: -e.rank))
    return Candidates(ranked, "the only one that can run here what is asked" if len(ranked) == 1 else "")


def _executor_with(registry: Registry, lowering: str) -> str:
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
            if reason := why_unavailable(strategy):
                raise OptionError(f"lowering strategy {lowering!r} cannot be used here: {reason}")
            return
    known = ", ".join(strategy.name for strategy in executor.strategies) or "none"
    raise OptionError(f"executor {executor.name!r} has no lowering strategy {lowering!r}; its strategies: {known}")


def choose(found: Candidates, plan_on: Callable[[Executor], PlanBundle], calls: int) -> Choice:
    """The candidate that takes least in all for so many calls, by estimate.

    One that tells no cost is taken if its rank is above those of all that tell one.

    Args:
        plan_on: the plan that an executor would run, bound to sizes.
    """
    first, *others = found.executors
    if not others:
        return Choice(first, found.reason)
    if first.cost is None:
        return Choice(first, "has the highest rank, and tells no cost to compare")
    offers: list[tuple[float, int, Executor, str]] = []
    startups = {executor.name: executor.startup() for executor in found.executors}
    for place, executor in sorted(enumerate(found.executors), key=lambda item: (startups[item[1].name], item[0])):
        if executor.cost is None:
            continue
        startup = startups[executor.name]
        if offers and min(total for total, *_ in offers) <= startup:
            offers.append((startup, place, executor, f"{startup:.2g} s before anything"))
            continue
        cost = executor.cost(plan_on(executor))
        cost = Cost(startup + cost.prepare, cost.run)
        offers.append((cost.total(calls), place, executor, _seconds(cost)))
    offers.sort(key=lambda offer: offer[:2])
    told = ", ".join(f"{executor.name} {what}" for _, _, executor, what in offers)
    return Choice(offers[0][2], f"least for {calls} call{'' if calls == 1 else 's'} by estimate: {told}")


def _seconds(cost: Cost) -> str:
    before = f"{cost.prepare:.2g} s before and " if cost.prepare else ""
    return f"{before}{cost.run * 1e3:.3g} ms a call"
