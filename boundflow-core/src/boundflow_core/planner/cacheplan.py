"""Which results are worth keeping between calls, and what each depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.ir.types import SymDim
from boundflow_core.planner.storage import StoragePlan
from boundflow_core.planner.taskgraph import TaskGraph

__all__ = ["CachePlan", "Stage", "plan_cache"]


@dataclass(frozen=True)
class Stage:
    """Tasks that depend on the same inputs, so that they run again together or not at all.

    Attributes:
        name: what it depends on, joined by "+".
        depends: groups of the program's inputs, and "weights" where weights may change between runs.
        tasks: names, in the order in which they run.
        keeps: what is stored so that the tasks need not run again: results of the program, and whatever later stages
            read, each with its whole memory (what a view is a view of), so that views find it as they left it.
        cached: whether keeping them is worth it: moving data is cheaper than looking it up.
        sources: names of the stages whose values it reads.
        symbols: symbols of the sizes that its values depend on besides the contents of its inputs: weights spread over
            the batch are others for another batch.
    """

    name: str
    depends: frozenset[str]
    tasks: tuple[str, ...]
    keeps: tuple[Value, ...]
    cached: bool
    sources: frozenset[str]
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class CachePlan:
    """The stages of a plan in the order in which they run, without those that are computed beforehand."""

    stages: tuple[Stage, ...]


def plan_cache(graph: TaskGraph, program: BoundProgram, storage: StoragePlan) -> CachePlan:
    """One stage per set of inputs that tasks depend on."""
    members: dict[frozenset[str], list[str]] = {}
    for task in graph.topo_sort():
        if task.depends:
            members.setdefault(task.depends, []).append(task.name)
    stage_of = {name: "+".join(sorted(depends)) for depends, names in members.items() for name in names}
    sources: dict[str, set[str]] = {stage: set() for stage in stage_of.values()}
    handed: set[Value] = set()
    for edge in graph.edges:
        producer, consumer = stage_of.get(edge.producer), stage_of.get(edge.consumer)
        if producer is not None and consumer is not None and producer != consumer:
            sources[consumer].add(producer)
            handed.add(edge.value)
    # What is known beforehand or is an input lies in place without being kept.
    made = {value for op in program.ops for value in op.outputs if value in storage.home}
    bases = {storage.views[value].base for value in handed & made}
    kept = (bases | set(program.outputs.values())) & made
    symbols = _symbols(program)
    stages = []
    for depends, names in members.items():
        stage = stage_of[names[0]]
        keeps = tuple(v for name in names for op in graph[name].ops for v in op.outputs if v in kept)
        stages.append(
            Stage(
                name=stage,
                depends=depends,
                tasks=tuple(names),
                keeps=keeps,
                cached=any(graph[name].kind == "compute" for name in names),
                sources=frozenset(sources[stage]),
                symbols=tuple(sorted({symbol for value in keeps for symbol in symbols[value]})),
            )
        )
    return CachePlan(tuple(stages))


def _symbols(program: BoundProgram) -> Mapping[Value, frozenset[str]]:
    """Symbols that each value depends on, directly or through its operands."""
    found = {value: frozenset(_symbols_in(value.shape)) for value in (*program.inputs, *program.constants)}
    for op in program.ops:
        parts = [found[value] for value in op.inputs]
        parts += [frozenset(_symbols_in(value.shape)) for value in op.outputs]
        parts.append(frozenset(_symbols_in(tuple(op.attrs.values()))))
        found.update(dict.fromkeys(op.outputs, frozenset().union(*parts)))
    return found


def _symbols_in(item: object) -> tuple[str, ...]:
    if isinstance(item, SymDim):
        return item.symbols
    return tuple(symbol for part in item for symbol in _symbols_in(part)) if isinstance(item, tuple) else ()
