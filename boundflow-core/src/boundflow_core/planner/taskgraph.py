"""Tasks and the graph of what they hand to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from boundflow_core.errors import IRError
from boundflow_core.ir.program import Op, Value

__all__ = ["BoundTask", "Edge", "TaskGraph"]


@dataclass(frozen=True, eq=False)
class BoundTask:
    """A region of a program that runs as one piece.

    Attributes:
        kind: "layout" (moves data only), "compute" (an affine operation and what follows it), or "weights" (what
            follows from constants alone).
        depends: groups of the inputs that its results depend on, directly or through other tasks; weights that
            may change between runs count as the group "weights".
        inputs, outputs: values that it reads from elsewhere, and those that somebody else reads.
    """

    name: str
    kind: str
    depends: frozenset[str]
    ops: tuple[Op, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


@dataclass(frozen=True)
class Edge:
    """``consumer`` reads ``value``, which ``producer`` defines; both are names of tasks."""

    producer: str
    consumer: str
    value: Value


@dataclass(frozen=True)
class TaskGraph:
    """The tasks of a program.

    Attributes:
        inputs: values that are there before any task runs: inputs and constants.
        outputs: results of the program.
    """

    tasks: tuple[BoundTask, ...]
    edges: tuple[Edge, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    _by_name: Mapping[str, BoundTask] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {task.name: task for task in self.tasks})

    @staticmethod
    def of(tasks: Sequence[BoundTask], inputs: Sequence[Value], outputs: Sequence[Value]) -> TaskGraph:
        """The graph of ``tasks``, edges drawn from who defines what."""
        home = {value: task.name for task in tasks for value in task.outputs}
        edges = [Edge(home[value], task.name, value) for task in tasks for value in task.inputs if value in home]
        return TaskGraph(tuple(tasks), tuple(edges), tuple(inputs), tuple(outputs))

    def __getitem__(self, name: str) -> BoundTask:
        return self._by_name[name]

    def __len__(self) -> int:
        return len(self.tasks)

    def topo_sort(self) -> tuple[BoundTask, ...]:
        """The tasks, each after those that it reads from; otherwise in the order in which they are listed.

        Raises:
            IRError: the edges form a cycle, or name a task that does not exist.
        """
        waits: dict[str, set[str]] = {task.name: set() for task in self.tasks}
        for edge in self.edges:
            if edge.producer not in waits or edge.consumer not in waits:
                raise IRError(f"the edge {edge.producer} -> {edge.consumer} names a task that does not exist")
            waits[edge.consumer].add(edge.producer)
        order: list[BoundTask] = []
        while waits:
            ready = next((task for task in self.tasks if task.name in waits and not waits[task.name]), None)
            if ready is None:
                raise IRError(f"the tasks {sorted(waits)} wait for each other in a cycle")
            order.append(ready)
            del waits[ready.name]
            for others in waits.values():
                others.discard(ready.name)
        return tuple(order)

    def validate(self) -> TaskGraph:
        """The graph itself if it is sound.

        Raises:
            IRError: a cycle, two tasks of one name, a value that is read but never defined, defined twice or handed on
                without an edge, an edge for nothing, or a task that nobody needs.
        """
        if len(self._by_name) != len(self.tasks):
            raise IRError("two tasks have one name")
        order = self.topo_sort()
        written = set(self.inputs)
        for task in self.tasks:
            made = [value for op in task.ops for value in op.outputs]
            if missing := set(task.outputs).difference(made):
                raise IRError(f"task {task.name} hands on {missing}, which it does not define")
            for value in made:
                if value in written:
                    raise IRError(f"task {task.name} writes %{value.name}, which is written already")
                written.add(value)
        handed = {value: task.name for task in self.tasks for value in task.outputs}
        drawn = {(edge.producer, edge.consumer, edge.value) for edge in self.edges}
        needed = {(handed[v], task.name, v) for task in self.tasks for v in task.inputs if v in handed}
        for producer, consumer, value in needed - drawn:
            raise IRError(f"task {consumer} reads %{value.name} of {producer}, but there is no edge for it")
        for producer, consumer, value in drawn - needed:
            raise IRError(f"the edge {producer} -> {consumer} hands on %{value.name}, which is not theirs")
        available = set(self.inputs)
        for task in order:
            local = set(task.inputs)
            if undefined := [value for value in task.inputs if value not in available]:
                raise IRError(f"task {task.name} reads {undefined}, which nobody has defined before it")
            for op in task.ops:
                for value in op.inputs:
                    if value not in local:
                        raise IRError(f"task {task.name}: {op.name} reads %{value.name}, which is not an input of it")
                local.update(op.outputs)
            available.update(task.outputs)
        if undefined := [value for value in self.outputs if value not in available]:
            raise IRError(f"the results {undefined} are not defined")
        read = {value for task in self.tasks for value in task.inputs} | set(self.outputs)
        for task in self.tasks:
            if not read.intersection(task.outputs):
                raise IRError(f"task {task.name} is dead: nobody reads what it makes")
        return self
