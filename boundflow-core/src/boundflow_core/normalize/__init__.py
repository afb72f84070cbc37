"""Normalization: passes from graph to graph that every frontend's result goes through."""

from __future__ import annotations

from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.normalize.batch_axis import drop_batch_axis
from boundflow_core.normalize.legalize import legalize, unsupported
from boundflow_core.normalize.rebuild import rebuild
from boundflow_core.normalize.simplify import simplify_node

__all__ = ["drop_batch_axis", "legalize", "normalize", "simplify", "unsupported"]


def normalize(graph: PrimalGraph, *, batch_axis: bool) -> PrimalGraph:
    """The normalized form of a network as a frontend read it.

    Args:
        batch_axis: whether the shapes of ``graph`` still have the network's own batch axis, of size 1, in front.
    """
    return simplify(drop_batch_axis(graph) if batch_axis else graph)


def simplify(graph: PrimalGraph) -> PrimalGraph:
    """``graph`` after all simplifications, without dead nodes."""
    before: tuple[object, ...] = ()
    while before != (shape := tuple((node.op, node.attrs, node.inputs) for node in graph.nodes)):
        before = shape
        graph = rebuild(graph, simplify_node)
    return graph
