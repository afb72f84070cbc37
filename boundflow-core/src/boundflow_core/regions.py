"""Input regions: the sets of inputs over which bounds hold. All are batched: axis 0 counts regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from boundflow_core.errors import InputError
from boundflow_core.ir.constants import as_numpy

__all__ = ["Box", "LpBall", "Region"]


@dataclass(frozen=True, eq=False)
class Box:
    """All x with ``lower <= x <= upper``, element by element.

    Attributes:
        lower, upper: arrays (NumPy or torch) [B, *input] or, for one region, [*input].

    Raises:
        InputError: shapes differ, a value is not finite, or lower exceeds upper somewhere.
    """

    lower: Any
    upper: Any

    def __post_init__(self) -> None:
        lower, upper = _finite(self.lower, "lower"), _finite(self.upper, "upper")
        if lower.shape != upper.shape:
            raise InputError(f"lower has shape {list(lower.shape)} but upper {list(upper.shape)}")
        crossed = lower > upper
        if crossed.any():
            index = tuple(int(i) for i in np.argwhere(crossed)[0])
            raise InputError(
                f"lower exceeds upper in {int(crossed.sum())} of {crossed.size} elements, first at index {index}: "
                f"{lower[index]} > {upper[index]}"
            )


@dataclass(frozen=True, eq=False)
class LpBall:
    """All x with ``||x - center||_p <= eps``.

    Attributes:
        center: array (NumPy or torch) [B, *input] or, for one region, [*input].
        eps: radius, a number or one per region [B].
        p: 1, 2 or infinity.

    Raises:
        InputError: a value is not finite, a radius is negative, or p is another norm.
    """

    center: Any
    eps: Any
    p: float = float("inf")

    def __post_init__(self) -> None:
        center, eps = _finite(self.center, "center"), _finite(self.eps, "eps")
        if self.p not in (1, 2, float("inf")):
            raise InputError(f"p must be 1, 2 or infinity, not {self.p}")
        if (eps < 0).any():
            raise InputError(f"eps must not be negative, but is {eps.min()}")
        if eps.ndim > 1 or (eps.ndim == 1 and (center.ndim == 0 or eps.shape[0] != center.shape[0])):
            raise InputError(f"eps must be a number or one per region, not of shape {list(eps.shape)}")


Region = Box | LpBall


def _finite(values: Any, what: str) -> np.ndarray[Any, Any]:
    try:
        array = as_numpy(values)
        if array.dtype.kind not in "fiub":
            raise TypeError
    except (TypeError, ValueError):
        raise InputError(f"{what} must be an array of numbers") from None
    if not np.isfinite(array).all():
        raise InputError(f"{what} holds values that are not finite (NaN or infinity)")
    return array
