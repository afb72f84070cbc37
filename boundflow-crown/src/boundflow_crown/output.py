"""Bounds at the network's output: the last backward walk, and its intersection with intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from boundflow_core.extension import SpecRows
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Dim, concrete_shape, size
from boundflow_core.workshop import ROWS, Workshop, no_nan
from boundflow_crown.bounds import bound_rows
from boundflow_crown.crossing import settled
from boundflow_crown.rows import Rows
from boundflow_crown.walk import Start
from boundflow_interval import Interval, apply_rows, fold_rows

__all__ = ["both_sides", "intersected", "output_bounds", "output_front", "output_start"]


def output_bounds(workshop: Workshop, b: Builder, region: Interval, states: Mapping[str, Interval]) -> dict[str, Value]:
    """``lower`` and ``upper``: [B, S] with a specification, [B, *output] without.

    With the option ``linear`` also ``A:lower`` [B, S, *input] and ``b:lower`` [B, S], where ``A x + b`` lies below the
    rows everywhere in the region, and if both sides are wanted ``A:upper`` and ``b:upper``, where it lies above.

    Args:
        states: bounds of the values that relaxations need; with the option ``intersect`` of all values.
    """
    graph, batch = workshop.graph, region.lower.shape[0]
    spec = workshop.spec_rows(b)
    start, both = output_start(b, graph, spec, batch), both_sides(workshop)
    linear: dict[str, Value] | None = {} if workshop.options.get("linear") else None
    rules, options = workshop.rules["linear"], workshop.options
    lower, upper = bound_rows(b, graph, rules, region, start, states, options, both=both, linear=linear)
    found = intersected(workshop, b, spec, states, lower, upper)
    if linear is None:
        return found
    front = (batch, *graph.output_type.shape) if spec is None else lower.shape
    for name, value in linear.items():
        own, negated = start.layout.halves(value) if both else (value, None)
        shape = (*front, *value.shape[2:])
        found[f"{name}:lower"] = b.reshape(own, shape)
        if negated is not None:
            found[f"{name}:upper"] = b.reshape(-negated, shape)
    return found


def intersected(
    workshop: Workshop,
    b: Builder,
    spec: SpecRows | None,
    states: Mapping[str, Interval],
    lower: Value,
    upper: Value | None,
) -> dict[str, Value]:
    """Bounds [B, S] of the output's rows as results: NaN made infinite, intersected with intervals if so asked.

    Args:
        upper: None for bounds of one side; the others are then those of intervals, or infinite.
    """
    graph, batch = workshop.graph, lower.shape[0]
    lower = no_nan(b, lower, -np.inf)
    upper = b.broadcast(b.constant(np.inf), lower.shape) if upper is None else no_nan(b, upper, np.inf)
    if workshop.options["intersect"]:
        low, high = _interval_bounds(b, graph, spec, states)
        lower = b.maximum(lower, no_nan(b, low, -np.inf))
        upper = b.minimum(upper, no_nan(b, high, np.inf))
    lower, upper = settled(b, lower, upper)
    if spec is None:
        shape = (batch, *graph.output_type.shape)
        lower, upper = b.reshape(lower, shape), b.reshape(upper, shape)
    return {"lower": lower, "upper": upper}


def both_sides(workshop: Workshop) -> bool:
    """Whether upper bounds of the output are walked for too."""
    return bool(workshop.options["side"] == "both")


def output_front(workshop: Workshop) -> tuple[Dim, Dim]:
    """Front axes of the output's rows, where both sides are wanted of their negatives too."""
    times = 2 if both_sides(workshop) else 1
    if workshop.spec is None:
        outputs = size(workshop.graph.output_type.shape)
        return workshop.regions, times * outputs
    return workshop.regions, times * ROWS


def output_start(b: Builder, graph: PrimalGraph, spec: SpecRows | None, batch: Dim) -> Start:
    """The walk's start at the output: specification rows, or one row per output."""
    shape = concrete_shape(graph.output_type.shape, {})
    if spec is None:
        count = size(shape)
        assert isinstance(count, int)
        rows = b.constant(np.eye(count).reshape(1, count, *shape))
        return Start(graph.output, b.broadcast(rows, (batch, count, *shape)), None, Rows(b, (batch, count)))
    number = spec.C.shape[1]
    rows = b.broadcast(b.reshape(spec.C, (spec.C.shape[0], number, *shape)), (batch, number, *shape))
    return Start(graph.output, rows, b.broadcast(spec.offset, (batch, number)), Rows(b, (batch, number)))


def _interval_bounds(
    b: Builder, graph: PrimalGraph, spec: SpecRows | None, states: Mapping[str, Interval]
) -> tuple[Value, Value]:
    if spec is None:
        output = states[graph.output]
        flat = (output.lower.shape[0], size(graph.output_type.shape))
        return b.reshape(output.lower, flat), b.reshape(output.upper, flat)
    name, rows = fold_rows(b, graph, spec)
    return apply_rows(b, states[name], rows)
