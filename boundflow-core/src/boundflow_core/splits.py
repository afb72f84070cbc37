"""Split states: on which side of zero the inputs of activations are, by assumption, in each subproblem of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ACTIVE", "INACTIVE", "UNDECIDED", "SplitState"]

Array = NDArray[Any]

INACTIVE, UNDECIDED, ACTIVE = -1, 0, 1


@dataclass(frozen=True, eq=False)
class SplitState:
    """What a batch of subproblems assumes: of neurons that are ACTIVE that their value, before the activation, is at
    least 0, of INACTIVE ones that it is at most 0. The children of a split share the border, so nothing is lost.

    Attributes:
        signs: by the value's name, [B, *value] int8.
    """

    signs: Mapping[str, Array]

    @staticmethod
    def undecided(shapes: Mapping[str, tuple[int, ...]], count: int) -> SplitState:
        """``count`` subproblems that assume nothing, for values of these shapes."""
        return SplitState({name: np.zeros((count, *shape), dtype=np.int8) for name, shape in shapes.items()})

    def __len__(self) -> int:
        return len(next(iter(self.signs.values()))) if self.signs else 0

    def __getitem__(self, index: Any) -> SplitState:
        """The subproblems that an index array, a mask or a slice picks out."""
        return SplitState({name: signs[index] for name, signs in self.signs.items()})

    @staticmethod
    def joined(*parts: SplitState) -> SplitState:
        """Those of all ``parts``, one after another."""
        return SplitState({name: np.concatenate([part.signs[name] for part in parts]) for name in parts[0].signs})

    def child(self, name: str, neuron: Array, sign: int) -> SplitState:
        """With one more assumption each: on the flat ``neuron`` [B] of the value ``name``."""
        signs = self.signs[name].copy()
        signs.reshape(len(signs), -1)[np.arange(len(signs)), neuron] = sign
        return SplitState({**self.signs, name: signs})

    @property
    def depth(self) -> Array:
        """How many assumptions there are, [B]."""
        counts = [np.count_nonzero(signs.reshape(len(signs), -1), axis=1) for signs in self.signs.values()]
        return np.asarray(np.sum(counts, axis=0))

    def clip(self, name: str, lower: Array, upper: Array) -> tuple[Array, Array]:
        """Bounds [B or 1, *value] of the value ``name`` within what is assumed; they cross where nothing is left.

        Nothing is rounded.
        """
        if name not in self.signs:
            return lower, upper
        signs, zero = self.signs[name], lower.dtype.type(0)
        return (
            np.where(signs == ACTIVE, np.maximum(lower, zero), lower),
            np.where(signs == INACTIVE, np.minimum(upper, zero), upper),
        )

    def empty(self, bounds: Mapping[str, tuple[Array, Array]]) -> Array:
        """Which subproblems [B] hold no point at all, as bounds (lower, upper) [B or 1, *value] by name show."""
        found = np.zeros(len(self), dtype=np.bool_)
        for name in self.signs:
            if name in bounds:
                lower, upper = self.clip(name, *bounds[name])
                found |= (lower > upper).reshape(len(found), -1).any(axis=1)
        return found
