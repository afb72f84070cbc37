"""The programs that bound a value inside of the network: by intervals, and backward from chosen neurons of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import frozen
from boundflow_core.ir.primal import Node, PrimalGraph
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Dim, DType, Shape, SymDim, concrete_shape, size
from boundflow_core.runner import ProgramRunner
from boundflow_core.walk import forward_states
from boundflow_core.workshop import Workshop, no_nan
from boundflow_crown.bounds import bound_rows
from boundflow_crown.crossing import settled
from boundflow_crown.domain import ancestors, relaxed_operands
from boundflow_crown.forms import interval_by_forms
from boundflow_crown.rows import Rows
from boundflow_crown.walk import Start
from boundflow_crown.windows import Picks, Window
from boundflow_interval import Interval

__all__ = [
    "Layer",
    "defined",
    "inputs_of",
    "interval_states",
    "known_bounds",
    "layers_of",
    "neuron_start",
    "rows_program",
    "tightened",
]

CHOSEN = SymDim.of("R")

# Operators that are linear on either side of zero: only neurons whose bounds straddle zero are relaxed at all.
_HINGED = ("relu", "leaky_relu", "abs", "sign")


# Operators whose results are sums of several elements.
_SUMS = ("linear", "conv2d", "conv_transpose2d", "matmul", "reduce_sum")


@dataclass(frozen=True)
class Layer:
    """A value whose bounds some relaxation needs.

    Attributes:
        known: values inside of the network whose bounds must be known before.
        hinged: whether only neurons with bounds on both sides of zero matter.
        intervals: bounds by intervals, from those that are known.
        shared, ragged: backward bounds of chosen neurons, the same ones in every region, or any; None where they would
            be those of intervals: before any relaxation, after one affine operator.
    """

    name: str
    shape: Shape
    known: tuple[str, ...]
    hinged: bool
    intervals: ProgramRunner
    shared: ProgramRunner | None
    ragged: ProgramRunner | None

    @property
    def neurons(self) -> int:
        count = size(self.shape)
        assert isinstance(count, int)
        return count


def layers_of(workshop: Workshop) -> tuple[Layer, ...]:
    """All values inside of the network that some relaxation needs bounds of, in the order of the network."""
    names = tuple(name for name in relaxed_operands(workshop.graph) if name != workshop.graph.input)
    return tuple(_layer(workshop, name, names) for name in names)


def _layer(workshop: Workshop, name: str, names: tuple[str, ...]) -> Layer:
    graph = workshop.graph
    known = tuple(other for other in names if other != name and other in ancestors(graph, name))
    users = [node.op for node in graph.users(name)]
    # Whatever lies between ball and value, the walk knows the ball; and it joins affine operators into one.
    refined = bool(known) or workshop.ball is not None or _is_chained(graph, name)
    return Layer(
        name=name,
        shape=graph.type_of(name).shape,
        known=known,
        hinged=all(op in _HINGED for op in users),
        intervals=workshop.runner(
            f"intervals:{name}", lambda b: _interval_program(workshop, b, name, known, forward=refined)
        ),
        shared=_rows_runner(workshop, name, known, ragged=False) if refined else None,
        ragged=_rows_runner(workshop, name, known, ragged=True) if refined else None,
    )


def _is_chained(graph: PrimalGraph, name: str) -> bool:
    """Whether several operators that add up elements lie before the value: intervals lose what these share."""
    before = ancestors(graph, name) | {name}
    nodes = [node for node in graph.nodes if node.output in before]
    return sum(_adds_up(graph, node) for node in nodes) > 1


def _adds_up(graph: PrimalGraph, node: Node) -> bool:
    if node.op == "add":
        return not any(graph.is_constant(operand) for operand in node.inputs)
    return node.op in _SUMS


# -- intervals --------------------------------------------------------------------------------------------------------


def known_bounds(workshop: Workshop, b: Builder, known: tuple[str, ...]) -> tuple[Interval, dict[str, Interval]]:
    """The region, and bounds of the values ``known`` as inputs."""
    region = Interval(*workshop.region(b))
    states = {workshop.graph.input: region}
    for name in known:
        shape = (workshop.regions, *workshop.graph.type_of(name).shape)
        states[name] = Interval(
            b.input(f"lower:{name}", shape, group=f"bounds of {name}"),
            b.input(f"upper:{name}", shape, group=f"bounds of {name}"),
        )
    return region, states


def interval_states(workshop: Workshop, b: Builder, known: Mapping[str, Interval]) -> dict[str, Interval]:
    """Interval bounds of every value, those of ``known``, the region among them, taken as they are."""
    graph, rules = workshop.graph, workshop.rules["interval"]
    return forward_states(b, graph, rules, known[graph.input], domain="interval", known=known)


def defined(b: Builder, bounds: Interval) -> Interval:
    """``bounds`` with those infinite that intervals leave undefined, as of values of which nothing is known."""
    return Interval(no_nan(b, bounds.lower, -np.inf), no_nan(b, bounds.upper, np.inf))


def _interval_program(
    workshop: Workshop, b: Builder, name: str, known: tuple[str, ...], *, forward: bool
) -> Mapping[str, Value]:
    region, given = known_bounds(workshop, b, known)
    states = interval_states(workshop, b, given)
    found = defined(b, states[name])
    if forward and workshop.options.get("forward") and region.ball is None:
        by_forms = interval_by_forms(b, workshop.graph, region, states, name)
        found = Interval(*tightened(b, found, by_forms.lower, by_forms.upper))
    return {"lower": found.lower, "upper": found.upper}


# -- chosen neurons ---------------------------------------------------------------------------------------------------


def _rows_runner(workshop: Workshop, name: str, known: tuple[str, ...], *, ragged: bool) -> ProgramRunner:
    def write(b: Builder) -> Mapping[str, Value]:
        found = rows_program(workshop, b, name, known, ragged=ragged)
        old = None
        if workshop.options["intersect"]:
            sides = [b.input(f"old {side}", (CHOSEN,), group=f"bounds of {name}") for side in ("lower", "upper")]
            old = Interval(sides[0], sides[1])
        lower, upper = tightened(b, old, found["lower"], found["upper"])
        return {"lower": lower, "upper": upper}

    return workshop.runner(f"rows:{name}", write, cuts=("R",))


def tightened(b: Builder, old: Interval | None, lower: Value, upper: Value) -> tuple[Value, Value]:
    """New bounds, intersected with ``old`` ones unless there are none; an undefined one replaces no defined one."""
    if old is not None:
        lower, upper = b.where(lower > old.lower, lower, old.lower), b.where(upper < old.upper, upper, old.upper)
    return settled(b, lower, upper)


def rows_program(
    workshop: Workshop, b: Builder, name: str, known: tuple[str, ...], *, ragged: bool
) -> Mapping[str, Value]:
    """Bounds ``lower`` and ``upper`` of chosen neurons of the value ``name``, from bounds of the values ``known``.

    Inputs beside these and the region: ``neuron`` [R], numbers in the flattened value. If ``ragged``, each neuron is
    that of the region ``row_region`` [R], and the bounds are [R]; else of every region, and they are [B, R].
    """
    region, states = known_bounds(workshop, b, known)
    neuron = b.input("neuron", (CHOSEN,), DType.INT64, group="choice")
    if ragged:
        layout = Rows(b, (CHOSEN,), b.input("row_region", (CHOSEN,), DType.INT64, group="choice"))
    else:
        layout = Rows(b, (workshop.regions, CHOSEN))
    start = neuron_start(b, workshop.graph, name, neuron, layout)
    lower, upper = bound_rows(b, workshop.graph, workshop.rules["linear"], region, start, states, workshop.options)
    assert upper is not None
    return {"lower": lower, "upper": upper}


def neuron_start(b: Builder, graph: PrimalGraph, name: str, neuron: Value, layout: Rows) -> Start:
    """Rows that pick out neurons [R] of the value ``name``, through the linear operator that makes it, if any."""
    node, chosen = graph.producer(name), neuron.shape[0]
    front = layout.front
    if node is not None and node.op == "linear" and len(node.type.shape) == 1:
        with b.origin(node.name):
            weight = b.constant(graph.constants[node.inputs[1]])
            rows = _spread(b, b.gather_rows(weight, neuron), front)
            bias = None
            if len(node.inputs) == 3:
                bias = _spread(b, b.gather_rows(b.constant(graph.constants[node.inputs[2]]), neuron), front)
            return Start(node.inputs[0], rows, bias, layout)
    shape = concrete_shape(graph.type_of(name).shape, {})
    if len(shape) == 3:
        return Start(name, Window.start(Picks(b, neuron, shape)), None, layout)
    places = b.constant(frozen(np.arange(int(np.prod(shape)), dtype=np.int64)))
    picked = b.compare(b.reshape(neuron, (chosen, 1)), places, "eq")
    ones = b.where(picked, 1.0, 0.0)
    return Start(name, _spread(b, b.reshape(ones, (chosen, *shape)), front), None, layout)


def _spread(b: Builder, rows: Value, front: tuple[Dim, ...]) -> Value:
    """Rows [R, *s] for every region."""
    return rows if len(front) == 1 else b.broadcast(rows, (*front, *rows.shape[1:]))


def inputs_of(runner: ProgramRunner, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``given`` that the program takes."""
    return {value.name: given[value.name] for value in runner.program.inputs if value.name in given}
