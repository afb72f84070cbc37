"""The engine of graph passes: writes a graph anew, node by node, where a rule may write something else instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from boundflow_core.ir.constants import Constant
from boundflow_core.ir.primal import Node, PrimalGraph
from boundflow_core.ir.primal_builder import Operand, PrimalBuilder, Tensor

__all__ = ["NodeRule", "Rewriter", "extended", "rebuild"]


class Rewriter(PrimalBuilder):
    """A builder that can look back at what it has written.

    Attributes:
        old: the graph that is being written anew.
    """

    def __init__(self, old: PrimalGraph) -> None:
        super().__init__(old.name, old.input, tuple(int(dim) for dim in old.input_type.shape))  # type: ignore[arg-type]
        self.old = old

    def producer(self, value: Operand) -> tuple[Node, tuple[Operand, ...]] | None:
        """The node that defines ``value``, with its operands; None for the input and for constants."""
        if not isinstance(value, Tensor) or value.name == self.input.name:
            return None
        node = self.nodes_by_output[value.name]
        return node, tuple(self.operand(name) for name in node.inputs)

    def operand(self, name: str) -> Operand:
        if name == self.input.name:
            return self.input
        if name in self.constants_by_name:
            return self.constants_by_name[name]
        return Tensor(name, self.nodes_by_output[name].type)


NodeRule = Callable[[Rewriter, Node, tuple[Operand, ...]], "Operand | None"]


def rebuild(graph: PrimalGraph, rule: NodeRule) -> PrimalGraph:
    """``graph`` with each node replaced by what ``rule(rewriter, node, new_operands)`` gives; None copies the node."""
    return _written(graph, rule, lambda g, output: output)


def extended(graph: PrimalGraph, write: Callable[[Rewriter, Tensor], Operand]) -> PrimalGraph:
    """``graph`` with ``write(rewriter, output)``, which may write more operators, for its output."""

    def finish(g: Rewriter, output: Operand) -> Operand:
        assert isinstance(output, Tensor)
        return write(g, output)

    return _written(graph, lambda g, node, operands: None, finish)


def _written(graph: PrimalGraph, rule: NodeRule, finish: Callable[[Rewriter, Operand], Operand]) -> PrimalGraph:
    g = Rewriter(graph)
    values: dict[str, Operand] = {graph.input: g.input}
    for node in graph.nodes:
        operands = tuple(lookup(name, values, graph.constants) for name in node.inputs)
        with g.at(node.name):
            replaced = rule(g, node, operands)
            values[node.output] = g.op(node.spec, *operands, **node.attrs) if replaced is None else replaced
    return g.finish(finish(g, values[graph.output]))


def lookup(name: str, values: Mapping[str, Operand], constants: Mapping[str, Constant]) -> Operand:
    return values[name] if name in values else constants[name]
