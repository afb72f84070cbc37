"""PrimalGraph: a network as a typed graph in single-assignment form over the normalized operators.

All shapes are those of one sample, without a batch axis: a graph is a function of one tensor, and everything computed
from it is batched over regions by an axis that is put in front. Constants are held by reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from boundflow_core.ir.constants import Constant
from boundflow_core.ir.types import Attrs, TensorType

if TYPE_CHECKING:
    from boundflow_core.ir.primal_ops import PrimalOp

__all__ = ["Node", "PrimalGraph", "canonical", "same_graph"]


@dataclass(frozen=True)
class Node:
    """One operator of a network.

    Attributes:
        name: the node's name in the source network, for messages; unique in its graph.
        spec: the operator, one of :data:`boundflow_core.ir.primal_ops.PRIMAL_OPS` or one that a plugin brings.
        inputs: names of values (the graph's input, other nodes' outputs, constants).
        output: name of the value that it defines.
        type: type of that value, for one sample.
    """

    name: str
    spec: PrimalOp
    inputs: tuple[str, ...]
    output: str
    attrs: Attrs
    type: TensorType

    @property
    def op(self) -> str:
        """Name of the operator."""
        return self.spec.name


@dataclass(frozen=True, eq=False)
class PrimalGraph:
    """A network: ``output = f(input)``.

    Attributes:
        name: for reports.
        input: name of the input value, of type ``input_type`` (one sample, no batch axis).
        nodes: operators in topological order; every one depends on the input.
        output: name of the output value.
        constants: weights and other constants by name.
    """

    name: str
    input: str
    input_type: TensorType
    nodes: tuple[Node, ...]
    output: str
    constants: Mapping[str, Constant]

    @cached_property
    def _producers(self) -> Mapping[str, Node]:
        return {node.output: node for node in self.nodes}

    def type_of(self, value: str) -> TensorType:
        """Type of a value by name, for one sample."""
        if value == self.input:
            return self.input_type
        if value in self.constants:
            return self.constants[value].type
        return self._producers[value].type

    def producer(self, value: str) -> Node | None:
        """The node that defines ``value``; None for the input and for constants."""
        return self._producers.get(value)

    def users(self, value: str) -> tuple[Node, ...]:
        return self._users.get(value, ())

    @cached_property
    def _users(self) -> Mapping[str, tuple[Node, ...]]:
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @property
    def output_type(self) -> TensorType:
        return self.type_of(self.output)

    def is_constant(self, value: str) -> bool:
        return value in self.constants

    def operators(self) -> Mapping[str, int]:
        """How often each operator occurs, in order of first use."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.op] = counts.get(node.op, 0) + 1
        return counts

    def parameter_count(self) -> int:
        return sum(int(np.prod(constant.shape)) for constant in self.constants.values() if constant.type.dtype.is_float)

    def __str__(self) -> str:
        lines = [f"graph {self.name}(%{self.input}: {self.input_type}) {{"]
        lines += [f"  %{name}: {constant.type} = constant" for name, constant in self.constants.items()]
        for node in self.nodes:
            arguments = ", ".join(f"%{name}" for name in node.inputs)
            attributes = f" {{{node.attrs}}}" if node.attrs else ""
            lines.append(f"  %{node.output}: {node.type} = {node.op}({arguments}){attributes}  # {node.name}")
        return "\n".join([*lines, f"  return %{self.output}", "}"])


def _depth_first(graph: PrimalGraph) -> Iterator[Node]:
    """Nodes that the output needs, operands before users, in an order that follows from the structure alone."""
    done: set[str] = set()
    stack: list[tuple[str, bool]] = [(graph.output, False)]
    while stack:
        value, operands_done = stack.pop()
        node = graph.producer(value)
        if node is None or (value in done):
            continue
        if operands_done:
            done.add(value)
            yield node
        else:
            stack.append((value, True))
            stack.extend((name, False) for name in reversed(node.inputs))


def canonical(graph: PrimalGraph) -> PrimalGraph:
    """The same graph without dead nodes, in depth-first order, values named ``x``, ``v1``... and ``c1``..."""
    names = {graph.input: "x"}
    constants: dict[str, Constant] = {}
    nodes: list[Node] = []
    for node in _depth_first(graph):
        for name in node.inputs:
            if name in graph.constants and name not in names:
                names[name] = f"c{len(constants) + 1}"
                constants[names[name]] = graph.constants[name]
        names[node.output] = f"v{len(nodes) + 1}"
        nodes.append(replace(node, inputs=tuple(names[name] for name in node.inputs), output=names[node.output]))
    return PrimalGraph(graph.name, "x", graph.input_type, tuple(nodes), names[graph.output], constants)


def same_graph(one: PrimalGraph, other: PrimalGraph, *, rtol: float = 0.0) -> bool:
    """Whether two graphs are equal up to names and to ``rtol`` in the values of constants (relative to the largest).

    Which uses of equal constants share one is no difference: files store a number once or at each use.
    """
    a, b = canonical(one), canonical(other)
    if (a.input_type, a.output, len(a.nodes)) != (b.input_type, b.output, len(b.nodes)):
        return False
    constants: set[tuple[str, str]] = set()
    for left, right in zip(a.nodes, b.nodes, strict=True):
        if (left.op, left.output, left.attrs, left.type) != (right.op, right.output, right.attrs, right.type):
            return False
        if len(left.inputs) != len(right.inputs):
            return False
        for x, y in zip(left.inputs, right.inputs, strict=True):
            if a.is_constant(x) and b.is_constant(y):
                constants.add((x, y))
            elif x != y:
                return False
    return all(_same_values(a.constants[x], b.constants[y], rtol) for x, y in sorted(constants))


def _same_values(one: Constant, other: Constant, rtol: float) -> bool:
    x, y = one.numpy(), other.numpy()
    if x.shape != y.shape or (x.dtype.kind == "f") != (y.dtype.kind == "f"):
        return False
    x, y = x.astype(np.float64), y.astype(np.float64)
    return not (x.size and np.abs(x - y).max() > rtol * max(np.abs(x).max(), 1e-30))
