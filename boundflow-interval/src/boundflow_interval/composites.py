"""Affine maps of intervals as composites, which a lowering may claim as one kernel.

All compute with centre and radius inside, ``c' = W c + b`` and ``r' = |W| r``, and have lower and upper bounds at their
borders. ``r' >= 0`` holds in floating point too, so that the bounds never cross.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Composite, Value
from boundflow_core.ir.types import Attrs

__all__ = ["COMPOSITES", "INTERVAL_CONV2D", "INTERVAL_CONV2D_INPUT_GRAD", "INTERVAL_MATMUL", "SPEC_LINEAR"]


def _centre_radius(
    b: Builder, lower: Value, upper: Value, weight: Value, product: Callable[[Value, Value], Value], bias: Value | None
) -> tuple[Value, Value]:
    """Bounds of ``product(x, weight) + bias`` for x between ``lower`` and ``upper``."""
    # Halves first: the sum of two large bounds may overflow, the sum of their halves does not.
    half_lower, half_upper = lower * 0.5, upper * 0.5
    centre = product(half_lower + half_upper, weight)
    centre = centre + bias if bias is not None else centre
    radius = product(half_upper - half_lower, b.abs(weight))
    return centre - radius, centre + radius


def _matmul(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    lower, upper, weight, *rest = inputs

    def product(x: Value, w: Value) -> Value:
        if attrs["side"] == "right":
            return b.matmul(x, w, transpose_b=attrs["transpose"])
        return b.matmul(w, x, transpose_a=attrs["transpose"])

    return _centre_radius(b, lower, upper, weight, product, rest[0] if rest else None)


def _conv2d(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    lower, upper, weight, *rest = inputs
    bias = b.reshape(rest[0], (rest[0].shape[0], 1, 1)) if rest else None
    return _centre_radius(b, lower, upper, weight, lambda x, w: b.emit_named("conv2d", x, w, attrs=attrs), bias)


def _conv2d_input_grad(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    lower, upper, weight, *rest = inputs
    bias = b.reshape(rest[0], (rest[0].shape[0], 1, 1)) if rest else None
    return _centre_radius(
        b, lower, upper, weight, lambda x, w: b.emit_named("conv2d_input_grad", x, w, attrs=attrs), bias
    )


def _spec_linear(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    lower, upper, rows, offset = inputs
    (batch, n), (groups, count, _) = lower.shape, rows.shape
    if groups == 1:  # the same rows for every region: one product of two matrices
        rows, offset = b.reshape(rows, (count, n)), b.reshape(offset, (count,))
    else:
        lower, upper = b.reshape(lower, (batch, 1, n)), b.reshape(upper, (batch, 1, n))
        offset = b.reshape(offset, (groups, 1, count))
    bounds = _centre_radius(b, lower, upper, rows, lambda x, w: b.matmul(x, w, transpose_b=True), offset)
    return tuple(b.reshape(bound, (batch, count)) for bound in bounds)


INTERVAL_MATMUL = Composite(
    "interval_matmul",
    "bounds of x W + bias (`side`='right') or W x + bias ('left') from (lower, upper, W, bias?); W^T if `transpose`",
    _matmul,
)
INTERVAL_CONV2D = Composite(
    "interval_conv2d",
    "bounds of conv2d(x, W) + bias from (lower, upper [N, C, H, W], W, bias? [O]); attributes of conv2d",
    _conv2d,
)
INTERVAL_CONV2D_INPUT_GRAD = Composite(
    "interval_conv2d_input_grad",
    "bounds of conv2d_input_grad(x, W) + bias from (lower, upper [N, O, h, w], W, bias? [C]); its attributes",
    _conv2d_input_grad,
)
SPEC_LINEAR = Composite(
    "spec_linear",
    "bounds [B, S] of rows C x + offset from (lower, upper [B, n], C [B or 1, S, n], offset [B or 1, S])",
    _spec_linear,
)

COMPOSITES = (INTERVAL_MATMUL, INTERVAL_CONV2D, INTERVAL_CONV2D_INPUT_GRAD, SPEC_LINEAR)
