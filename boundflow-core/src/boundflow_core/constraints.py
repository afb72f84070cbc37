"""Constraint stores: what subproblems take for granted besides splits, as linear constraints on values of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.errors import InputError

__all__ = ["ConstraintStore"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ConstraintStore:
    """A batch of conjunctions: ``A v + b <= 0`` for flattened values v of the network.

    Where a row that follows from them is positive, no point is left, so a bound of it above 0 closes a subproblem.

    Attributes:
        rows: by the value's name, A [B, K, n] and b [B, K], float64. Rows of zeros, 0 <= 0, say nothing: they stand
            where a subproblem has fewer constraints than others.

    Raises:
        InputError: shapes do not fit together.
    """

    rows: Mapping[str, tuple[Array, Array]]

    def __post_init__(self) -> None:
        for name, (A, b) in self.rows.items():
            if A.ndim != 3 or b.shape != A.shape[:2]:
                raise InputError(
                    f"constraints on {name}: A must be [B, K, n] and b [B, K], not {A.shape} and {b.shape}"
                )
        if len({len(A) for A, _ in self.rows.values()}) > 1:
            raise InputError("constraints on several values must be of the same subproblems")

    def __len__(self) -> int:
        return len(next(iter(self.rows.values()))[0]) if self.rows else 0

    def __getitem__(self, index: Any) -> ConstraintStore:
        """The subproblems that an index array, a mask or a slice picks out."""
        return ConstraintStore({name: (A[index], b[index]) for name, (A, b) in self.rows.items()})

    def summed(self, name: str) -> tuple[Array, Array]:
        """A row C [B, n], d [B] that follows from those on the value ``name``: ``C v + d <= 0``, their sum.

        It follows in exact arithmetic too: where the sum of coefficients is not exact in float64, C and d are zeros;
        d is rounded downwards.
        """
        A, b = self.rows[name]
        C, d = np.zeros_like(A[:, 0]), np.zeros_like(b[:, 0])
        exact = np.ones(len(A), dtype=np.bool_)
        for number in range(A.shape[1]):
            C, lost = _two_sum(C, A[:, number])
            exact &= (lost == 0).all(axis=1)
            d, lost = _two_sum(d, b[:, number])
            d = np.where(lost < 0, np.nextafter(d, -np.inf), d)
        return np.where(exact[:, None], C, 0.0), np.where(exact, d, 0.0)


def _two_sum(x: Array, y: Array) -> tuple[Array, Array]:
    """The rounded sum, and exactly what rounding took from it (Knuth, The Art of Computer Programming 2, 4.2.2)."""
    total = x + y
    of_y = total - x
    return total, (x - (total - of_y)) + (y - of_y)
