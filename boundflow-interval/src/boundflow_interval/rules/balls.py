"""Affine operators on balls of the norm 1 or 2: their range by the dual norm, which lies within that of the box.

``max of w x over ||x - c||_p <= r`` is ``w c + r ||w||_q`` with 1/p + 1/q = 1 (Hölder's inequality, with equality).
"""

from __future__ import annotations

from boundflow_core.extension import BallValues, RuleContext
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal_ops import images
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Dim, divide, size
from boundflow_interval.interval import Interval

__all__ = ["conv2d_of_ball", "linear_of_ball", "moved"]


def moved(ctx: RuleContext, x: Interval, result: Interval) -> Interval:
    """``result``, of an operator that gives every element of ``x`` once, in another place: the ball moves along."""
    if x.ball is None:
        return result
    center = ctx.node.spec.emit(ctx.b, ctx.attrs, 1, x.ball.center)
    return Interval(result.lower, result.upper, BallValues(center, x.ball.radius, x.ball.p))


def linear_of_ball(ctx: RuleContext, ball: BallValues, weight: Value, bias: Value | None) -> Interval:
    """``x weight^T + bias`` on the last axis: each row of ``x`` lies in a ball of the same radius."""
    b, shape = ctx.b, ball.center.shape
    rows = (divide(size(shape), shape[-1]), shape[-1])
    out: tuple[Dim, ...] = (*shape[:-1], weight.shape[0])
    center = b.reshape(b.matmul(b.reshape(ball.center, rows), weight, transpose_b=True), out)
    return _around(b, center if bias is None else center + bias, ball, _dual_norm(b, weight, ball.p, (1,)))


def conv2d_of_ball(ctx: RuleContext, ball: BallValues, weight: Value, bias: Value | None) -> Interval:
    """Convolution of [..., C, H, W]. For p = 2 the norm is that of the weights that meet no padding."""
    b = ctx.b
    flat, front = images(b, ball.center)
    center = b.emit_named("conv2d", flat, weight, attrs=ctx.attrs)
    if bias is not None:
        center = center + b.reshape(bias, (*bias.shape, 1, 1))
    if ball.p == 1:
        norm = b.reshape(_dual_norm(b, weight, 1, (1, 2, 3)), (weight.shape[0], 1, 1))
    else:
        ones = b.broadcast(b.constant(1.0), (1, *flat.shape[1:]))
        square = b.emit_named("conv2d", ones, weight * weight, attrs=ctx.attrs)
        norm = b.reshape(b.sqrt(square), square.shape[1:])
    return _around(b, b.reshape(center, (*front, *center.shape[1:])), ball, norm)


def _dual_norm(b: Builder, weight: Value, p: float, axes: tuple[int, ...]) -> Value:
    if p == 1:
        return b.reduce_max(b.abs(weight), axes)
    return b.sqrt(b.reduce_sum(weight * weight, axes))


def _around(b: Builder, center: Value, ball: BallValues, norm: Value) -> Interval:
    """``center`` [B, *sample] and, on either side, the radius of each region times ``norm`` [*sample]."""
    spread = b.reshape(ball.radius, (ball.radius.shape[0], *[1] * (center.rank - 1))) * norm
    return Interval(center - spread, center + spread)
