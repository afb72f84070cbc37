"""The methods of the CROWN family."""

from __future__ import annotations

import numpy as np

from boundflow_core.extension import Method, MethodContext
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import size
from boundflow_core.walk import forward_states
from boundflow_crown.bounds import bound_rows
from boundflow_crown.rows import Rows
from boundflow_crown.walk import Start
from boundflow_interval import Interval, apply_rows, fold_rows

__all__ = ["CROWN_IBP"]


def output_start(ctx: MethodContext) -> Start:
    """The walk's start at the network's output: specification rows, or one row per output."""
    b, shape = ctx.b, ctx.graph.output_type.shape
    batch, count = ctx.lower.shape[0], size(shape)
    if ctx.spec is None:
        assert isinstance(count, int)
        rows = b.constant(np.eye(count).reshape(1, count, *map(int, shape)))  # type: ignore[arg-type]
        rows, bias = b.broadcast(rows, (batch, count, *shape)), None
        return Start(ctx.graph.output, rows, bias, Rows(b, (batch, count)))
    number = ctx.spec.C.shape[1]
    rows = b.broadcast(b.reshape(ctx.spec.C, (ctx.spec.C.shape[0], number, *shape)), (batch, number, *shape))
    return Start(ctx.graph.output, rows, b.broadcast(ctx.spec.offset, (batch, number)), Rows(b, (batch, number)))


def crown_ibp(ctx: MethodContext) -> tuple[Value, Value]:
    """All bounds that relaxations need by intervals, then one walk back from the output."""
    region = Interval(ctx.lower, ctx.upper)
    states: dict[str, Interval] = forward_states(ctx.b, ctx.graph, ctx.rules["interval"], region, domain="interval")
    lower, upper = bound_rows(
        ctx.b, ctx.graph, ctx.rules["linear"], region, output_start(ctx), states, ctx.options
    )
    if ctx.options["intersect"]:
        by_intervals = _interval_bounds(ctx, states)
        lower, upper = tighter(ctx, (lower, upper), by_intervals)
    if ctx.spec is None:
        shape = (lower.shape[0], *ctx.graph.output_type.shape)
        lower, upper = ctx.b.reshape(lower, shape), ctx.b.reshape(upper, shape)
    return lower, upper


def _interval_bounds(ctx: MethodContext, states: dict[str, Interval]) -> tuple[Value, Value]:
    if ctx.spec is None:
        output = states[ctx.graph.output]
        flat = (output.lower.shape[0], size(ctx.graph.output_type.shape))
        return ctx.b.reshape(output.lower, flat), ctx.b.reshape(output.upper, flat)
    name, rows = fold_rows(ctx.b, ctx.graph, ctx.spec)
    return apply_rows(ctx.b, states[name], rows)


def tighter(ctx: MethodContext, one: tuple[Value, Value], other: tuple[Value, Value]) -> tuple[Value, Value]:
    """The intersection of two bounds; one that is NaN counts for nothing."""
    b = ctx.b

    def known(bound: Value, instead: float) -> Value:
        return b.where(b.compare(bound, bound, "eq"), bound, instead)

    lower = b.maximum(known(one[0], -np.inf), known(other[0], -np.inf))
    return lower, b.minimum(known(one[1], np.inf), known(other[1], np.inf))


CROWN_IBP = Method(
    "crown-ibp",
    "one backward pass over interval bounds",
    domains=("interval", "linear"),
    emit=crown_ibp,
    options={"slope": "adaptive", "intersect": True},
    rank=10,
)
