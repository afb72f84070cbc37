"""Which results are worth keeping between calls, and what each depends on."""

from __future__ import annotations

from dataclasses import dataclass

from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.planner.taskgraph import TaskGraph

__all__ = ["CachePlan", "Stage", "plan_cache"]


@dataclass(frozen=True)
class Stage:
    """Tasks that depend on the same inputs, so that they run again together or not at all.

    Attributes:
        name: what it depends on, joined by "+".
        depends: groups of the program's inputs, and "weights" where weights may change between runs.
        tasks: names, in the order in which they run.
        keeps: values that others read, or results: what is stored so that the tasks need not run again.
        cached: whether keeping them is worth it: moving data is cheaper than looking it up.
    """

    name: str
    depends: frozenset[str]
    tasks: tuple[str, ...]
    keeps: tuple[Value, ...]
    cached: bool


@dataclass(frozen=True)
class CachePlan:
    """The stages of a plan in the order in which they run, without those that are computed beforehand."""

    stages: tuple[Stage, ...]


def plan_cache(graph: TaskGraph, program: BoundProgram) -> CachePlan:
    """One stage per set of inputs that tasks depend on."""
    members: dict[frozenset[str], list[str]] = {}
    for task in graph.topo_sort():
        if task.depends:
            members.setdefault(task.depends, []).append(task.name)
    results = set(program.outputs.values())
    stages = []
    for depends, names in members.items():
        inside = set(names)
        read = {value for task in graph.tasks if task.name not in inside for value in task.inputs} | results
        keeps = tuple(value for name in names for value in graph[name].outputs if value in read)
        stages.append(
            Stage(
                name="+".join(sorted(depends)),
                depends=depends,
                tasks=tuple(names),
                keeps=keeps,
                cached=any(graph[name].kind == "compute" for name in names),
            )
        )
    return CachePlan(tuple(stages))
