"""The neurons that a search may split, in one row of numbers: how subproblems are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.splits import SplitState

__all__ = ["Neurons", "bias_of"]

Array = NDArray[Any]
Bounds = Mapping[str, tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Neurons:
    """N neurons of some values, those of a value one after another.

    Attributes:
        shapes: shapes of the values that can be split, by name.
        places: numbers of the chosen neurons in each flattened value.
    """

    shapes: Mapping[str, tuple[int, ...]]
    places: Mapping[str, Array]

    @staticmethod
    def undecided(shapes: Mapping[str, tuple[int, ...]], bounds: Bounds) -> Neurons:
        """Those with bounds [B, *value] on both sides of zero in any of the boxes."""
        places = {}
        for name in shapes:
            lower, upper = bounds[name]
            loose = ((lower < 0) & (upper > 0)).reshape(len(lower), -1).any(axis=0)
            places[name] = np.flatnonzero(loose)
        return Neurons(shapes, places)

    def __len__(self) -> int:
        return sum(map(len, self.places.values()))

    def picked(self, arrays: Mapping[str, Array]) -> Array:
        """Of arrays [*lead, *value] by name the chosen neurons: [*lead, N]."""
        parts = []
        for name, places in self.places.items():
            lead = arrays[name].ndim - len(self.shapes[name])
            parts.append(arrays[name].reshape(*arrays[name].shape[:lead], -1)[..., places])
        return np.concatenate(parts, axis=-1)

    def spread(self, row: Array, rest: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """The inverse: arrays [*lead, *value] from ``row`` [*lead, N], with ``rest`` (broadcast) elsewhere, or 0."""
        found, start = {}, 0
        for name, places in self.places.items():
            shape = (*row.shape[:-1], *self.shapes[name])
            if rest is None:
                full = np.zeros(shape, dtype=row.dtype)
            else:
                full = np.array(np.broadcast_to(rest[name], shape), dtype=row.dtype)
            full.reshape(*row.shape[:-1], -1)[..., places] = row[..., start : start + len(places)]
            found[name], start = full, start + len(places)
        return found

    def value_of(self, number: int) -> str:
        """The name of the value that the neuron ``number`` is of."""
        for name, places in self.places.items():
            if number < len(places):
                return name
            number -= len(places)
        raise IndexError(number)

    def split(self, signs: Array) -> SplitState:
        """The assumptions ``signs`` [B, N]."""
        return SplitState(self.spread(signs))


def bias_of(graph: PrimalGraph, neurons: Neurons) -> Array:
    """What the operator before each neuron adds, [N]; 0 where it is none that adds a constant."""
    found = {}
    for name, shape in neurons.shapes.items():
        node = graph.producer(name)
        bias: Array = np.zeros(())
        if node is not None and node.op in ("linear", "conv2d") and len(node.inputs) == 3:
            bias = graph.constants[node.inputs[2]].numpy()
            bias = bias.reshape(-1, 1, 1) if node.op == "conv2d" else bias
        found[name] = np.broadcast_to(bias, shape)
    return neurons.picked(found)
