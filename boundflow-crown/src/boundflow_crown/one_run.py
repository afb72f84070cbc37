"""All bounds inside of the network, and what follows from them, of one region in one program.

Which neurons get a backward pass is data, but their number must be known before a program runs. So the program has room
for a number of rows per value; it finds the undecided neurons itself, gives each a row, and tells how many there were.
Where they were more than it has room for, its results are thrown away and it runs again with more. Rows too many change
nothing: no neuron reads them. How much room there was before shows in the last digits alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

from boundflow_core.arrays import device_of
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.runner import ProgramRunner
from boundflow_core.walk import forward_states
from boundflow_core.workshop import Workshop
from boundflow_crown.bounds import bound_rows
from boundflow_crown.layers import Layer, defined, inputs_of, neuron_start, tightened
from boundflow_crown.picking import pick, room_symbol, slot_numbers
from boundflow_crown.pieces import PIECE_ROWS, padded_count, rows_of_piece
from boundflow_crown.rows import Rows
from boundflow_interval import Interval

__all__ = ["Finish", "OneRun", "Rooms", "one_run_program"]

# finish(workshop, builder, region, bounds by name) -> further results, from bounds of all values of the network.
Finish = Callable[[Workshop, Builder, Interval, Mapping[str, Interval]], Mapping[str, Value]]

# Calls whose numbers of undecided neurons are remembered, and how many times the room that they need there may be.
REMEMBERED, WASTE = 16, 1.5

# Values with no more neurons than this always have room for all: so few rows cost less than to prepare a program anew.
ALL = 64


def one_run_program(
    workshop: Workshop, b: Builder, layers: Sequence[Layer], finish: Finish | None = None
) -> dict[str, Value]:
    """Bounds ``lower:NAME`` and ``upper:NAME`` [1, *value] of all ``layers`` over one region.

    Inputs beside the region: ``slots:NAME``, the numbers 1..R, per value that is refined, in whose order ``counts``
    gives the numbers of undecided neurons; only where none is above its R do the results hold.
    """
    one = replace(workshop, regions=1)
    region = Interval(*one.region(b))
    known: dict[str, Interval] = {one.graph.input: region}
    by_name = {layer.name: layer for layer in layers}
    counts: list[Value] = []

    def settle(name: str, found: Interval) -> Interval:
        if name in by_name:
            found = defined(b, found)
            if by_name[name].shared is not None:
                found, count = _refined(one, b, by_name[name], region, known, found)
                counts.append(count)
            known[name] = found
        return found

    rules = one.rules["interval"]
    states = forward_states(b, one.graph, rules, region, domain="interval", settle=settle)
    found = {f"lower:{layer.name}": known[layer.name].lower for layer in layers}
    found |= {f"upper:{layer.name}": known[layer.name].upper for layer in layers}
    further = {} if finish is None else finish(one, b, region, states if one.options["intersect"] else known)
    return {**found, **further, "counts": b.concat(counts, 0)}


def _refined(
    one: Workshop, b: Builder, layer: Layer, region: Interval, known: Mapping[str, Interval], old: Interval
) -> tuple[Interval, Value]:
    """Bounds of the layer's value from those by intervals, and the number [1] of undecided neurons."""
    lower, upper = (b.reshape(side, (layer.neurons,)) for side in (old.lower, old.upper))
    with b.origin(layer.name):
        picked = pick(b, layer, Interval(lower, upper), every=one.options["refine"] == "all")
    layout = Rows(b, (1, room_symbol(layer)))
    start = neuron_start(b, one.graph, layer.name, picked.neuron, layout)
    low, high = bound_rows(b, one.graph, one.rules["linear"], region, start, known, one.options)
    assert high is not None
    with b.origin(layer.name):
        low, high = (picked.spread(b.reshape(side, (room_symbol(layer),))) for side in (low, high))
        low, high = tightened(b, Interval(lower, upper) if one.options["intersect"] else None, low, high)
        low, high = b.where(picked.loose, low, lower), b.where(picked.loose, high, upper)
        shape = (1, *layer.shape)
        return Interval(b.reshape(low, shape), b.reshape(high, shape)), picked.count()


class Rooms:
    """How many rows there is room for, per value, from how many were needed lately. Used under a lock.

    Args:
        neurons: the numbers of neurons, which no room exceeds.
    """

    def __init__(self, neurons: Sequence[int]) -> None:
        self._neurons = tuple(neurons)
        self._lately: deque[tuple[int, ...]] = deque(maxlen=REMEMBERED)
        self.now: tuple[int, ...] | None = None

    def learn(self, counts: Sequence[int]) -> None:
        """Notes the rows that a call needed: makes more room where there is too little, and less where for many calls
        much was not needed."""
        self._lately.append(tuple(counts))
        if self.now is None:
            self.now = self._for(counts)
            return
        if any(count > room for count, room in zip(counts, self.now, strict=True)):
            self.now = self.grown(self.now, counts)
        if len(self._lately) == REMEMBERED and sum(self.now) > WASTE * sum(counts):
            wanted = self._for([max(column) for column in zip(*self._lately, strict=True)])
            if sum(self.now) > WASTE * sum(wanted):
                self.now = wanted

    def grown(self, rooms: Sequence[int], counts: Sequence[int]) -> tuple[int, ...]:
        """``rooms``, but where there are more rows, room for these and some more."""
        wanted = self._for(counts)
        return tuple(r if c <= r else w for r, c, w in zip(rooms, counts, wanted, strict=True))

    def _for(self, counts: Sequence[int]) -> tuple[int, ...]:
        """Room for an eighth more, since regions differ, rounded up as all numbers of rows are."""
        return tuple(
            n if n <= ALL else min(padded_count(max(1, c + c // 8)), n)
            for c, n in zip(counts, self._neurons, strict=True)
        )


class OneRun:
    """Bounds of one region by :func:`one_run_program`, once a run in stages has told how many rows they need."""

    def __init__(self, workshop: Workshop, layers: Sequence[Layer], finish: Finish | None) -> None:
        self.runner: ProgramRunner = workshop.runner(
            "crown", lambda b: one_run_program(workshop, b, layers, finish), cuts=()
        )
        self._layers = tuple(layer for layer in layers if layer.shared is not None)
        self._limit = workshop.planning.memory_limit if workshop.planning is not None else None
        self._rooms = Rooms([layer.neurons for layer in self._layers])
        self._slots: tuple[Any, dict[str, Any]] = (None, {})  # of the latest rooms
        self._lock = Lock()

    def learn(self, counts: Mapping[str, int]) -> None:
        """Notes how many rows a call needed of each value."""
        with self._lock:
            self._rooms.learn([counts[layer.name] for layer in self._layers])

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The results, or None where nothing is known of the rows, or they are too many for one run."""
        with self._lock:
            rooms = self._rooms.now
        while rooms is not None and self._fits(rooms, inputs):
            results = self.runner(inputs_of(self.runner, {**inputs, **self._slots_for(rooms, inputs["lower"])}))
            counts = results.pop("counts").tolist()
            if all(count <= room for count, room in zip(counts, rooms, strict=True)):
                with self._lock:
                    self._rooms.learn(counts)
                return results
            rooms = self._rooms.grown(rooms, counts)
        return None

    def _fits(self, rooms: Sequence[int], inputs: Mapping[str, Any]) -> bool:
        for layer, room in zip(self._layers, rooms, strict=True):
            # Fewer rows always fit; asking would plan what may never be needed.
            if room > PIECE_ROWS and layer.shared is not None and room > rows_of_piece(layer.shared, 1):
                return False
        if self._limit is None:
            return True
        sizes = {f"R:{layer.name}": room for layer, room in zip(self._layers, rooms, strict=True)}
        if "C" in inputs:
            sizes["S"] = int(inputs["C"].shape[1])
        return self.runner.peak_bytes(sizes) <= self._limit

    def _slots_for(self, rooms: tuple[int, ...], sample: Any) -> dict[str, Any]:
        """``slots:NAME`` of all layers, arrays of the kind of ``sample``."""
        key, known = (rooms, type(sample), device_of(sample)), self._slots
        if known[0] != key:
            named = zip(self._layers, rooms, strict=True)
            known = self._slots = key, {f"slots:{layer.name}": slot_numbers(room, sample) for layer, room in named}
        return known[1]
