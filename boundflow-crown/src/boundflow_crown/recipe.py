"""The method ``crown``: bounds inside of the network refined by backward passes of their own, neuron by neuron.

Which neurons are worth a backward pass depends on the bounds found so far. In stages, the method is several programs
with plain Python in between: for each value that a relaxation needs bounds of, one program bounds it by intervals from
what is known before it, and one walks back from those of its neurons that are undecided. Where that is one region and
the rows are few enough, one program does all of it (:mod:`.one_run`). A region's bounds never depend on the other
regions of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from boundflow_core.arrays import concatenate, nonzero
from boundflow_core.cache import digest
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.runner import ProgramRunner
from boundflow_core.workshop import Progress, Recipe, Workshop
from boundflow_crown.layers import Layer, inputs_of, interval_states, known_bounds, layers_of
from boundflow_crown.one_run import Finish, OneRun
from boundflow_crown.options import check_choices, check_rounding
from boundflow_crown.output import output_bounds
from boundflow_crown.picking import is_loose
from boundflow_crown.pieces import in_pieces, rows_of_piece

__all__ = ["Inside", "crown", "inside"]


@dataclass(frozen=True)
class Inside:
    """Bounds inside of the network.

    Attributes:
        names: values that some relaxation needs bounds of, in the order of the network.
        find: ``find(inputs, progress) -> found``: their bounds ``lower:NAME``, ``upper:NAME``, those among the inputs
            taken as they are; and further results where one program gave all of them.
        one: the program that gives them at once, where there is one.
        layers: the values of ``names`` with the programs that bound them.
    """

    names: tuple[str, ...]
    find: Callable[[Mapping[str, Any], Progress | None], dict[str, Any]]
    one: OneRun | None
    layers: tuple[Layer, ...]


def inside(workshop: Workshop, finish: Finish | None = None) -> Inside:
    """The programs that bound what relaxations need, value by value or at once.

    Args:
        finish: writes further results into the program that does it at once.
    """
    check_choices(workshop.options)
    check_rounding(workshop)
    layers = layers_of(workshop)
    names = tuple(layer.name for layer in layers)
    intersect, every = workshop.options["intersect"], workshop.options["refine"] == "all"
    planning = workshop.planning
    assert planning is not None
    # In one program, rounding could change which neurons get rows; between programs bounds count as exact.
    staged_only = planning.differentiable or planning.outward or workshop.options.get("forward", False)
    at_once = any(layer.shared is not None for layer in layers) and not staged_only
    one = OneRun(workshop, layers, finish) if at_once else None
    # The region that was last bounded in stages, whose results the cache of bounds holds.
    stored: list[str] = [""]

    def staged(inputs: Mapping[str, Any], progress: Progress | None) -> tuple[dict[str, Any], dict[str, int]]:
        given, counts = dict(inputs), {}
        for number, layer in enumerate(layers, 1):
            if f"lower:{layer.name}" not in given:
                bounds = _bounds_of(layer, given, intersect=intersect, every=every)
                given[f"lower:{layer.name}"], given[f"upper:{layer.name}"], counts[layer.name] = bounds
            if progress is not None:
                progress(number, len(layers) + 1)
        return {name: array for name, array in given.items() if ":" in name}, counts

    def find(inputs: Mapping[str, Any], progress: Progress | None) -> dict[str, Any]:
        if one is None or len(inputs["lower"]) != 1 or any(":" in name for name in inputs):
            return staged(inputs, progress)[0]
        region = "" if planning.cache is None else _digest(inputs)
        if not region or region != stored[0]:
            found = one(inputs)
            if found is not None:
                return found
        stored[0] = region
        found, counts = staged(inputs, progress)
        one.learn(counts)
        return found

    return Inside(names, find, one, layers)


def _digest(inputs: Mapping[str, Any]) -> str:
    return digest({name: array for name, array in inputs.items() if name not in ("C", "offset")})


def crown(workshop: Workshop) -> Recipe:
    """The recipe of ``crown`` for one network."""
    values = inside(workshop, output_bounds)
    main = workshop.runner("crown", lambda b: _output_program(workshop, b, values.names))
    latest = [main]

    def run(inputs: Mapping[str, Any], progress: Progress | None) -> Mapping[str, Any]:
        found = values.find(inputs, progress)
        if "lower" not in found:
            found.update(main(inputs_of(main, {**inputs, **found})))
            latest[0] = main
        elif values.one is not None:
            latest[0] = values.one.runner
        if progress is not None:
            progress(len(values.names) + 1, len(values.names) + 1)
        return found

    return Recipe(main, run, takes=values.names, latest=lambda: latest[0])


def _output_program(workshop: Workshop, b: Builder, names: tuple[str, ...]) -> Mapping[str, Value]:
    region, known = known_bounds(workshop, b, names)
    states = interval_states(workshop, b, known) if workshop.options["intersect"] else known
    return output_bounds(workshop, b, region, states)


# -- running in stages ------------------------------------------------------------------------------------------------


def _bounds_of(layer: Layer, given: Mapping[str, Any], *, intersect: bool, every: bool) -> tuple[Any, Any, int]:
    """Bounds of the layer's value: by intervals, then backward for the neurons that a relaxation would loosen,
    or for every one; and the number of these."""
    found = layer.intervals(inputs_of(layer.intervals, given))
    lower, upper = found["lower"], found["upper"]
    if layer.shared is None or layer.ragged is None:
        return lower, upper, 0
    batch = lower.shape[0]
    flat_lower, flat_upper = lower.reshape(batch, -1), upper.reshape(batch, -1)
    loose = is_loose(flat_lower, flat_upper, hinged=layer.hinged)
    region, neuron = nonzero(loose | True if every else loose)
    if len(neuron) == 0:
        return lower, upper, 0
    rows = {"neuron": neuron}
    if intersect:
        rows["old lower"], rows["old upper"] = flat_lower[region, neuron], flat_upper[region, neuron]
    low, high = _refined(layer.shared, layer.ragged, given, region, rows)
    flat_lower[region, neuron], flat_upper[region, neuron] = low, high
    return lower, upper, len(neuron)


def _refined(
    shared: ProgramRunner, ragged: ProgramRunner, given: Mapping[str, Any], region: Any, rows: Mapping[str, Any]
) -> tuple[Any, Any]:
    """Backward bounds [R] of rows (vectors [R], ``neuron`` among them), of the regions ``region``, in ascending order.

    Rows of all regions run together, but where those of one fill a piece by themselves: company gains nothing then,
    and relaxations of their own, row by row, cost much.
    """
    batch = len(given["lower"])
    if batch > 1 and len(region) <= batch * rows_of_piece(ragged, batch):
        found = in_pieces(ragged, inputs_of(ragged, given), {**rows, "row_region": region}, axis=0)
        return found["lower"], found["upper"]
    inputs = inputs_of(shared, given)
    lows, highs, start = [], [], 0
    for number in range(batch):
        stop = start + int((region == number).sum())
        if stop > start:
            own = {name: array[number : number + 1] for name, array in inputs.items()}
            found = in_pieces(shared, own, {name: vector[start:stop] for name, vector in rows.items()}, axis=1)
            lows.append(found["lower"][0])
            highs.append(found["upper"][0])
        start = stop
    return concatenate(lows, 0), concatenate(highs, 0)
