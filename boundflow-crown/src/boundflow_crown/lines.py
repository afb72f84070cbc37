"""Linear relaxations: a line below and a line above a function over an interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs
from boundflow_interval import Interval

__all__ = ["Lines", "Relaxation"]


@dataclass(frozen=True)
class Lines:
    """``lower_slope x + lower_bias <= f(x) <= upper_slope x + upper_bias`` for all x of an interval, elementwise.

    All are [B, *sample]. A bias that is None is zero everywhere.
    """

    lower_slope: Value
    lower_bias: Value | None
    upper_slope: Value
    upper_bias: Value | None


# relaxation(builder, interval of the operand, attributes of the operator, further constant operands, options) -> lines
Relaxation = Callable[[Builder, Interval, Attrs, "tuple[Value, ...]", Mapping[str, Any]], Lines]
