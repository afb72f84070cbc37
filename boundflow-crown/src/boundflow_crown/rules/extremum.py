"""Maxima and minima of several values: planes below and above, which need bounds of every operand.

A minimum is the negative of the maximum of the negatives.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, concrete_shape, size
from boundflow_crown.relax.curves import both, positive
from boundflow_crown.relax.piecewise import relu
from boundflow_crown.rules.activation import substitute
from boundflow_crown.rules.affine import unbroadcast
from boundflow_crown.walk import BackwardContext, BackwardRule, Step
from boundflow_interval import Interval

__all__ = ["Planes", "max_pool2d", "maximum", "minimum", "planes_of_maximum", "reduce_max", "reduce_min"]


@dataclass(frozen=True)
class Planes:
    """``lower . x <= max(x) <= upper . x + bias``; slopes like x, the bias with axes of size 1 for those reduced."""

    lower: Value
    upper: Value
    bias: Value


def planes_of_maximum(b: Builder, x: Interval, axes: Sequence[int]) -> Planes:
    """Planes for the maximum over ``axes``; elements with both bounds -inf are not there.

    Below: the element with the largest lower bound, or the mean of several such: no mean exceeds the maximum.
    Above: with i the element with the largest upper bound, r the largest upper bound of all others, but no less than
    l_i: max(x) <= max(x_i, r) = r + max(x_i - r, 0), under the chord of the relu between l_i - r and u_i - r. This is
    x_i where no other can exceed it, and r where another has as large an upper bound. It never exceeds u_i.
    NaN in a bound makes the planes NaN.
    """

    def most(v: Value) -> Value:
        return b.reduce_max(v, axes, keepdims=True)

    def count(v: Value) -> Value:
        return b.reduce_sum(v, axes, keepdims=True)

    best = both(b, b.compare(x.lower, most(x.lower), "eq"), x.upper > -math.inf)
    best = b.where(best, 1.0, 0.0)
    top = most(x.upper)
    is_top = b.compare(x.upper, top, "eq")
    single = count(b.where(is_top, 1.0, 0.0)) <= 1.0
    own = most(b.where(is_top, x.lower, -math.inf))
    rest = b.maximum(most(b.where(is_top, -math.inf, x.upper)), own)
    alone = both(b, single, rest <= own)
    # Halves, as widths may overflow. Where rest > own, top >= rest > own. Several at the top leave each other no share.
    share = b.where(single, (top * 0.5 - rest * 0.5) / positive(b, top * 0.5 - own * 0.5), 0.0)
    share = b.where(alone, 1.0, share)
    # The chord passes through (own, rest). From own = -inf it is the constant top.
    bias = b.where(alone, top * 0.0, b.where(both(b, single, own > -math.inf), rest - share * own, top))
    return Planes(best / count(best), b.where(is_top, share, 0.0), bias)


def _through(
    ctx: BackwardContext, rows: Value, below: Value, above: Value, bias: Value, smaller: bool
) -> tuple[Value, Value]:
    """Rows on the elements, and the bias, from rows on maxima (or minima, of mirrored planes) with their axes kept."""
    b = ctx.b
    plus, minus = b.maximum(rows, 0.0), b.minimum(rows, 0.0)
    if smaller:
        return plus * above + minus * below, -ctx.rows.sum(plus * bias)
    return plus * below + minus * above, ctx.rows.sum(minus * bias)


def _mirrored(x: Interval, smaller: bool) -> Interval:
    return Interval(-x.upper, -x.lower) if smaller else x


def _reduction(smaller: bool) -> BackwardRule:
    def rule(ctx: BackwardContext, rows: Value) -> Step:
        b, lift, axes = ctx.b, ctx.rows.lift, ctx.attrs["axes"]
        kept = tuple(1 if axis in axes else dim for axis, dim in enumerate(ctx.shape(0)))
        planes = planes_of_maximum(b, _mirrored(ctx.interval(0), smaller), tuple(axis + 1 for axis in axes))
        rows = b.reshape(rows, (*ctx.rows.front, *kept))
        on_x, bias = _through(ctx, rows, lift(planes.lower), lift(planes.upper), lift(planes.bias), smaller)
        return Step({0: on_x}, bias)

    return rule


reduce_max, reduce_min = _reduction(False), _reduction(True)


def _windows(b: Builder, x: Value, attrs: Attrs, out: tuple[int, int]) -> Value:
    """Elements under each position of the window, [N, kh kw, h, w], of images [N, H, W]; -inf outside."""
    top, left, bottom, right = attrs["padding"]
    (sh, sw), (dh, dw), (h, w) = attrs["stride"], attrs["dilation"], out
    padded = b.pad(x, (0, top, left), (0, bottom, right), -math.inf) if any(attrs["padding"]) else x
    parts = []
    for p, q in itertools.product(*map(range, attrs["kernel"])):
        starts = (0, p * dh, q * dw)
        stops = (x.shape[0], p * dh + sh * (h - 1) + 1, q * dw + sw * (w - 1) + 1)
        parts.append(b.reshape(b.slice(padded, starts, stops, (1, sh, sw)), (x.shape[0], 1, h, w)))
    return b.concat(parts, 1)


def max_pool2d(ctx: BackwardContext, rows: Value) -> Step:
    """Planes window by window; rows return to the images by the adjoint of the selection, a 0-1 convolution."""
    b, lift, attrs, front = ctx.b, ctx.rows.lift, ctx.attrs, ctx.rows.front
    shape, (h, w) = ctx.shape(0), concrete_shape(ctx.node.type.shape[-2:], {})
    lead, image = shape[:-2], shape[-2:]
    taps = size(attrs["kernel"])
    assert isinstance(taps, int)

    def windows(v: Value) -> Value:
        return _windows(b, b.reshape(v, (size(v.shape[:-2]), *image)), attrs, (h, w))

    x = ctx.interval(0)
    planes = planes_of_maximum(b, Interval(windows(x.lower), windows(x.upper)), (1,))

    def lifted(v: Value) -> Value:
        return lift(b.reshape(v, (x.lower.shape[0], *lead, v.shape[1], h, w)))

    rows = b.reshape(rows, (*front, *lead, 1, h, w))
    on_windows, bias = _through(ctx, rows, lifted(planes.lower), lifted(planes.upper), lifted(planes.bias), False)
    flat = b.reshape(on_windows, (size((*front, *lead)), taps, h, w))
    selection = b.constant(np.eye(taps).reshape(taps, 1, *attrs["kernel"]))
    kept = {key: attrs[key] for key in ("stride", "padding", "dilation")}
    through = b.emit_named("conv2d_input_grad", flat, selection, attrs=Attrs(kept, groups=1, input_size=image))
    return Step({0: b.reshape(through, (*front, *shape))}, bias)


def _pair(smaller: bool) -> BackwardRule:
    """max(x, y) = y + relu(x - y), min(x, y) = x - relu(x - y), with the lines of the relu for the adaptive slope.

    Exact where one operand is never below the other; else from below that with the larger middle.
    """

    def rule(ctx: BackwardContext, rows: Value) -> Step:
        if ctx.node.inputs[0] == ctx.node.inputs[1]:
            return Step({0: rows})
        b = ctx.b
        x, y = (
            Interval(ctx.constant(number), ctx.constant(number)) if ctx.is_constant(number) else ctx.interval(number)
            for number in (0, 1)
        )
        lines = relu(b, Interval(x.lower - y.upper, x.upper - y.lower), ctx.attrs, (), {})
        on_difference, bias = substitute(ctx, -rows if smaller else rows, lines)
        parts = (rows + on_difference, -on_difference) if smaller else (on_difference, rows - on_difference)
        out: dict[int, Value] = {}
        for number, part in enumerate(parts):
            if ctx.is_constant(number):
                more = ctx.rows.sum(part * ctx.constant(number))
                bias = more if bias is None else bias + more
            else:
                out[number] = unbroadcast(ctx, part, number)
        return Step(out, bias)

    return rule


maximum, minimum = _pair(False), _pair(True)
