"""``alpha-crown`` with ``intermediate="optimized"``: slopes of the walks that bound neurons inside are optimised, too.

Each undecided neuron of a value has slopes of its own for all activations before it, and so has each row of the output.
One step is one program for one region: value by value in the order of the network it walks back from the neurons,
intersects what it finds with the best bounds so far, and relaxes what comes later by the result; the output's rows come
last. The slopes go up the gradient of the sum of the output's lower bounds, through the relaxations. Whatever the
slopes, the bounds are sound, so each neuron keeps the best that it ever had, beginning with those of ``crown``. Xu et
al., Fast and Complete, 2021, section 3.1; that bounds inside are optimised as well, section 3.3.

Which neurons are undecided differs from region to region, so that a batch would hold room for the worst of them:
regions run one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from boundflow_core.arrays import concatenate, is_torch, nonzero
from boundflow_core.derivative import gradient_program
from boundflow_core.errors import MemoryLimitError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import Node
from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.planner.rewrite import decompose, inline
from boundflow_core.runner import ProgramRunner
from boundflow_core.workshop import Progress, Recipe, Workshop
from boundflow_crown.ascent import Settings, ascend, settings_of
from boundflow_crown.bounds import least
from boundflow_crown.composites import TIGHTEN
from boundflow_crown.domain import ancestors
from boundflow_crown.layers import Layer, inputs_of, known_bounds, neuron_start
from boundflow_crown.output import both_sides, output_front, output_start
from boundflow_crown.picking import Picked, is_loose, pick, room_symbol, slot_numbers
from boundflow_crown.pieces import padded_count
from boundflow_crown.recipe import Inside
from boundflow_crown.rows import Rows
from boundflow_crown.slopes import SLOPES, FirstSlopes, GivenSlopes, at_rest, planning_of_steps, updated, within_reach
from boundflow_crown.walk import SlopeChoice
from boundflow_interval import Interval

__all__ = ["Job", "job_of", "optimized"]


@dataclass(frozen=True)
class Job:
    """What is optimised.

    Attributes:
        workshop: that of programs for one region.
        inside: the bounds to begin with.
        nodes: activations whose slopes can be chosen.
        layers: values whose undecided neurons get slopes, in the order of the network.
    """

    workshop: Workshop
    inside: Inside
    nodes: tuple[Node, ...]
    layers: tuple[Layer, ...]
    settings: Settings

    @property
    def every(self) -> bool:
        """Whether all neurons count as undecided."""
        return bool(self.workshop.options["refine"] == "all")

    @property
    def names(self) -> frozenset[str]:
        return frozenset(node.name for node in self.nodes)

    def prefix(self, layer: Layer) -> str:
        """What tells slopes of the layer's walk from those of others."""
        return f" {self.layers.index(layer) + 1}"


def job_of(workshop: Workshop, inside: Inside, nodes: tuple[Node, ...]) -> Job:
    """The job for a network; of no layers where no walk from inside meets an activation whose slopes can be chosen."""
    outputs = {node.output for node in nodes}
    layers = tuple(
        layer
        for layer in inside.layers
        if layer.shared is not None and not outputs.isdisjoint(ancestors(workshop.graph, layer.name))
    )
    return Job(replace(workshop, regions=1), inside, nodes, layers, settings_of(workshop.options))


def optimized(job: Job, main: ProgramRunner) -> Recipe:
    """The recipe; ``main`` gives the results from the bounds ``least`` of the output's rows and those inside."""
    workshop = job.workshop
    begin = workshop.runner("alpha start", lambda b: _start_program(job, b), cuts=())
    step = ProgramRunner(
        lambda: _step_program(job), planning_of_steps(workshop), workshop.stats, cuts=(), varying=(SLOPES,)
    )

    def run(inputs: Mapping[str, Any], progress: Progress | None) -> Mapping[str, Any]:
        found = job.inside.find(inputs, None)
        given, batch = {**inputs, **found}, len(inputs["lower"])
        bests, insides = [], []
        for number in range(batch):
            own = {name: array[number : number + 1] if len(array) == batch else array for name, array in given.items()}
            best, bounds = _one_region(job, begin, step, own, _part_of(progress, number, batch))
            bests.append(best)
            insides.append(bounds)
        found |= {name: concatenate([bounds[name] for bounds in insides], 0) for name in insides[0]}
        results = main(inputs_of(main, {**given, **found, "least": concatenate(bests, 0)}))
        return {**found, **results}

    return Recipe(main, run, takes=job.inside.names, others=(begin, step))


def _part_of(progress: Progress | None, number: int, batch: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, of: progress(number * (of - 1) + done, batch * (of - 1) + 1)


def _one_region(
    job: Job, begin: ProgramRunner, step: ProgramRunner, given: Mapping[str, Any], progress: Progress | None
) -> tuple[Any, dict[str, Any]]:
    """The best bounds [1, rows] of the output's rows, and those inside ``lower:NAME``, ``upper:NAME`` [1, *value]."""
    flat = {name: given[name].reshape(-1) for layer in job.layers for name in _sides(layer)}
    neurons = {layer.name: _undecided(layer, flat, every=job.every) for layer in job.layers}
    rooms = {layer.name: min(padded_count(max(1, len(neurons[layer.name]))), layer.neurons) for layer in job.layers}
    _check_memory(job, step, rooms, given)
    slots = {f"slots:{name}": slot_numbers(room, given["lower"]) for name, room in rooms.items()}
    given = {**given, **slots}
    start = begin(inputs_of(begin, given))
    count = start["best"].shape[1]
    judged = slice(count // 2 if both_sides(job.workshop) else count)
    wanted = tuple(f"rows {name}" for name in flat)
    best, last = ascend(step, start, given, job.settings, rows=judged, wanted=wanted, progress=progress)
    bounds = {}
    for layer in job.layers:
        chosen = neurons[layer.name]
        for name in _sides(layer):
            side = flat[name].clone() if is_torch(flat[name]) else flat[name].copy()
            side[chosen] = last[f"rows {name}"][: len(chosen)]
            bounds[name] = side.reshape(1, *layer.shape)
    return best, bounds


def _undecided(layer: Layer, flat: Mapping[str, Any], *, every: bool) -> Any:
    """Numbers of the neurons that get rows, as :func:`.picking.pick` picks them."""
    lower, upper = (flat[name] for name in _sides(layer))
    loose = is_loose(lower, upper, hinged=layer.hinged)
    (found,) = nonzero(loose | True if every else loose)
    return found


def _sides(layer: Layer) -> tuple[str, str]:
    return f"lower:{layer.name}", f"upper:{layer.name}"


def _check_memory(job: Job, step: ProgramRunner, rooms: Mapping[str, int], given: Mapping[str, Any]) -> None:
    """
    Raises:
        MemoryLimitError: the slopes of one region do not fit.
    """
    limit = None if job.workshop.planning is None else job.workshop.planning.memory_limit
    if limit is None:
        return
    sizes = {f"R:{name}": room for name, room in rooms.items()}
    if "C" in given:
        sizes["S"] = int(given["C"].shape[1])
    needed = step.peak_bytes(sizes)
    if needed > limit:
        raise MemoryLimitError(
            f"optimising the bounds of {sum(rooms.values()):,} neurons of one region takes {needed:,} bytes as "
            f'planned, more than the memory limit of {limit:,}; raise the limit or choose intermediate="fixed"'
        )


# -- programs ---------------------------------------------------------------------------------------------------------


def _flat(b: Builder, layer: Layer, bounds: Interval) -> Interval:
    """Bounds [1, *value] as [n]."""
    lower, upper = (b.reshape(side, (layer.neurons,)) for side in (bounds.lower, bounds.upper))
    return Interval(lower, upper)


def _walk_from(
    job: Job, b: Builder, layer: Layer, picked: Picked, states: Mapping[str, Interval], slopes: SlopeChoice
) -> Value:
    """Lower bounds [1, 2 R] of the picked neurons and of their negatives."""
    workshop = job.workshop
    start = neuron_start(b, workshop.graph, layer.name, picked.neuron, Rows(b, (1, room_symbol(layer))))
    linear, region = workshop.rules["linear"], states[workshop.graph.input]
    return least(b, workshop.graph, linear, region, start, states, workshop.options, slopes)


def _walk_from_output(
    job: Job, b: Builder, region: Interval, states: Mapping[str, Interval], slopes: SlopeChoice
) -> Value:
    """Lower bounds [1, rows] of the output's rows, and of their negatives where both sides are wanted."""
    workshop = job.workshop
    start = output_start(b, workshop.graph, workshop.spec_rows(b), 1)
    linear, both = workshop.rules["linear"], both_sides(workshop)
    return least(b, workshop.graph, linear, region, start, states, workshop.options, slopes, both=both)


def _start_program(job: Job, b: Builder) -> dict[str, Value]:
    """The first state: the slopes that ``crown`` takes, for each row, and the bounds that are known."""
    region, states = known_bounds(job.workshop, b, job.inside.names)
    out, slopes = {}, FirstSlopes("", job.names)
    for layer in job.layers:
        bounds = _flat(b, layer, states[layer.name])
        picked = pick(b, layer, bounds, every=job.every)
        for name, side in zip(_sides(layer), (bounds.lower, bounds.upper), strict=True):
            out[f"rows {name}"] = b.gather_rows(side, picked.neuron)
        slopes.prefix = job.prefix(layer)
        _walk_from(job, b, layer, picked, states, slopes)
    slopes.prefix = ""
    _walk_from_output(job, b, region, states, slopes)
    for key, alpha in slopes.found.items():
        prefix, _, name = key.partition(":")
        out |= at_rest(b, f"alpha{prefix}", name, alpha)
    return {**out, "best": b.broadcast(b.constant(-np.inf), output_front(job.workshop))}


def _bounds_program(job: Job) -> tuple[BoundProgram, dict[str, Node]]:
    """Bounds from given slopes: ``least`` of the output's rows and ``rows lower:NAME``, ``rows upper:NAME`` of neurons;
    and the nodes that inputs ``alpha...`` are slopes of."""
    taken = GivenSlopes("", job.names)

    def write(b: Builder) -> dict[str, Value]:
        region, states = known_bounds(job.workshop, b, job.inside.names)
        out = {}
        for layer in job.layers:
            given = _flat(b, layer, states[layer.name])
            picked = pick(b, layer, given, every=job.every)
            row = (room_symbol(layer),)
            taken.prefix = job.prefix(layer)
            found = _walk_from(job, b, layer, picked, states, taken)
            with b.origin(layer.name):
                sides = Rows(b, (1, *row)).halves(found)
                before = [b.input(f"rows {name}", row, group=SLOPES) for name in _sides(layer)]
                lower, negated = (b.reshape(side, row) for side in sides)
                tight = b.emit(TIGHTEN, lower, -negated, *before)
                bounds = []
                for name, rows, old in zip(_sides(layer), tight, (given.lower, given.upper), strict=True):
                    out[f"rows {name}"] = rows
                    new = b.where(picked.loose, picked.spread(rows), old)
                    bounds.append(b.reshape(new, (1, *layer.shape)))
                states[layer.name] = Interval(bounds[0], bounds[1])
        taken.prefix = ""
        return {**out, "least": _walk_from_output(job, b, region, states, taken)}

    program = job.workshop.write("alpha bounds", write)
    return program, {f"alpha{key}": node for key, (_, node) in taken.inputs.items()}


def _step_program(job: Job) -> BoundProgram:
    """One step: the bounds for the slopes, and slopes and moments after Adam's update, upwards.

    Rows of the output that are decided have no say in where the slopes inside go.
    """
    workshop, stop = job.workshop, job.settings.stop
    program, alphas = _bounds_program(job)
    seed = None if stop is None else "weights"
    gradient = gradient_program(program, "least", list(alphas), seed=seed, seed_group=SLOPES)
    gradient = decompose(gradient, {op.name for op in gradient.ops} - {TIGHTEN.name})

    def write(b: Builder) -> dict[str, Value]:
        given, out = {}, {}
        for value in gradient.inputs:
            if value.name != seed:
                given[value.name] = b.input(value.name, value.shape, value.type.dtype, gradient.groups.get(value.name))
        for name, node in alphas.items():
            given[name] = within_reach(b, workshop.graph, node, given[name])
        if stop is not None:
            best, nothing = b.input("best", output_front(workshop), group=SLOPES), b.constant(0.0)
            # Weights follow from the bounds: written once for these, and once more behind them, where only what hangs
            # on the weights is new.
            found = inline(b, gradient, {**given, "weights": b.broadcast(nothing, output_front(workshop))})
            out["best"] = b.where(found["least"] > best, found["least"], best)
            given["weights"] = _weights(workshop, b, out["best"], stop)
        found = inline(b, gradient, given)
        rate, tiny = b.input("rate", (), group=SLOPES), b.input("tiny", (), group=SLOPES)
        for name in alphas:
            kind, _, own = name.partition(":")
            out |= updated(b, kind, own, given[name], found[f"grad:{name}"], rate, tiny)
        return {**out, **{name: found[name] for name in program.outputs}}

    return workshop.write("alpha step", write)


def _weights(workshop: Workshop, b: Builder, best: Value, stop: float) -> Value:
    """1 for rows whose bounds are still to be raised, else 0; the upper bounds' rows count always."""
    weights = b.where(best > stop, 0.0, 1.0)
    if not both_sides(workshop):
        return weights
    rows, count = weights.shape
    half = count // 2 if isinstance(count, int) else replace(count, coefficient=count.coefficient // 2)
    lower, negated = Rows(b, (rows, half)).halves(weights)
    return b.concat((lower, negated * 0.0 + 1.0), 1)
