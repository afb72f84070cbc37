"""Bounds of rows on a value: the walk back to the input, and the least value there over the region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.program import Value
from boundflow_crown.composites import CONCRETIZE_BOX
from boundflow_crown.domain import is_relaxed
from boundflow_crown.walk import BackwardRule, Start, walk_back
from boundflow_interval import Interval

__all__ = ["bound_rows"]


def bound_rows(
    b: Builder,
    graph: PrimalGraph,
    rules: Mapping[str, BackwardRule],
    region: Interval,
    start: Start,
    intervals: Mapping[str, Interval],
    options: Mapping[str, Any],
) -> tuple[Value, Value]:
    """Lower and upper bounds [*front] of rows over the region."""
    rows, bias, layout = walk_back(
        b, graph, rules, lambda node: is_relaxed(graph, node), start, intervals, options, both=True
    )
    half_lower, half_upper = region.lower * 0.5, region.upper * 0.5
    (least,) = b.emit(
        CONCRETIZE_BOX,
        rows,
        layout.lift(half_lower + half_upper),
        layout.lift(half_upper - half_lower),
        front=len(layout.front),
    )
    least = least + bias if bias is not None else least
    lower, negated = start.layout.halves(least)
    return lower, -negated
