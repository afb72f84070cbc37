"""The method ``ibp``: intervals propagated forward through the network."""

from __future__ import annotations

from boundflow_core.extension import Method, MethodContext
from boundflow_core.ir.program import Value
from boundflow_core.walk import forward_states
from boundflow_interval.interval import Interval
from boundflow_interval.spec import apply_rows, fold_rows

__all__ = ["IBP"]


def emit(ctx: MethodContext) -> tuple[Value, Value]:
    """Bounds of the outputs, or of specification rows folded into the last affine operators."""
    region = Interval(*ctx.region)
    states: dict[str, Interval] = forward_states(ctx.b, ctx.graph, ctx.rules["interval"], region, domain="interval")
    if ctx.spec is None:
        output = states[ctx.graph.output]
        return output.lower, output.upper
    name, rows = fold_rows(ctx.b, ctx.graph, ctx.spec)
    return apply_rows(ctx.b, states[name], rows)


IBP = Method("ibp", "interval bound propagation, forward: quick and loose", domains=("interval",), emit=emit)
