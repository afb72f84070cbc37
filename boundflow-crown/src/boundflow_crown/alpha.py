"""The method ``alpha-crown``: lower slopes of undecided neurons optimised, row by row, by projected gradient steps.

Any slope in [0, 1] gives a sound bound, so every step's bounds hold and the best of all steps is kept. The first step
takes the slopes of ``crown``. One step is one program: the bounds, their gradient in the slopes, and the update. Xu et
al., Fast and Complete: Enabling Complete Neural Network Verification with Rapid and Massively Parallel Incomplete
Verifiers, 2021, section 3.1; Adam by Kingma and Ba, 2015.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from boundflow_core.derivative import gradient_program
from boundflow_core.extension import SpecRows
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import Node, PrimalGraph
from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.ir.types import SymDim
from boundflow_core.planner.rewrite import inline
from boundflow_core.runner import ProgramRunner
from boundflow_core.workshop import REGIONS, ROWS, Progress, Recipe, Workshop
from boundflow_crown.ascent import BETA1, BETA2, OPTIONS, ascend, settings_of
from boundflow_crown.bounds import least
from boundflow_crown.layers import inputs_of, interval_states, known_bounds
from boundflow_crown.options import check_choices
from boundflow_crown.output import both_sides, intersected, output_start
from boundflow_crown.recipe import crown, inside
from boundflow_crown.relax import RELAXATIONS
from boundflow_crown.relax.piecewise import SLOPE_RANGES
from boundflow_interval import Interval

__all__ = ["ALPHA_OPTIONS", "alpha_crown"]

# The group of inputs that change from step to step.
SLOPES = "slopes"

# Adam's second moment to begin with: nothing, but no zero, since roots of numbers next to zero take much longer.
EMPTY = 1e-30

ALPHA_OPTIONS: Mapping[str, Any] = {**OPTIONS, "intermediate": "fixed"}


def alpha_crown(workshop: Workshop) -> Recipe:
    """The recipe of ``alpha-crown`` for one network."""
    check_choices(workshop.options)
    settings, both = settings_of(workshop.options), both_sides(workshop)
    values = inside(workshop)
    nodes = tuple(n for n in workshop.graph.nodes if _has_slopes(workshop.graph, n) and n.inputs[0] in values.names)
    if not nodes:
        return crown(workshop)
    # Rows that are mirrored cannot be cut along their number.
    begin = workshop.runner("alpha start", lambda b: _start_program(workshop, b, nodes), cuts=("B",))
    step = ProgramRunner(
        lambda: _step_program(workshop, nodes, values.names),
        _planning(workshop),
        workshop.stats,
        cuts=("B",),
        varying=(SLOPES,),
    )
    main = workshop.runner("alpha-crown", lambda b: _result_program(workshop, b, values.names), cuts=("B",))

    def run(inputs: Mapping[str, Any], progress: Progress | None) -> Mapping[str, Any]:
        found = values.find(inputs, None)
        given = {**inputs, **found}
        start = begin(inputs_of(begin, given))
        count = next(iter(start.values())).shape[1]
        rows = slice(count // 2 if both else count)
        best = ascend(step, start, given, settings, rows=rows, progress=progress)
        results = main(inputs_of(main, {**given, "least": best}))
        return {**found, **results}

    return Recipe(main, run, takes=values.names, others=(begin, step))


def _has_slopes(graph: PrimalGraph, node: Node) -> bool:
    """Whether the slope of the node's lower line can be chosen."""
    if node.op == "leaky_relu":
        return bool(np.all(graph.constants[node.inputs[1]].numpy() <= 1))
    return node.op in SLOPE_RANGES


def _planning(workshop: Workshop) -> Any:
    """Steps are never asked for twice with the same slopes, so there is nothing to keep."""
    assert workshop.planning is not None
    return replace(workshop.planning, cache=None)


# -- programs ---------------------------------------------------------------------------------------------------------


def _front(workshop: Workshop) -> tuple[Any, Any]:
    """Front axes of the output's rows, where both sides are wanted of their negatives too."""
    times = 2 if both_sides(workshop) else 1
    if workshop.spec is None:
        outputs = 1
        for dim in workshop.graph.output_type.shape:
            assert isinstance(dim, int)
            outputs *= dim
        return REGIONS, times * outputs
    return REGIONS, SymDim(times, ROWS.symbols)


def _alpha_shape(workshop: Workshop, node: Node) -> tuple[Any, ...]:
    return (*_front(workshop), *node.type.shape)


def _start_program(workshop: Workshop, b: Builder, nodes: tuple[Node, ...]) -> dict[str, Value]:
    """The slopes that ``crown`` takes, for each row, and Adam's empty moments."""
    _, states = known_bounds(workshop, b, tuple(dict.fromkeys(node.inputs[0] for node in nodes)))
    spec = workshop.spec_rows(b)
    out: dict[str, Value] = {}
    for node in nodes:
        with b.origin(node.name):
            constants = _constants(workshop, b, node)
            lines = RELAXATIONS[node.op](b, states[node.inputs[0]], node.attrs, constants, workshop.options)
            slope = lines.lower_slope
            shape = _alpha_shape(workshop, node)
            rows = b.reshape(slope, (slope.shape[0], 1, *slope.shape[1:]))
            out[f"alpha:{node.name}"] = b.broadcast(rows, shape)
            out[f"first:{node.name}"] = b.broadcast(b.constant(0.0), shape)
            out[f"second:{node.name}"] = b.broadcast(b.constant(EMPTY), shape)
    if spec is not None:  # the number of rows is read off the specification
        out["C"] = spec.C
    return out


def _constants(workshop: Workshop, b: Builder, node: Node) -> tuple[Value, ...]:
    return tuple(b.constant(workshop.graph.constants[name]) for name in node.inputs[1:])


def _bounds_program(workshop: Workshop, nodes: tuple[Node, ...], names: tuple[str, ...]) -> BoundProgram:
    """Lower bounds of the output's rows, and of their negatives, from given slopes."""
    graph = workshop.graph

    def write(b: Builder) -> dict[str, Value]:
        region, states = known_bounds(workshop, b, names)
        spec = workshop.spec_rows(b)
        slopes = {
            node.name: b.input(f"alpha:{node.name}", _alpha_shape(workshop, node), group=SLOPES) for node in nodes
        }
        start = output_start(b, graph, spec, region.lower.shape[0])
        found = least(
            b,
            graph,
            workshop.rules["linear"],
            region,
            start,
            states,
            workshop.options,
            slopes,
            both=both_sides(workshop),
        )
        return {"least": found}

    return workshop.write("alpha bounds", write)


def _step_program(workshop: Workshop, nodes: tuple[Node, ...], names: tuple[str, ...]) -> BoundProgram:
    """One step: the bounds for the slopes, and slopes and moments after Adam's update, upwards.

    Slopes that come in are brought to the nearest that are allowed first: whatever they are, the bounds hold.
    """
    alphas = [f"alpha:{node.name}" for node in nodes]
    gradient = gradient_program(_bounds_program(workshop, nodes, names), "least", alphas)

    def write(b: Builder) -> dict[str, Value]:
        given = {
            value.name: b.input(value.name, value.shape, value.type.dtype, gradient.groups.get(value.name))
            for value in gradient.inputs
        }
        for node in nodes:
            operand = node.inputs[0]
            bounds = Interval(given[f"lower:{operand}"], given[f"upper:{operand}"])
            allowed = SLOPE_RANGES[node.op](b, bounds, _constants(workshop, b, node))
            low, high = (b.reshape(x, (x.shape[0], 1, *x.shape[1:])) for x in (allowed.lower, allowed.upper))
            given[f"alpha:{node.name}"] = b.minimum(b.maximum(given[f"alpha:{node.name}"], low), high)
        found = inline(b, gradient, given)
        rate, tiny = b.input("rate", (), group=SLOPES), b.input("tiny", (), group=SLOPES)
        out = {"least": found["least"]}
        for node in nodes:
            alpha, grad = given[f"alpha:{node.name}"], found[f"grad:alpha:{node.name}"]
            first = b.input(f"first:{node.name}", alpha.shape, group=SLOPES) * BETA1 + grad
            second = b.input(f"second:{node.name}", alpha.shape, group=SLOPES) * BETA2 + grad * grad
            out[f"alpha:{node.name}"] = alpha + first * rate / (b.sqrt(second) + tiny)
            out[f"first:{node.name}"], out[f"second:{node.name}"] = first, second
        return out

    return workshop.write("alpha step", write)


def _result_program(workshop: Workshop, b: Builder, names: tuple[str, ...]) -> Mapping[str, Value]:
    """The best bounds found, intersected with intervals if so asked."""
    region, known = known_bounds(workshop, b, names)
    states: Mapping[str, Interval] = interval_states(workshop, b, known) if workshop.options["intersect"] else known
    spec: SpecRows | None = workshop.spec_rows(b)
    start = output_start(b, workshop.graph, spec, region.lower.shape[0])
    found = b.input("least", _front(workshop), group=SLOPES)
    if not both_sides(workshop):
        return intersected(workshop, b, spec, states, found, None)
    lower, negated = start.layout.halves(found)
    return intersected(workshop, b, spec, states, lower, -negated)
