"""The backward walk: rows on a value become rows on the network's input, with an offset, from below.

``rows . value >= result . input + bias`` over the region. One walk gives lower bounds; upper bounds are those of the
negated rows. As long as the walk has met affine operators alone, rows and negated rows differ by the sign only, so they
are walked once and doubled where the first relaxation needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from boundflow_core.errors import UnsupportedOpError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import Node, PrimalGraph
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, Shape, concrete_shape
from boundflow_crown.rows import Rows
from boundflow_crown.windows import FULL_MAP_SHARE, Window, WindowRows, as_maps, as_window, joined
from boundflow_interval import Interval

__all__ = ["BackwardContext", "SlopeChoice", "Start", "Step", "relaxation_slopes", "walk_back"]


@dataclass(frozen=True)
class Step:
    """What a rule gives: rows on operands, by number, and what to add to the bias [*front] (None: nothing)."""

    rows: Mapping[int, Value | Window]
    bias: Value | None = None


@dataclass(frozen=True)
class BackwardContext:
    """What a backward rule sees besides the rows.

    Attributes:
        b, graph, node: as for forward rules.
        rows: the layout of the rows.
        intervals: bounds of every value that a relaxation may ask for, by name.
        options: options of the method ("slope").
        slopes: gives each row's slopes of the node's lower lines, [*front, *sample] of the layout ``rows``, or None for
            those of the relaxation. Whoever gives them keeps them to what is sound for the neuron's bounds.
    """

    b: Builder
    graph: PrimalGraph
    node: Node
    rows: Rows | WindowRows
    intervals: Mapping[str, Interval]
    options: Mapping[str, Any]
    slopes: SlopeChoice

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


# choice(context) -> slopes of lower lines, or None
SlopeChoice = Callable[[BackwardContext], "Value | None"]

# rule(context, rows on the result [*front, *result]) -> Step
BackwardRule = Callable[[BackwardContext, Value], Step]

# rule(context, windows on the result) -> Step, or None where full maps are wanted
WindowRule = Callable[[BackwardContext, Window], "Step | None"]


def relaxation_slopes(context: BackwardContext) -> None:
    """Those that relaxations choose."""


@dataclass
class _Pending:
    """Rows that wait at values, and the bias so far."""

    graph: PrimalGraph
    rows: Rows
    single: bool  # whether the negated rows are still implied
    at: dict[str, Value | Window] = field(default_factory=dict)
    bias: Value | None = None

    def add(self, name: str, value: Value | Window) -> None:
        held = self.at.get(name)
        self.at[name] = value if held is None else self._sum(name, held, value)

    def _sum(self, name: str, one: Value | Window, other: Value | Window) -> Value | Window:
        if isinstance(one, Window) and isinstance(other, Window):
            both = joined(one, other, self.rows)
            if both is not None:
                return both
        return self.full(name, one) + self.full(name, other)

    def full(self, name: str, state: Value | Window) -> Value:
        """Rows on the value ``name`` as full maps."""
        return as_maps(state, self.rows, self.extent(name)) if isinstance(state, Window) else state

    def extent(self, name: str) -> tuple[int, int]:
        """Height and width of the map ``name``."""
        height, width = concrete_shape(self.graph.type_of(name).shape[-2:], {})
        return height, width

    def add_bias(self, value: Value | None) -> None:
        if value is not None:
            self.bias = value if self.bias is None else self.bias + value

    def mirror(self) -> None:
        """Writes the negated rows out."""
        self.at = {name: self._mirrored(state) for name, state in self.at.items()}
        self.bias = None if self.bias is None else self.rows.mirrored(self.bias)
        self.rows, self.single = self.rows.twice(), False

    def _mirrored(self, state: Value | Window) -> Value | Window:
        if isinstance(state, Window):
            return replace(state, value=self.rows.mirrored(as_window(state, self.rows)[0]))
        return self.rows.mirrored(state)


@dataclass(frozen=True)
class Start:
    """Where a walk starts: rows [*front, *value], or windows, on the value ``name``, and a bias [*front] or None."""

    name: str
    rows: Value | Window
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
    slopes: SlopeChoice = relaxation_slopes,
    extra: Mapping[str, Value] | None = None,
    seen: dict[str, Value] | None = None,
    windowed: Mapping[str, WindowRule] | None = None,
) -> tuple[Value, Value | None, Rows | WindowRows]:
    """Rows [*front, *input] on the graph's input, bias [*front], and the layout of the rows, which may be windows.

    Args:
        relaxed: whether a node's rule gives something else for negated rows than the negative.
        slopes: see :class:`BackwardContext`.
        extra: rows [*front, *value], of the layout that the walk has there, to add to those on values, by name.
        seen: takes the rows on the result of each node that is relaxed, by the node's name.
        windowed: rules of operators that rows pass as windows.
        both: whether bounds of the negated rows are wanted too; they come second in each region (:meth:`Rows.halves`).

    Raises:
        UnsupportedOpError: an operator has no rule.
    """
    pending = _Pending(graph, start.layout, single=both)
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
            if extra is not None and node.output in extra:
                pending.add(node.output, extra[node.output])
        context = BackwardContext(b, graph, node, pending.rows, intervals, options, slopes)
        state, step = pending.at.pop(node.output), None
        if isinstance(state, Window):
            extent = pending.extent(node.output)
            passes = state.value is None or state.frame.share(extent) <= FULL_MAP_SHARE
            if passes and windowed is not None and node.op in windowed:
                with b.origin(f"{node.name} ({state.label(extent)})"):
                    step = windowed[node.op](context, state)
        with b.origin(node.name):
            if step is None:
                full = pending.full(node.output, state)
                if seen is not None and relaxed(node):
                    seen[node.name] = full
                step = rules[node.op](context, full)
            for number, value in step.rows.items():
                pending.add(node.inputs[number], value)
            pending.add_bias(step.bias)
    with b.origin(graph.input):
        if pending.single:
            pending.mirror()
        if graph.input not in pending.at:
            raise UnsupportedOpError("input", graph.input, "domain 'linear'", "the value does not depend on the input")
        if extra is not None and graph.input in extra:
            pending.add(graph.input, extra[graph.input])
        state = pending.at[graph.input]
        if not isinstance(state, Window):
            return state, pending.bias, pending.rows
        if state.frame.share(pending.extent(graph.input)) > 1:
            return pending.full(graph.input, state), pending.bias, pending.rows
        value, layout = as_window(state, pending.rows)
        return layout.split(value), pending.bias, layout
