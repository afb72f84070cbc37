"""The domain ``linear``: its backward rule per operator is the table below."""

from __future__ import annotations

from collections.abc import Mapping

from boundflow_core.extension import Domain
from boundflow_core.ir.primal import Node, PrimalGraph
from boundflow_crown.relax import RELAXATIONS
from boundflow_crown.rules import affine, extremum, layout, product, softmax
from boundflow_crown.rules.activation import relaxed
from boundflow_crown.walk import BackwardRule

__all__ = ["EXACT", "LINEAR", "RULES", "ancestors", "is_relaxed", "relaxed_operands"]

# Affine operators and those that move elements: their rules lose nothing.
EXACT: Mapping[str, BackwardRule] = {
    "linear": affine.linear,
    "conv2d": affine.conv2d,
    "conv_transpose2d": affine.conv_transpose2d,
    "reduce_sum": affine.reduce_sum,
    "add": affine.add,
    "reshape": layout.reshape,
    "permute": layout.permute,
    "expand": layout.expand,
    "slice": layout.slice_,
    "pad": layout.pad,
    "concat": layout.concat,
    "gather": layout.gather,
    "where": layout.where,
}

RULES: Mapping[str, BackwardRule] = {
    **EXACT,
    "mul": product.mul,
    "matmul": product.matmul,
    "maximum": extremum.maximum,
    "minimum": extremum.minimum,
    "reduce_max": extremum.reduce_max,
    "reduce_min": extremum.reduce_min,
    "max_pool2d": extremum.max_pool2d,
    "softmax": softmax.softmax,
    **{name: relaxed(relaxation) for name, relaxation in RELAXATIONS.items()},
}

LINEAR = Domain("linear", "linear functions of the input below every row, walked backward", RULES, direction="backward")


def is_relaxed(graph: PrimalGraph, node: Node) -> bool:
    """Whether the rule of ``node`` relaxes, so that it needs bounds of its operands."""
    if node.op in ("mul", "matmul"):
        return not any(graph.is_constant(name) for name in node.inputs)
    return node.op not in EXACT


def relaxed_operands(graph: PrimalGraph) -> tuple[str, ...]:
    """Names of the values whose bounds some relaxation needs, in the order of the network."""
    wanted = [name for node in graph.nodes if is_relaxed(graph, node) for name in node.inputs]
    order = {name: place for place, name in enumerate((graph.input, *(node.output for node in graph.nodes)))}
    return tuple(sorted({name for name in wanted if name in order}, key=order.__getitem__))


def ancestors(graph: PrimalGraph, name: str) -> set[str]:
    """Names of all values that ``name`` is computed from."""
    found: set[str] = set()
    stack = [name]
    while stack:
        node = graph.producer(stack.pop())
        if node is not None:
            stack.extend(other for other in node.inputs if other not in found)
            found.update(node.inputs)
    return found
