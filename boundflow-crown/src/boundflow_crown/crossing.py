"""Bounds of one value that cross: by rounding where they meet, or because something is wrong."""

from __future__ import annotations

import numpy as np

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import DType

__all__ = ["CROSSING", "settled"]

# How far a lower bound may lie above the upper one, as a part of the upper one's size, or of 1 where it is smaller:
# 8192 units in the last place. One long float32 sum of terms that cancel was seen 1.2e-4 off (1000 units), both bounds
# can be, in opposite directions, and four times that is left to spare. What crosses by more is no rounding.
CROSSING = {DType.FLOAT32: 2.0**-10, DType.FLOAT64: 2.0**-39}


def settled(b: Builder, lower: Value, upper: Value) -> tuple[Value, Value]:
    """The bounds in order where they cross by rounding; infinite ones where they cross by more or are undefined."""
    allowed = b.maximum(b.abs(upper), 1.0) * CROSSING[b.dtype]
    # Comparisons with NaN, and of infinite bounds with themselves, are false. A bound may always be given up.
    sound = b.compare(lower - upper, allowed, "lt", free=True)
    return b.where(sound, b.minimum(lower, upper), -np.inf), b.where(sound, b.maximum(lower, upper), np.inf)
