"""Cuts a program into tasks: by what each operation depends on, then by what kind of work it is.

Operations are grouped by the set of groups of inputs (region, specification, split state, weights) that their results
depend on. So the region's part of a program, the specification's part and the part that needs both are different tasks,
and a call that changes one input runs again only the tasks that depend on it, whatever the domain. Within a group, runs
of operations that move data are tasks of their own, and a new compute task begins with each network operator that
contains a contraction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from boundflow_core.ir.program import BoundProgram, Composite, Op, Value
from boundflow_core.planner.taskgraph import BoundTask, TaskGraph

__all__ = ["WEIGHTS", "dependencies", "lasting", "order_by_dependencies", "partition", "single_task"]

WEIGHTS = "weights"


def dependencies(program: BoundProgram) -> dict[Value, frozenset[str]]:
    """Groups of inputs that each value depends on; constants that may change count as the group "weights"."""
    found = {value: frozenset({program.groups.get(value.name, value.name)}) for value in program.inputs}
    for value, constant in program.constants.items():
        found[value] = frozenset({WEIGHTS}) if constant.is_live else frozenset()
    unions: dict[frozenset[frozenset[str]], frozenset[str]] = {}  # few different ones, over and over
    for op in program.ops:
        parts = frozenset([found[value] for value in op.inputs])
        union = unions.get(parts)
        if union is None:
            union = unions[parts] = frozenset().union(*parts)
        for value in op.outputs:
            found[value] = union
    return found


def order_by_dependencies(program: BoundProgram, varying: Collection[str] = ()) -> BoundProgram:
    """The same program with operations that depend on fewer inputs first, otherwise in their order.

    Args:
        varying: groups of inputs; whatever depends on none of them comes before all that does.
    """
    depends = dependencies(program)

    def rank(op: Op) -> tuple[bool, int, list[str]]:
        on = depends[op.outputs[0]]
        return not on.isdisjoint(varying), len(on), sorted(on)

    return replace(program, ops=tuple(sorted(program.ops, key=rank)))


def lasting(program: BoundProgram, varying: Collection[str]) -> frozenset[Value]:
    """What a loop of ``program`` must keep from step to step: what depends on no group of ``varying`` and is read by
    what does, or is a result."""
    depends = dependencies(program)
    fixed = {value for value, on in depends.items() if on.isdisjoint(varying)}
    read = {value for op in program.ops if op.outputs[0] not in fixed for value in op.inputs}
    return frozenset(fixed & (read | set(program.outputs.values())))


def single_task(program: BoundProgram) -> TaskGraph:
    """The whole program as one task."""
    depends = dependencies(program)
    every = frozenset().union(*(depends[value] for value in program.outputs.values()))
    return _graph(program, [("program", "compute", every, list(program.ops))] if program.ops else [])


def partition(program: BoundProgram) -> TaskGraph:
    """The tasks of ``program``, whose operations are ordered by their dependencies."""
    depends = dependencies(program)
    contracting = {op.origin for op in program.ops if _kind(op) == "contraction"}
    pieces: list[tuple[str, str, frozenset[str], list[Op]]] = []
    origin = ""
    for op in program.ops:
        on = depends[op.outputs[0]]
        kind = "weights" if not on else "layout" if _kind(op) == "layout" else "compute"
        begins = op.origin != origin and op.origin in contracting and kind == "compute"
        if pieces and pieces[-1][1:3] == (kind, on) and not begins:
            pieces[-1][3].append(op)
        else:
            pieces.append((op.origin or kind, kind, on, [op]))
        origin = op.origin
    return _graph(program, pieces)


def _kind(op: Op) -> str:
    return "contraction" if isinstance(op.spec, Composite) else op.spec.kind


def _graph(program: BoundProgram, pieces: Sequence[tuple[str, str, frozenset[str], list[Op]]]) -> TaskGraph:
    results = tuple(dict.fromkeys(program.outputs.values()))
    given = (*program.inputs, *program.constants)
    read_later: set[Value] = set(results)
    tasks: list[BoundTask] = []
    for number, (name, kind, depends, ops) in reversed(list(enumerate(pieces, 1))):
        made = dict.fromkeys(value for op in ops for value in op.outputs)
        read = tuple(dict.fromkeys(value for op in ops for value in op.inputs if value not in made))
        handed = tuple(value for value in made if value in read_later)
        tasks.append(BoundTask(f"{number}:{name}", kind, depends, tuple(ops), read, handed))
        read_later.update(read)
    return TaskGraph.of(tasks[::-1], given, results)
