"""Interval bounds for BoundFlow: the domain ``interval`` and the method ``ibp``.

What other distributions may use: the state, the domain with its table of rules, the method, the composites, and the
folding of specification rows.
"""

from __future__ import annotations

from boundflow_interval.composites import (
    COMPOSITES,
    INTERVAL_CONV2D,
    INTERVAL_CONV2D_INPUT_GRAD,
    INTERVAL_MATMUL,
    SPEC_LINEAR,
)
from boundflow_interval.domain import INTERVAL
from boundflow_interval.interval import Interval
from boundflow_interval.method import IBP
from boundflow_interval.spec import apply_rows, fold_rows

__all__ = [
    "COMPOSITES",
    "IBP",
    "INTERVAL",
    "INTERVAL_CONV2D",
    "INTERVAL_CONV2D_INPUT_GRAD",
    "INTERVAL_MATMUL",
    "SPEC_LINEAR",
    "Interval",
    "apply_rows",
    "fold_rows",
]
