"""Bounds of rows on a value: the walk back to the input, and the least value there over the region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.program import Value
from boundflow_crown.composites import CONCRETIZE_BALL, CONCRETIZE_BOX
from boundflow_crown.domain import RULES, is_relaxed
from boundflow_crown.rows import Rows
from boundflow_crown.rules.windowed import WINDOW_RULES
from boundflow_crown.walk import BackwardRule, SlopeChoice, Start, relaxation_slopes, walk_back
from boundflow_crown.windows import WindowRows
from boundflow_interval import Interval

__all__ = ["bound_rows", "least"]


def bound_rows(
    b: Builder,
    graph: PrimalGraph,
    rules: Mapping[str, BackwardRule],
    region: Interval,
    start: Start,
    intervals: Mapping[str, Interval],
    options: Mapping[str, Any],
    *,
    both: bool = True,
    linear: dict[str, Value] | None = None,
) -> tuple[Value, Value | None]:
    """Lower and upper bounds [*front] of rows over the region; no upper ones unless ``both`` are wanted.

    Args:
        linear: see :func:`least`.
    """
    found = least(b, graph, rules, region, start, intervals, options, both=both, linear=linear)
    if not both:
        return found, None
    lower, negated = start.layout.halves(found)
    return lower, -negated


def least(
    b: Builder,
    graph: PrimalGraph,
    rules: Mapping[str, BackwardRule],
    region: Interval,
    start: Start,
    intervals: Mapping[str, Interval],
    options: Mapping[str, Any],
    slopes: SlopeChoice = relaxation_slopes,
    *,
    both: bool = True,
    extra: Mapping[str, Value] | None = None,
    seen: dict[str, Value] | None = None,
    linear: dict[str, Value] | None = None,
) -> Value:
    """Lower bounds of rows and of the negated rows over the region, in the layout of mirrored rows.

    Args:
        both: whether the negated rows are wanted; without them the rows' own layout is kept.
        slopes: slopes of lower lines, see :class:`boundflow_crown.walk.BackwardContext`.
        extra, seen: rows to add on the way, and rows met, see :func:`boundflow_crown.walk.walk_back`.
        linear: takes the linear functions of the input whose least values these are: ``A`` [*front, *input] and ``b``
            [*front]. Rows are not walked back as windows then.
    """
    rows, bias, layout = walk_back(
        b,
        graph,
        rules,
        lambda node: is_relaxed(graph, node),
        start,
        intervals,
        options,
        both=both,
        slopes=slopes,
        extra=extra,
        seen=seen,
        windowed=None
        if linear is not None
        else {op: rule for op, rule in WINDOW_RULES.items() if rules.get(op) is RULES[op]},
    )
    if region.ball is not None:
        rows = layout.inside(rows, graph.input_type.shape)
    if linear is not None:
        linear["A"] = rows
        linear["b"] = bias if bias is not None else b.broadcast(b.constant(0.0), layout.front)
    found = layout.merged(_least_of_rows(b, region, rows, layout))
    return found + bias if bias is not None else found


def _least_of_rows(b: Builder, region: Interval, rows: Value, layout: Rows | WindowRows) -> Value:
    """The least values [*front] of rows over the region."""
    front, ball = len(layout.front), region.ball
    if ball is not None:
        center, radius = layout.lift(ball.center), layout.lift(ball.radius)
        return b.emit(CONCRETIZE_BALL, rows, center, radius, front=front, p=ball.p)[0]
    half_lower, half_upper = region.lower * 0.5, region.upper * 0.5
    center, radius = layout.lift(half_lower + half_upper), layout.lift(half_upper - half_lower)
    return b.emit(CONCRETIZE_BOX, rows, center, radius, front=front)[0]
