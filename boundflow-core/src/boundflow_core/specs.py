"""Output specifications: linear functions of the outputs whose bounds are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from boundflow_core.errors import InputError
from boundflow_core.regions import _finite

__all__ = ["LinearSpec"]


@dataclass(frozen=True, eq=False)
class LinearSpec:
    """Rows ``C y + offset`` on the outputs y (flattened, n of them).

    Rows and offsets are rounded to the nearest numbers of the computation's element type: in float32 the bounds are
    those of the rounded rows. Region corners, in contrast, are rounded outwards.

    Attributes:
        C: specification rows, [S, n] for all regions or [B, S, n], one set per region.
        offset: [S] or [B, S]; zero if absent.

    Raises:
        InputError: wrong number of axes, shapes that do not match, values that are not finite.
    """

    C: Any
    offset: Any = None

    def __post_init__(self) -> None:
        rows = _finite(self.C, "C")
        if rows.ndim not in (2, 3):
            raise InputError(f"C must have shape [S, n] or [B, S, n], not {list(rows.shape)}")
        if rows.shape[-2] == 0:
            raise InputError("C has no rows")
        if self.offset is not None:
            offset = _finite(self.offset, "offset")
            if offset.shape not in (rows.shape[:-1], rows.shape[-2:-1]):
                raise InputError(f"offset must have shape {list(rows.shape[:-1])}, not {list(offset.shape)}")

    @property
    def rows(self) -> int:
        """Number of specification rows S."""
        return int(np.shape(self.C)[-2])
