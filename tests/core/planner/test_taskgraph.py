"""The task graph: every kind of corruption is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.errors import IRError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import BoundProgram
from boundflow_core.planner.partition import dependencies, order_by_dependencies, partition, single_task
from boundflow_core.planner.taskgraph import BoundTask, Edge, TaskGraph
from boundflow_core.testing.programs import B, live, programs


def graph() -> TaskGraph:
    b = Builder()
    x, rows = b.input("x", (B, 4), group="region"), b.input("C", (3, 4), group="spec")
    deep = b.tanh(x)
    return partition(order_by_dependencies(b.finish({"out": b.matmul(deep, b.exp(rows), transpose_b=True)}))).validate()


def changed(found: TaskGraph, index: int, **changes: object) -> TaskGraph:
    tasks = list(found.tasks)
    tasks[index] = replace(tasks[index], **changes)  # type: ignore[arg-type]
    return replace(found, tasks=tuple(tasks))


def test_a_sound_graph() -> None:
    found = graph()
    assert [sorted(task.depends) for task in found.topo_sort()] == [["region"], ["spec"], ["region", "spec"]]
    assert len(found) == 3
    assert found[found.tasks[0].name] is found.tasks[0]


def test_a_cycle() -> None:
    found = graph()
    first, _, last = found.tasks
    back = Edge(last.name, first.name, last.outputs[0])
    with pytest.raises(IRError, match="cycle"):
        replace(found, edges=(*found.edges, back)).validate()
    with pytest.raises(IRError, match="cycle"):
        replace(found, edges=(*found.edges, Edge(first.name, first.name, first.outputs[0]))).validate()


def test_a_missing_edge() -> None:
    found = graph()
    with pytest.raises(IRError, match="there is no edge"):
        replace(found, edges=found.edges[1:]).validate()


def test_an_edge_for_nothing_or_nobody() -> None:
    found = graph()
    first, second, last = found.tasks
    with pytest.raises(IRError, match="not theirs"):
        replace(found, edges=(*found.edges, Edge(first.name, last.name, second.outputs[0]))).validate()
    with pytest.raises(IRError, match="does not exist"):
        replace(found, edges=(*found.edges, Edge(first.name, "nobody", first.outputs[0]))).validate()


def test_a_value_that_nobody_defines() -> None:
    found = graph()
    with pytest.raises(IRError, match="nobody has defined"):
        replace(found, inputs=()).validate()
    with pytest.raises(IRError, match="not an input of it"):
        changed(found, 0, inputs=()).validate()
    with pytest.raises(IRError, match="does not define"):
        changed(found, 0, outputs=found.tasks[1].outputs).validate()
    foreign = graph().outputs
    with pytest.raises(IRError, match=r"results .* are not defined"):
        replace(found, outputs=(*found.outputs, *foreign)).validate()


def test_a_value_written_twice() -> None:
    found = graph()
    first = found.tasks[0]
    with pytest.raises(IRError, match="written already"):
        changed(found, 0, ops=(*first.ops, *first.ops)).validate()
    twin = replace(first, name="twin")
    with pytest.raises(IRError, match="written already"):
        TaskGraph.of([*found.tasks, twin], found.inputs, found.outputs).validate()
    with pytest.raises(IRError, match="written already"):
        replace(found, inputs=(*found.inputs, first.outputs[0])).validate()


def test_a_dead_task() -> None:
    b = Builder()
    x = b.input("x", (B, 4))
    used, unused = b.tanh(x), b.exp(x)
    ops = b.finish({"used": used, "unused": unused}).ops
    tasks = [BoundTask(op.name, "compute", frozenset({"x"}), (op,), op.inputs, op.outputs) for op in ops]
    TaskGraph.of(tasks, (x,), (used, unused)).validate()
    with pytest.raises(IRError, match="exp is dead"):
        TaskGraph.of(tasks, (x,), (used,)).validate()


def test_two_tasks_of_one_name() -> None:
    found = graph()
    with pytest.raises(IRError, match="one name"):
        changed(found, 0, name=found.tasks[1].name).validate()


@settings(max_examples=100)
@given(programs, st.booleans())
def test_random_programs_are_cut_into_sound_graphs(program: BoundProgram, one: bool) -> None:
    program = order_by_dependencies(program)
    found = (single_task(program) if one else partition(program)).validate()
    assert [op for task in found.topo_sort() for op in task.ops] == list(program.ops)
    depends = dependencies(program)
    for task in found.tasks:
        if not one:
            assert all(depends[value] == task.depends for op in task.ops for value in op.outputs)
        assert set(task.outputs) <= {value for op in task.ops for value in op.outputs}
    shuffled = replace(found, tasks=found.tasks[::-1])
    position = {task.name: index for index, task in enumerate(shuffled.topo_sort())}
    assert all(position[edge.producer] < position[edge.consumer] for edge in found.edges)


def test_dependencies_count_groups_and_changing_weights() -> None:
    b = Builder()
    lower, upper = b.input("lower", (B, 4), group="region"), b.input("upper", (B, 4), group="region")
    state = b.input("state", (B, 4))
    middle, frozen = lower + upper, b.exp(b.constant(1.0))
    weighted = middle * b.constant(live(np.ones(4)))
    program = b.finish({"out": weighted + b.abs(state), "frozen": frozen})
    depends = dependencies(program)
    assert depends[middle] == {"region"}
    assert depends[weighted] == {"region", "weights"}
    assert depends[program.outputs["out"]] == {"region", "weights", "state"}
    assert depends[frozen] == frozenset()
