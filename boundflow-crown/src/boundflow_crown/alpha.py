"""The method ``alpha-crown``: lower slopes of undecided neurons optimised, row by row, by projected gradient steps.

Any slope in [0, 1] gives a sound bound, so every step's bounds hold and the best of all steps is kept. The first step
takes the slopes of ``crown``. One step is one program: the bounds, their gradient in the slopes, and the update. The
slopes are those of the walk from the output, or also those of walks that bound neurons inside (:mod:`.optimized`). Xu
et al., Fast and Complete: Enabling Complete Neural Network Verification with Rapid and Massively Parallel Incomplete
Verifiers, 2021, section 3.1; Adam by Kingma and Ba, 2015.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boundflow_core.derivative import gradient_program
from boundflow_core.extension import SpecRows
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import Node
from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.planner.rewrite import inline
from boundflow_core.runner import ProgramRunner
from boundflow_core.workshop import Progress, Recipe, Workshop
from boundflow_crown.ascent import OPTIONS, ascend, settings_of
from boundflow_crown.bounds import least
from boundflow_crown.layers import inputs_of, interval_states, known_bounds
from boundflow_crown.optimized import job_of, optimized
from boundflow_crown.options import check_choices
from boundflow_crown.output import both_sides, intersected, output_front, output_start
from boundflow_crown.recipe import crown, inside
from boundflow_crown.relax import RELAXATIONS
from boundflow_crown.slopes import SLOPES, allowed, at_rest, constants_of, has_slopes, planning_of_steps, updated
from boundflow_interval import Interval

__all__ = ["ALPHA_OPTIONS", "alpha_crown"]

ALPHA_OPTIONS: Mapping[str, Any] = {**OPTIONS, "intermediate": "fixed"}


def alpha_crown(workshop: Workshop) -> Recipe:
    """The recipe of ``alpha-crown`` for one network."""
    check_choices(workshop.options)
    settings, both = settings_of(workshop.options), both_sides(workshop)
    values = inside(workshop)
    nodes = tuple(n for n in workshop.graph.nodes if has_slopes(workshop.graph, n) and n.inputs[0] in values.names)
    if not nodes:
        return crown(workshop)
    main = workshop.runner("alpha-crown", lambda b: _result_program(workshop, b, values.names), cuts=("B",))
    if workshop.options["intermediate"] == "optimized":
        job = job_of(workshop, values, nodes)
        if job.layers:
            return optimized(job, main)
    # Rows that are mirrored cannot be cut along their number.
    begin = workshop.runner("alpha start", lambda b: _start_program(workshop, b, nodes), cuts=("B",))
    step = ProgramRunner(
        lambda: _step_program(workshop, nodes, values.names),
        planning_of_steps(workshop),
        workshop.stats,
        cuts=("B",),
        varying=(SLOPES,),
    )

    def run(inputs: Mapping[str, Any], progress: Progress | None) -> Mapping[str, Any]:
        found = values.find(inputs, None)
        given = {**inputs, **found}
        start = begin(inputs_of(begin, given))
        count = next(iter(start.values())).shape[1]
        rows = slice(count // 2 if both else count)
        best, _ = ascend(step, start, given, settings, rows=rows, progress=progress)
        results = main(inputs_of(main, {**given, "least": best}))
        return {**found, **results}

    return Recipe(main, run, takes=values.names, others=(begin, step))


# -- programs ---------------------------------------------------------------------------------------------------------


def _alpha_shape(workshop: Workshop, node: Node) -> tuple[Any, ...]:
    return (*output_front(workshop), *node.type.shape)


def _start_program(workshop: Workshop, b: Builder, nodes: tuple[Node, ...]) -> dict[str, Value]:
    """The slopes that ``crown`` takes, for each row, and Adam's empty moments."""
    _, states = known_bounds(workshop, b, tuple(dict.fromkeys(node.inputs[0] for node in nodes)))
    spec = workshop.spec_rows(b)
    out: dict[str, Value] = {}
    for node in nodes:
        with b.origin(node.name):
            constants = constants_of(b, workshop.graph, node)
            lines = RELAXATIONS[node.op](b, states[node.inputs[0]], node.attrs, constants, workshop.options)
            slope = lines.lower_slope
            shape = _alpha_shape(workshop, node)
            rows = b.reshape(slope, (slope.shape[0], 1, *slope.shape[1:]))
            out |= at_rest(b, "alpha", node.name, b.broadcast(rows, shape))
    if spec is not None:  # the number of rows is read off the specification
        out["C"] = spec.C
    return out


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
            lambda ctx: slopes.get(ctx.node.name),
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
            given[f"alpha:{node.name}"] = allowed(b, workshop.graph, node, bounds, given[f"alpha:{node.name}"])
        found = inline(b, gradient, given)
        rate, tiny = b.input("rate", (), group=SLOPES), b.input("tiny", (), group=SLOPES)
        out = {"least": found["least"]}
        for node in nodes:
            name = f"alpha:{node.name}"
            out |= updated(b, "alpha", node.name, given[name], found[f"grad:{name}"], rate, tiny)
        return out

    return workshop.write("alpha step", write)


def _result_program(workshop: Workshop, b: Builder, names: tuple[str, ...]) -> Mapping[str, Value]:
    """The best bounds found, intersected with intervals if so asked."""
    region, known = known_bounds(workshop, b, names)
    states: Mapping[str, Interval] = interval_states(workshop, b, known) if workshop.options["intersect"] else known
    spec: SpecRows | None = workshop.spec_rows(b)
    start = output_start(b, workshop.graph, spec, region.lower.shape[0])
    found = b.input("least", output_front(workshop), group=SLOPES)
    if not both_sides(workshop):
        return intersected(workshop, b, spec, states, found, None)
    lower, negated = start.layout.halves(found)
    return intersected(workshop, b, spec, states, lower, -negated)
