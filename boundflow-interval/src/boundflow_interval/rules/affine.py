"""Rules of affine operators with constant weights: centre and radius, in the composites."""

from __future__ import annotations

from boundflow_core.extension import RuleContext
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal_ops import conv_transpose_attrs, images
from boundflow_core.ir.program import Composite, Value
from boundflow_core.ir.types import Attrs, Dim, divide, size
from boundflow_interval.composites import INTERVAL_CONV2D, INTERVAL_CONV2D_INPUT_GRAD, INTERVAL_MATMUL
from boundflow_interval.interval import Interval
from boundflow_interval.rules.balls import conv2d_of_ball, linear_of_ball

__all__ = ["conv2d", "conv_transpose2d", "linear", "matmul_left", "matmul_right"]


def linear(ctx: RuleContext, x: Interval, weight: Value, bias: Value | None = None) -> Interval:
    """``x weight^T + bias`` on the last axis; the axes before it are rows of one matrix product."""
    if x.ball is not None:
        return linear_of_ball(ctx, x.ball, weight, bias)
    b, shape = ctx.b, x.lower.shape
    rows = (divide(size(shape), shape[-1]), shape[-1])
    operands = [b.reshape(x.lower, rows), b.reshape(x.upper, rows), weight, *([bias] if bias is not None else [])]
    lower, upper = b.emit(INTERVAL_MATMUL, *operands, side="right", transpose=True)
    out: tuple[Dim, ...] = (*shape[:-1], weight.shape[0])
    return Interval(b.reshape(lower, out), b.reshape(upper, out))


def matmul_right(ctx: RuleContext, x: Interval, weight: Value) -> Interval:
    """``x weight`` on the last two axes, the right factor constant."""
    lower, upper = ctx.b.emit(INTERVAL_MATMUL, x.lower, x.upper, weight, side="right", transpose=False)
    return Interval(lower, upper)


def matmul_left(ctx: RuleContext, weight: Value, x: Interval) -> Interval:
    """``weight x`` on the last two axes, the left factor constant."""
    lower, upper = ctx.b.emit(INTERVAL_MATMUL, x.lower, x.upper, weight, side="left", transpose=False)
    return Interval(lower, upper)


def _on_images(
    b: Builder, composite: Composite, x: Interval, weight: Value, bias: Value | None, attrs: Attrs
) -> Interval:
    lower, front = images(b, x.lower)
    upper, _ = images(b, x.upper)
    operands = [lower, upper, weight, *([bias] if bias is not None else [])]
    bounds = b.emit(composite, *operands, **attrs)
    lower, upper = (b.reshape(bound, (*front, *bound.shape[1:])) for bound in bounds)
    return Interval(lower, upper)


def conv2d(ctx: RuleContext, x: Interval, weight: Value, bias: Value | None = None) -> Interval:
    """Convolution of [..., C, H, W]."""
    if x.ball is not None:
        return conv2d_of_ball(ctx, x.ball, weight, bias)
    return _on_images(ctx.b, INTERVAL_CONV2D, x, weight, bias, ctx.attrs)


def conv_transpose2d(ctx: RuleContext, x: Interval, weight: Value, bias: Value | None = None) -> Interval:
    """Transposed convolution of [..., C, H, W]: the adjoint of a convolution."""
    attrs = conv_transpose_attrs(ctx.attrs, x.lower.shape, weight.shape)
    return _on_images(ctx.b, INTERVAL_CONV2D_INPUT_GRAD, x, weight, bias, attrs)
