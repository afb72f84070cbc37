"""Split states: where the inputs of activations are, by assumption, in each subproblem of a search."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ACTIVE", "INACTIVE", "UNDECIDED", "SplitState"]

Array = NDArray[Any]

INACTIVE, UNDECIDED, ACTIVE = -1, 0, 1


@dataclass(frozen=True, eq=False)
class SplitState:
    """What a batch of subproblems assumes.

    Some values are split at zero: of neurons that are ACTIVE it is assumed that their value, before the activation, is
    at least 0, of INACTIVE ones that it is at most 0. Others are split at any points: it is assumed that a neuron's
    value lies between two ends. The children of a split share the border, so nothing is lost.

    Attributes:
        signs: by the name of a value split at zero, [B, *value] int8.
        ends: by the name of a value split at points, two arrays [B, *value] float32; infinite where nothing is assumed.
            No number is rounded on its way to bounds in float64.
    """

    signs: Mapping[str, Array]
    ends: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)

    @staticmethod
    def undecided(shapes: Mapping[str, tuple[int, ...]], count: int, at_points: Collection[str] = ()) -> SplitState:
        """``count`` subproblems that assume nothing, for values of these shapes, some of them split ``at_points``."""
        full = {name: (count, *shape) for name, shape in shapes.items()}
        low, high = np.float32(-np.inf), np.float32(np.inf)
        return SplitState(
            {name: np.zeros(shape, dtype=np.int8) for name, shape in full.items() if name not in at_points},
            {name: (np.full(full[name], low), np.full(full[name], high)) for name in full if name in at_points},
        )

    def __len__(self) -> int:
        arrays = [*self.signs.values(), *(low for low, _ in self.ends.values())]
        return len(arrays[0]) if arrays else 0

    def __getitem__(self, index: Any) -> SplitState:
        """The subproblems that an index array, a mask or a slice picks out."""
        return SplitState(
            {name: signs[index] for name, signs in self.signs.items()},
            {name: (low[index], high[index]) for name, (low, high) in self.ends.items()},
        )

    @staticmethod
    def joined(*parts: SplitState) -> SplitState:
        """Those of all ``parts``, one after another."""
        first = parts[0]
        return SplitState(
            {name: np.concatenate([part.signs[name] for part in parts]) for name in first.signs},
            {
                name: (
                    np.concatenate([part.ends[name][0] for part in parts]),
                    np.concatenate([part.ends[name][1] for part in parts]),
                )
                for name in first.ends
            },
        )

    def of(self, names: Collection[str]) -> SplitState:
        """What is assumed of the values ``names`` alone."""
        return SplitState(
            {name: signs for name, signs in self.signs.items() if name in names},
            {name: pair for name, pair in self.ends.items() if name in names},
        )

    def child(self, name: str, neuron: Array, sign: int, point: Array | None = None) -> SplitState:
        """With one more assumption each: on the flat ``neuron`` [B] of the value ``name``.

        Args:
            sign: ACTIVE for what lies above, INACTIVE for what lies below.
            point: [B] float32, where a value that is split at points is split.
        """
        index = np.arange(len(self)), neuron
        if name in self.signs:
            signs = self.signs[name].copy()
            signs.reshape(len(signs), -1)[index] = sign
            return SplitState({**self.signs, name: signs}, self.ends)
        assert point is not None and point.dtype == np.float32
        low, high = (end.copy() for end in self.ends[name])
        end, nearer = (low, np.maximum) if sign == ACTIVE else (high, np.minimum)
        flat = end.reshape(len(end), -1)
        flat[index] = nearer(flat[index], point)
        return SplitState(self.signs, {**self.ends, name: (low, high)})

    @property
    def depth(self) -> Array:
        """How many assumptions hold, [B]; of several ends of one neuron on the same side only the nearest counts."""
        counts = [np.count_nonzero(signs.reshape(len(signs), -1), axis=1) for signs in self.signs.values()]
        for pair in self.ends.values():
            counts += [np.count_nonzero(np.isfinite(end).reshape(len(end), -1), axis=1) for end in pair]
        return np.asarray(np.sum(counts, axis=0))

    def clip(self, name: str, lower: Array, upper: Array) -> tuple[Array, Array]:
        """Bounds [B or 1, *value] of the value ``name`` within what is assumed; they cross where nothing is left.

        Nothing is rounded, if bounds are float32 or float64.
        """
        if name in self.ends:
            low, high = self.ends[name]
            return np.maximum(lower, low), np.minimum(upper, high)
        if name not in self.signs:
            return lower, upper
        signs = self.signs[name]
        return _moved(lower, signs == ACTIVE, np.maximum), _moved(upper, signs == INACTIVE, np.minimum)

    def empty(self, bounds: Mapping[str, tuple[Array, Array]]) -> Array:
        """Which subproblems [B] hold no point at all, as bounds (lower, upper) [B or 1, *value] by name show."""
        found = np.zeros(len(self), dtype=np.bool_)
        for name in (*self.signs, *self.ends):
            if name not in bounds:
                continue
            lower, upper = bounds[name]
            if name in self.signs:
                signs = self.signs[name]
                crossed = ((signs == ACTIVE) & (upper < 0)) | ((signs == INACTIVE) & (lower > 0)) | (lower > upper)
            else:
                lower, upper = self.clip(name, lower, upper)
                crossed = lower > upper
            found |= crossed.reshape(len(crossed), -1).any(axis=1)
        return found


def _moved(bound: Array, where: Array, nearer: Callable[[Array, Array], Array]) -> Array:
    """``bound`` [B or 1, *value] moved to 0, if that is ``nearer``, at the few places [B, *value] that are marked."""
    where = np.broadcast_to(where, np.broadcast_shapes(bound.shape, where.shape))
    found = np.array(np.broadcast_to(bound, where.shape))
    found[where] = nearer(found[where], found.dtype.type(0))
    return found
