"""The backward walk: rows on a value become rows on the network's input, with an offset, from below.

``rows . value >= result . input + bias`` over the region. One walk gives lower bounds; upper bounds are those of the
negated rows. As long as the walk has met affine operators alone, rows and negated rows differ by the sign only, so they are
walked once and doubled where the first relaxation needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from boundflow_core.errors import UnsupportedOpError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import Node, PrimalGraph
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, Shape
from boundflow_crown.rows import Rows
from boundflow_interval import Interval

__all__ = ["BackwardContext", "Start", "Step", "walk_back"]


@dataclass(frozen=True)
class Step:
    """What a rule gives: rows on operands, by number, and what to add to the bias [*front] (None: nothing)."""

    rows: Mapping[int, Value]
    bias: Value | None = None


@dataclass(frozen=True)
class BackwardContext:
    """What a backward rule sees besides the rows.

    Attributes:
        b, graph, node: as for forward rules.
        rows: the layout of the rows.
        intervals: bounds of every value that a relaxation may ask for, by name.
        options: options of the method ("slope").
    """

    b: Builder
    graph: PrimalGraph
    node: Node
    rows: Rows
    intervals: Mapping[str, Interval]
    options: Mapping[str, Any]

    @property
    def attrs(self) -> Attrs:
        return self.node.attrs

    def is_constant(self, number: int) -> bool:
        return self.graph.is_constant(self.node.inputs[number])

    def constant(self, number: int) -> Value:
        """Operand ``number``, a constant."""
        return self.b.constant(self.graph.constants[self.node.inputs[number]])

    def shape(self, number: int) -> Shape:
        """Shape of operand ``number``, for one sample."""
        return self.graph.type_of(self.node.inputs[number]).shape

    def interval(self, number: int) -> Interval:
        """Bounds of operand ``number``."""
        return self.intervals[self.node.inputs[number]]


# rule(context, rows on the result [*front, *result]) -> Step
BackwardRule = Callable[[BackwardContext, Value], Step]


@dataclass
class _Pending:
    """Rows that wait at values, and the bias so far."""

    rows: Rows
    single: bool  # whether the negated rows are still implied
    at: dict[str, Value] = field(default_factory=dict)
    bias: Value | None = None

    def add(self, name: str, value: Value) -> None:
        self.at[name] = self.at[name] + value if name in self.at else value

    def add_bias(self, value: Value | None) -> None:
        if value is not None:
            self.bias = value if self.bias is None else self.bias + value

    def mirror(self) -> None:
        """Writes the negated rows out."""
        self.at = {name: self.rows.mirrored(value) for name, value in self.at.items()}
        self.bias = None if self.bias is None else self.rows.mirrored(self.bias)
        self.rows, self.single = self.rows.twice(), False


@dataclass(frozen=True)
class Start:
    """Where a walk starts: rows [*front, *value] on the value ``name``, and a bias [*front] or None."""

    name: str
    rows: Value
    bias: Value | None
    layout: Rows


def walk_back(
    b: Builder,
    graph: PrimalGraph,
    rules: Mapping[str, BackwardRule],
    relaxed: Callable[[Node], bool],
    start: Start,
    intervals: Mapping[str, Interval],
    options: Mapping[str, Any],
    *,
    both: bool,
) -> tuple[Value, Value | None, Rows]:
    """Rows [*front, *input] on the graph's input, bias [*front], and their layout.

    Args:
        relaxed: whether a node's rule gives something else for negated rows than the negative.
        both: whether bounds of the negated rows are wanted too; they come second in each region, see :meth:`Rows.halves`.

    Raises:
        UnsupportedOpError: an operator has no rule.
    """
    pending = _Pending(start.layout, single=both)
    pending.at[start.name] = start.rows
    pending.add_bias(start.bias)
    for node in reversed(graph.nodes):
        if node.output not in pending.at:
            continue
        if node.op not in rules:
            raise UnsupportedOpError(node.op, node.name, "domain 'linear'", "register a rule for it with OpRule")
        with b.origin(node.name):
            if pending.single and relaxed(node):
                pending.mirror()
            context = BackwardContext(b, graph, node, pending.rows, intervals, options)
            step = rules[node.op](context, pending.at.pop(node.output))
            for number, value in step.rows.items():
                pending.add(node.inputs[number], value)
            pending.add_bias(step.bias)
    with b.origin(graph.input):
        if pending.single:
            pending.mirror()
    if graph.input not in pending.at:
        raise UnsupportedOpError("input", graph.input, "domain 'linear'", "the value does not depend on the input")
    return pending.at[graph.input], pending.bias, pending.rows
