"""The neurons that a search may split, in one row of numbers: how subproblems are stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.splits import SplitState

__all__ = ["Neurons", "bias_of"]

Array = NDArray[Any]
Bounds = Mapping[str, tuple[Array, Array]]

# Where the ends are when nothing is assumed.
ENDS = ((0, -np.inf), (1, np.inf))


@dataclass(frozen=True, eq=False)
class Neurons:
    """N neurons of some values, those of a value one after another.

    Attributes:
        shapes: shapes of the values that can be split, by name.
        places: numbers of the chosen neurons in each flattened value.
        curves: names of the values whose neurons are split at points; the others' are at zero.
    """

    shapes: Mapping[str, tuple[int, ...]]
    places: Mapping[str, Array]
    curves: frozenset[str] = frozenset()

    @staticmethod
    def undecided(
        shapes: Mapping[str, tuple[int, ...]], bounds: Bounds, curves: Collection[str] = frozenset()
    ) -> Neurons:
        """Those with bounds [B, *value] on both sides of zero in any of the boxes; of ``curves`` all but points."""
        places = {}
        for name in shapes:
            lower, upper = bounds[name]
            loose = lower < upper if name in curves else (lower < 0) & (upper > 0)
            places[name] = np.flatnonzero(loose.reshape(len(lower), -1).any(axis=0))
        return Neurons(shapes, places, frozenset(curves))

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

    @cached_property
    def bent(self) -> Array:
        """Which neurons are split at points, [N]."""
        sizes = [len(places) for places in self.places.values()]
        return np.repeat(np.array([name in self.curves for name in self.places], dtype=np.bool_), sizes)

    @cached_property
    def bends(self) -> Neurons:
        """The M neurons that are split at points."""
        return self._of([name for name in self.places if name in self.curves])

    def _of(self, names: Collection[str]) -> Neurons:
        return Neurons({n: self.shapes[n] for n in names}, {n: self.places[n] for n in names}, self.curves)

    def nowhere(self, count: int) -> Array:
        """Ends [B, 2, M] of ``count`` subproblems that assume nothing."""
        ends = np.full((count, 2, int(self.bent.sum())), np.inf, dtype=np.float32)
        ends[:, 0] = -np.inf
        return ends

    def split(self, signs: Array, ends: Array) -> SplitState:
        """The assumptions ``signs`` [B, N] and ``ends`` [B, 2, M]."""
        if not self.curves:
            return SplitState(self.spread(signs))
        bends, hinges = self.bends, self._of([name for name in self.places if name not in self.curves])
        low, high = (bends.spread(ends[:, i], dict.fromkeys(bends.places, np.full((), s))) for i, s in ENDS)
        signs = signs[:, ~self.bent]
        return SplitState(hinges.spread(signs), {name: (low[name], high[name]) for name in bends.places})

    def child(self, signs: Array, ends: Array, neuron: Array, sign: int, point: Array) -> tuple[Array, Array]:
        """``signs`` and ``ends`` with one more assumption each, about the numbers ``neuron`` [B]: above zero, or above
        ``point`` [B] where they are split there, if ``sign`` is 1, below if it is -1."""
        number, bent = np.arange(len(signs)), self.bent[neuron]
        signs = signs.copy()
        signs[number, neuron] = np.where(bent, 0, sign)
        if bent.any():
            ends, place = ends.copy(), np.cumsum(self.bent) - 1
            ends[number[bent], 0 if sign > 0 else 1, place[neuron[bent]]] = point[bent]
        return signs, ends


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
