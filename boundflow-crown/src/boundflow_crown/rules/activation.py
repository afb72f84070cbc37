"""Functions of one operand: rows with a positive coefficient take the lower line, the others the upper one."""

from __future__ import annotations

from boundflow_core.ir.program import Value
from boundflow_crown.composites import BACKSUBSTITUTE, RELU_BACKSUBSTITUTE
from boundflow_crown.lines import Lines, Relaxation
from boundflow_crown.walk import BackwardContext, BackwardRule, Step

__all__ = ["relaxed", "substitute"]


def substitute(
    ctx: BackwardContext, rows: Value, lines: Lines, slope: Value | None = None
) -> tuple[Value, Value | None]:
    """Rows on the operand, and the bias, from below.

    Args:
        slope: each row's slope of a lower line through the origin, one that the function allows.
    """
    b, lift, front = ctx.b, ctx.rows.lift, len(ctx.rows.front)
    upper_bias = lines.upper_bias if lines.upper_bias is not None else lines.upper_slope * 0.0
    if lines.lower_bias is None or slope is not None:
        below, bias = b.emit(
            RELU_BACKSUBSTITUTE,
            rows,
            lift(lines.lower_slope) if slope is None else slope,
            lift(lines.upper_slope),
            lift(upper_bias),
            front=front,
        )
    else:
        below, bias = b.emit(
            BACKSUBSTITUTE,
            rows,
            lift(lines.lower_slope),
            lift(lines.lower_bias),
            lift(lines.upper_slope),
            lift(upper_bias),
            front=front,
        )
    return below, bias


def relaxed(relaxation: Relaxation) -> BackwardRule:
    """The backward rule of a function with this relaxation."""

    def rule(ctx: BackwardContext, rows: Value) -> Step:
        constants = tuple(ctx.constant(number) for number in range(1, len(ctx.node.inputs)))
        lines = relaxation(ctx.b, ctx.interval(0), ctx.attrs, constants, ctx.options)
        below, bias = substitute(ctx, rows, lines, ctx.slopes(ctx))
        return Step({0: below}, bias)

    return rule
