"""Which neurons of a value get a backward pass, found by a program that has room for so many rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from boundflow_core.arrays import like
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import frozen
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import DType, SymDim
from boundflow_crown.layers import Layer
from boundflow_interval import Interval

__all__ = ["Picked", "is_loose", "pick", "room_symbol", "slot_numbers"]


def is_loose(lower: Any, upper: Any, *, hinged: bool) -> Any:
    """Which of these bounds, arrays of either kind, leave a relaxation something to lose; undefined ones do."""
    return (lower < 0) & (upper > 0) if hinged else ~(lower >= upper)


def room_symbol(layer: Layer) -> SymDim:
    """The number of rows that a program has room for at the layer."""
    return SymDim.of(f"R:{layer.name}")


def slot_numbers(room: int, sample: Any) -> Any:
    """What programs take as ``slots``: 1..``room``, an array of the kind of ``sample``."""
    return like(np.arange(1, room + 1), sample)


@dataclass(frozen=True)
class Picked:
    """Neurons [R] of a value [n] that get a row each, in ascending order; rows too many are those of its last neuron.

    Attributes:
        loose: which neurons are wanted [n].
        so_far: how many are, up to each [n]; the last number must not exceed R.
        neuron: their numbers [R].
        slots: 1..R.
    """

    b: Builder
    loose: Value
    so_far: Value
    neuron: Value
    slots: Value

    def spread(self, rows: Value) -> Value:
        """What ``rows`` [R] hold for the neurons picked, at their places [n]; elsewhere anything of it."""
        return self.b.gather_rows(rows, self.b.first_reaching(self.slots, self.so_far))

    def count(self) -> Value:
        """How many neurons are wanted [1]."""
        last = self.so_far.shape[0]
        assert isinstance(last, int)
        return self.b.slice(self.so_far, (last - 1,), (last,), (1,))


def pick(b: Builder, layer: Layer, bounds: Interval, *, every: bool) -> Picked:
    """Picks the neurons of one region that a relaxation would loosen by their ``bounds`` [n], or every one.

    Takes the input ``slots:NAME``, the numbers 1..R.
    """
    slots = b.input(f"slots:{layer.name}", (room_symbol(layer),), DType.INT64, group="choice")
    loose = _loose(b, layer, bounds.lower, bounds.upper, every=every)
    so_far = b.running_count(loose)
    return Picked(b, loose, so_far, b.first_reaching(so_far, slots), slots)


def _loose(b: Builder, layer: Layer, lower: Value, upper: Value, *, every: bool) -> Value:
    """Which neurons a relaxation would loosen [n], as :func:`is_loose` says it."""
    if every:
        return b.constant(frozen(np.ones(layer.neurons, dtype=np.bool_)))
    if layer.hinged:
        return b.minimum(lower < 0.0, upper > 0.0)
    return b.where(lower >= upper, 0.0, 1.0) > 0.5  # undefined bounds are loose ones
