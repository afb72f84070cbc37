"""Rewrites a network in the operators that a domain has rules for."""

from __future__ import annotations

from collections.abc import Collection

from boundflow_core.errors import UnsupportedOpError
from boundflow_core.ir.primal import Node, PrimalGraph
from boundflow_core.ir.primal_builder import Operand
from boundflow_core.normalize.rebuild import Rewriter, rebuild

__all__ = ["legalize", "unsupported"]


def unsupported(graph: PrimalGraph, operators: Collection[str]) -> tuple[Node, ...]:
    """Nodes of ``graph`` that are neither in ``operators`` nor have a decomposition."""
    return tuple(node for node in graph.nodes if node.op not in operators and node.spec.decompose is None)


def legalize(graph: PrimalGraph, operators: Collection[str], where: str) -> PrimalGraph:
    """``graph`` in ``operators`` alone: others are written out by their decompositions.

    Args:
        operators: names of the operators that have a rule.
        where: who has these rules, for the message.

    Raises:
        UnsupportedOpError: an operator has neither rule nor decomposition.
    """

    def written(g: Rewriter, node: Node, operands: tuple[Operand, ...]) -> Operand | None:
        if node.op in operators:
            return None
        assert node.spec.decompose is not None
        result: Operand = node.spec.decompose(g, node.attrs, *operands)
        return result

    for _ in range(8):  # decompositions may use operators that are decomposed in turn
        if missing := unsupported(graph, operators):
            raise UnsupportedOpError(
                missing[0].op,
                missing[0].name,
                where,
                f"register a rule for it with the hook boundflow_register_op_rules ({len(missing)} such nodes)",
            )
        if all(node.op in operators for node in graph.nodes):
            return graph
        graph = rebuild(graph, written)
    left = next(node for node in graph.nodes if node.op not in operators)
    raise UnsupportedOpError(left.op, left.name, where, "its decompositions never end")
