"""Softmax: planes below and above every element, from bounds of the operand.

Element i is p_i = 1 / S_i with S_i = sum_j exp(x_j - x_i): exponentials of differences, which know what moves together
and do not overflow where the softmax does not. Wei et al., Convex Bounds on the Softmax Function with Applications to
Robustness Verification, 2023 (bounds ER), made linear by tangents and chords.
"""

from __future__ import annotations

import numpy as np

from boundflow_core.extension import RuleContext
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_crown.relax.curves import chord_slope, chosen, middle, within
from boundflow_crown.walk import BackwardContext, Step
from boundflow_interval import INTERVAL, Interval

__all__ = ["softmax"]


def softmax(ctx: BackwardContext, rows: Value) -> Step:
    """Rows on the softmax through the planes of :func:`_lower_plane` and :func:`_upper_plane`."""
    b, lift, front = ctx.b, ctx.rows.lift, len(ctx.rows.front)
    axis, rank = ctx.attrs["axis"], len(ctx.shape(0))
    axis = axis % rank
    last = [*(a for a in range(rank) if a != axis), axis]

    def moved(v: Value, lead: int) -> Value:
        return b.permute(v, (*range(lead), *(lead + a for a in last)))

    x = ctx.interval(0)
    range_ = INTERVAL.rules["softmax"](RuleContext(b, ctx.graph, ctx.node), x)
    least, most = moved(range_.lower, 1), moved(range_.upper, 1)
    differences, eye = _differences(b, Interval(moved(x.lower, 1), moved(x.upper, 1)))
    low, low_bias = _lower_plane(b, differences, least, most)
    high, high_bias = _upper_plane(b, differences, least, most)

    rows = moved(rows, front)
    above, below = b.maximum(rows, 0.0), b.minimum(rows, 0.0)
    bias = ctx.rows.sum(above * lift(low_bias) + below * lift(high_bias))
    on_x = _through(b, above, lift(_on_elements(b, low, eye))) + _through(b, below, lift(_on_elements(b, high, eye)))
    back = sorted(range(rank), key=last.__getitem__)
    return Step({0: b.permute(on_x, (*range(front), *(front + a for a in back)))}, bias)


def _differences(b: Builder, x: Interval) -> tuple[Interval, Value]:
    """Bounds of x_j - x_i, [B, ..., i, j], exactly 0 where i = j; and the unit matrix."""
    shape, n = x.lower.shape[:-1], x.lower.shape[-1]
    assert isinstance(n, int)
    eye = b.constant(np.eye(n))

    def between(one: Value, other: Value) -> Value:
        return b.where(eye > 0.5, 0.0, b.reshape(one, (*shape, 1, n)) - b.reshape(other, (*shape, n, 1)))

    return Interval(between(x.lower, x.upper), between(x.upper, x.lower)), eye


def _column(b: Builder, v: Value) -> Value:
    return b.reshape(v, (*v.shape, 1))


def _total(b: Builder, v: Value) -> Value:
    return b.reduce_sum(v, (v.rank - 1,))


def _lower_plane(b: Builder, d: Interval, least: Value, most: Value) -> tuple[Value, Value]:
    """Coefficients [B, ..., i, j] of the differences, and biases [B, ..., i].

    1 / S >= 2 q - q^2 S for every q, the tangent at 1 / q; and S is at most the sum of the exponentials' chords. The
    highest at the middle is q = 2 / (S_l + S_u), where 1 / S_l and 1 / S_u are the greatest and the least p_i. One q is
    multiplied into the exponentials, which are then at most 2.
    """
    q = 2.0 * least * most / (least + most)
    # Where both are zero by underflow, 0 is a bound.
    q = chosen(b, b.where(least > 0.0, q, least), 0.0)
    shift = _column(b, b.log(q))
    low, high = b.exp(d.lower + shift), b.exp(d.upper + shift)
    slope = chosen(b, within(b, chord_slope(b, d, low, high), low, high))
    bias = b.maximum(low - slope * d.lower, high - slope * d.upper)
    return -(slope * _column(b, q)), 2.0 * q - q * _total(b, bias)


def _upper_plane(b: Builder, d: Interval, least: Value, most: Value) -> tuple[Value, Value]:
    """As :func:`_lower_plane`: 1 / S is below its chord 1 / S_l + 1 / S_u - S / (S_l S_u), S above tangents.

    Tangents e^t (d - t + 1) are at min(middle, l + 0.99), where they are positive, see :func:`relax.smooth.exp`. Then
    e^t / S_l is at most e.
    """
    at = chosen(b, b.minimum(middle(d), d.lower + 0.99))
    slope = b.exp(at + _column(b, b.log(most))) * _column(b, least)
    return -slope, least + most - _total(b, slope * (1.0 - at))


def _on_elements(b: Builder, slope: Value, eye: Value) -> Value:
    """Coefficients of x_j in element i from those of x_j - x_i."""
    off = slope * (1.0 - eye)
    return off - eye * _column(b, _total(b, off))


def _through(b: Builder, rows: Value, planes: Value) -> Value:
    """sum_i rows_i planes_ij."""
    line = b.reshape(rows, (*rows.shape[:-1], 1, rows.shape[-1]))
    return b.reshape(b.matmul(line, planes), rows.shape)
