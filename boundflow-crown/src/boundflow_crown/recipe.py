"""The method ``crown``: bounds inside of the network refined by backward passes of their own, neuron by neuron.

Which neurons are worth a backward pass depends on the bounds found so far, so the method is several programs with plain
Python in between: for each value that a relaxation needs bounds of, one program bounds it by intervals from what is
known before it, and one walks back from those of its neurons that are undecided. A region's bounds never depend on the
other regions of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from boundflow_core.arrays import concatenate, nonzero
from boundflow_core.extension import RuleContext
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import frozen
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import DType, Shape, SymDim, concrete_shape, size
from boundflow_core.runner import ProgramRunner
from boundflow_core.workshop import REGIONS, Progress, Recipe, Workshop
from boundflow_crown.bounds import bound_rows
from boundflow_crown.domain import relaxed_operands
from boundflow_crown.options import check_choices
from boundflow_crown.output import output_bounds
from boundflow_crown.pieces import in_pieces, rows_of_piece
from boundflow_crown.rows import Rows
from boundflow_crown.walk import Start
from boundflow_crown.windows import Picks, Window
from boundflow_interval import Interval

__all__ = ["Inside", "crown", "forward_from", "inputs_of", "inside", "known_bounds", "rows_program"]

CHOSEN = SymDim.of("R")

# Operators that are linear on either side of zero: only neurons whose bounds straddle zero are relaxed at all.
_HINGED = ("relu", "leaky_relu", "abs", "sign")


@dataclass(frozen=True)
class _Layer:
    """A value whose bounds some relaxation needs.

    Attributes:
        known: values inside of the network whose bounds must be known before.
        hinged: whether only neurons with bounds on both sides of zero matter.
        intervals: bounds by intervals, from those that are known.
        shared, ragged: backward bounds of chosen neurons, the same ones in every region, or any.
    """

    name: str
    shape: Shape
    known: tuple[str, ...]
    hinged: bool
    intervals: ProgramRunner
    shared: ProgramRunner | None
    ragged: ProgramRunner | None


@dataclass(frozen=True)
class Inside:
    """Bounds inside of the network.

    Attributes:
        names: values that some relaxation needs bounds of, in the order of the network.
        find: ``find(inputs, progress) -> found``: their bounds ``lower:NAME``, ``upper:NAME``, those among the inputs
            taken as they are.
    """

    names: tuple[str, ...]
    find: Callable[[Mapping[str, Any], Progress | None], dict[str, Any]]


def inside(workshop: Workshop) -> Inside:
    """The programs that bound what relaxations need, value by value."""
    check_choices(workshop.options)
    graph = workshop.graph
    names = tuple(name for name in relaxed_operands(graph) if name != graph.input)
    layers = [_layer(workshop, name, names) for name in names]
    intersect, refine = workshop.options["intersect"], workshop.options["refine"]

    def find(inputs: Mapping[str, Any], progress: Progress | None) -> dict[str, Any]:
        given = dict(inputs)
        for number, layer in enumerate(layers, 1):
            if f"lower:{layer.name}" not in given:
                lower, upper = _bounds_of(layer, given, intersect=intersect, every=refine == "all")
                given[f"lower:{layer.name}"], given[f"upper:{layer.name}"] = lower, upper
            if progress is not None:
                progress(number, len(layers) + 1)
        return {name: array for name, array in given.items() if ":" in name}

    return Inside(names, find)


def crown(workshop: Workshop) -> Recipe:
    """The recipe of ``crown`` for one network."""
    values = inside(workshop)
    main = workshop.runner("crown", lambda b: _output_program(workshop, b, values.names))

    def run(inputs: Mapping[str, Any], progress: Progress | None) -> Mapping[str, Any]:
        found = values.find(inputs, progress)
        results = main(inputs_of(main, {**inputs, **found}))
        if progress is not None:
            progress(len(values.names) + 1, len(values.names) + 1)
        return {**found, **results}

    return Recipe(main, run, takes=values.names)


# -- programs ---------------------------------------------------------------------------------------------------------


def _layer(workshop: Workshop, name: str, names: tuple[str, ...]) -> _Layer:
    graph = workshop.graph
    known = tuple(other for other in names if other != name and other in _ancestors(graph, name))
    users = [node.op for node in graph.users(name)]
    refined = bool(known) or workshop.ball is not None  # whatever lies between ball and value, the walk knows the ball
    return _Layer(
        name=name,
        shape=graph.type_of(name).shape,
        known=known,
        hinged=all(op in _HINGED for op in users),
        intervals=workshop.runner(f"intervals:{name}", lambda b: _interval_program(workshop, b, name, known)),
        shared=_rows_runner(workshop, name, known, ragged=False) if refined else None,
        ragged=_rows_runner(workshop, name, known, ragged=True) if refined else None,
    )


def _rows_runner(workshop: Workshop, name: str, known: tuple[str, ...], *, ragged: bool) -> ProgramRunner:
    return workshop.runner(f"rows:{name}", lambda b: rows_program(workshop, b, name, known, ragged=ragged), cuts=("R",))


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
        layout = Rows(b, (REGIONS, CHOSEN))
    start = _neuron_start(b, workshop.graph, name, neuron, layout)
    lower, upper = bound_rows(b, workshop.graph, workshop.rules["linear"], region, start, states, workshop.options)
    assert upper is not None
    return {"lower": lower, "upper": upper}


def _neuron_start(b: Builder, graph: PrimalGraph, name: str, neuron: Value, layout: Rows) -> Start:
    """Rows that pick out neurons of the value ``name``, already through the linear operator that makes it, if any."""
    node = graph.producer(name)
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
    count = size(shape)
    assert isinstance(count, int)
    places = b.constant(frozen(_arange(count)))
    chosen = b.compare(b.reshape(neuron, (CHOSEN, 1)), places, "eq")
    ones = b.where(chosen, 1.0, 0.0)
    return Start(name, _spread(b, b.reshape(ones, (CHOSEN, *shape)), front), None, layout)


def _arange(count: int) -> Any:
    import numpy as np

    return np.arange(count, dtype=np.int64)


def _spread(b: Builder, rows: Value, front: tuple[Any, ...]) -> Value:
    """Rows [R, *s] for every region."""
    return rows if len(front) == 1 else b.broadcast(rows, (*front, *rows.shape[1:]))


def known_bounds(workshop: Workshop, b: Builder, known: tuple[str, ...]) -> tuple[Interval, dict[str, Interval]]:
    """The region, and bounds of the values ``known`` as inputs."""
    region = Interval(*workshop.region(b))
    states = {workshop.graph.input: region}
    for name in known:
        shape = (REGIONS, *workshop.graph.type_of(name).shape)
        states[name] = Interval(
            b.input(f"lower:{name}", shape, group=f"bounds of {name}"),
            b.input(f"upper:{name}", shape, group=f"bounds of {name}"),
        )
    return region, states


def _interval_program(workshop: Workshop, b: Builder, name: str, known: tuple[str, ...]) -> Mapping[str, Value]:
    _, states = known_bounds(workshop, b, known)
    found = forward_from(workshop, b, states)[name]
    return {"lower": found.lower, "upper": found.upper}


def forward_from(workshop: Workshop, b: Builder, known: Mapping[str, Interval]) -> dict[str, Interval]:
    """Interval bounds of every value, those of ``known`` taken as they are."""
    graph, rules = workshop.graph, workshop.rules["interval"]
    states: dict[str, Any] = dict(known)
    for node in graph.nodes:
        if node.output in known:
            continue
        with b.origin(node.name):
            operands = [states[name] if name in states else b.constant(graph.constants[name]) for name in node.inputs]
            states[node.output] = rules[node.op](RuleContext(b, graph, node), *operands)
    return states


def _output_program(workshop: Workshop, b: Builder, names: tuple[str, ...]) -> Mapping[str, Value]:
    region, known = known_bounds(workshop, b, names)
    states = forward_from(workshop, b, known) if workshop.options["intersect"] else known
    return output_bounds(workshop, b, region, states)


def _ancestors(graph: PrimalGraph, name: str) -> set[str]:
    found: set[str] = set()
    stack = [name]
    while stack:
        node = graph.producer(stack.pop())
        if node is not None:
            stack.extend(other for other in node.inputs if other not in found)
            found.update(node.inputs)
    return found


# -- running ----------------------------------------------------------------------------------------------------------


def _bounds_of(layer: _Layer, given: Mapping[str, Any], *, intersect: bool, every: bool) -> tuple[Any, Any]:
    """Bounds of the layer's value: by intervals, then backward for the neurons that a relaxation would loosen,
    or for every one."""
    base = inputs_of(layer.intervals, given)
    found = layer.intervals(base)
    lower, upper = found["lower"], found["upper"]
    if layer.shared is None or layer.ragged is None:
        return lower, upper
    batch = lower.shape[0]
    flat_lower, flat_upper = lower.reshape(batch, -1), upper.reshape(batch, -1)
    loose = (flat_lower < 0) & (flat_upper > 0) if layer.hinged else ~(flat_lower >= flat_upper)
    region, neuron = nonzero(loose | True if every else loose)
    if len(neuron) == 0:
        return lower, upper
    low, high = _refined(layer.shared, layer.ragged, given, region, neuron)
    if intersect:
        old_low, old_high = flat_lower[region, neuron], flat_upper[region, neuron]
        # Comparisons with NaN are false, so that an undefined bound never replaces a defined one.
        low, high = _choose(low > old_low, low, old_low), _choose(high < old_high, high, old_high)
    crossed = low > high  # by rounding, where they meet
    flat_lower[region, neuron] = _choose(crossed, high, low)
    flat_upper[region, neuron] = _choose(crossed, low, high)
    return lower, upper


def _refined(
    shared: ProgramRunner, ragged: ProgramRunner, given: Mapping[str, Any], region: Any, neuron: Any
) -> tuple[Any, Any]:
    """Backward bounds [R] of neurons, of the regions ``region``, in ascending order.

    Rows of all regions run together, but where those of one fill a piece by themselves: company gains nothing then,
    and relaxations of their own, row by row, cost much.
    """
    batch = len(given["lower"])
    inputs = inputs_of(ragged, given)
    if batch > 1 and len(neuron) <= batch * rows_of_piece(ragged, batch):
        found = in_pieces(ragged, inputs, {"neuron": neuron, "row_region": region}, axis=0)
        return found["lower"], found["upper"]
    lows, highs, start = [], [], 0
    for number in range(batch):
        stop = start + int((region == number).sum())
        if stop > start:
            own = {name: array[number : number + 1] for name, array in inputs.items()}
            found = in_pieces(shared, own, {"neuron": neuron[start:stop]}, axis=1)
            lows.append(found["lower"][0])
            highs.append(found["upper"][0])
        start = stop
    return concatenate(lows, 0), concatenate(highs, 0)


def _choose(condition: Any, one: Any, other: Any) -> Any:
    if hasattr(condition, "detach"):
        import torch

        return torch.where(condition, one, other)
    import numpy as np

    return np.where(condition, one, other)


def inputs_of(runner: ProgramRunner, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``given`` that the program takes."""
    return {value.name: given[value.name] for value in runner.program.inputs if value.name in given}
