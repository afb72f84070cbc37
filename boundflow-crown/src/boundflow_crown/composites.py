"""Composites of backward linear bounds, which a lowering may claim as one kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from boundflow_core.derivative.support import Gradients, fitted
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Composite, Op, Value
from boundflow_core.ir.types import Attrs, size
from boundflow_crown.crossing import settled
from boundflow_crown.window_composites import GATHER_WINDOWS, SCATTER_WINDOWS

__all__ = ["BACKSUBSTITUTE", "COMPOSITES", "CONCRETIZE_BALL", "CONCRETIZE_BOX", "RELU_BACKSUBSTITUTE", "TIGHTEN"]


def _sum(b: Builder, x: Value, kept: int) -> Value:
    """Sum over all but the first ``kept`` axes, at once: kernels keep many partial sums, and short axes are slow."""
    return b.reduce_sum(_flat(b, x, kept), (kept,)) if x.rank > kept else x


def _dot(b: Builder, x: Value, y: Value, kept: int) -> Value:
    """Sum of ``x y`` over all but the first ``kept`` axes of the rows ``x``.

    Rows [B, S, *s] of a region that share ``y`` [B, 1, *s] are one matrix, and its product with a vector is one
    pass over it; BLAS keeps many partial sums, so float32 loses no more than by summing axis after axis.
    """
    if kept != 2 or x.rank == kept or y.shape != (x.shape[0], 1, *x.shape[2:]):
        return _sum(b, x * y, kept)
    count = size(x.shape[2:])
    matrix, vector = b.reshape(x, (*x.shape[:2], count)), b.reshape(y, (x.shape[0], count, 1))
    return b.reshape(b.matmul(matrix, vector), x.shape[:2])


def _flat(b: Builder, x: Value, kept: int) -> Value:
    """``x`` with all axes but the first ``kept`` merged: so that what arranges its elements does so once."""
    return b.reshape(x, (*x.shape[:kept], size(x.shape[kept:])))


def _backsubstitute(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    rows, lower_slope, lower_bias, upper_slope, upper_bias = inputs
    above, below = b.maximum(rows, 0.0), b.minimum(rows, 0.0)
    return above * lower_slope + below * upper_slope, (
        _dot(b, above, lower_bias, attrs["front"]) + _dot(b, below, upper_bias, attrs["front"])
    )


def _relu_backsubstitute(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    rows, lower_slope, upper_slope, upper_bias = inputs
    above, below = b.maximum(rows, 0.0), b.minimum(rows, 0.0)
    # The same arithmetic whether rows share their slopes or not: alpha-crown begins exactly where crown ends.
    through = above * lower_slope + below * upper_slope
    return through, _dot(b, below, upper_bias, attrs["front"])


def _concretize_box(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    rows, centre, radius = inputs
    front = attrs["front"]
    if front != 2 or rows.rank == front:
        return (_sum(b, rows * centre - b.abs(rows) * radius, front),)
    rows, centre, radius = (_flat(b, value, front) for value in inputs)
    return (_dot(b, rows, centre, front) - _dot(b, b.abs(rows), radius, front),)


def _concretize_ball(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    rows, centre, radius = inputs
    kept = attrs["front"]
    if attrs["p"] == 1:
        norm = b.reduce_max(b.abs(rows), tuple(range(kept, rows.rank))) if rows.rank > kept else b.abs(rows)
    else:  # away from zero the root can be differentiated, and the bound is lower by nothing that a float shows
        norm = b.sqrt(b.maximum(_sum(b, rows * rows, kept), float(np.finfo(b.dtype.numpy).tiny)))
    return (_sum(b, rows * centre, kept) - norm * radius,)


# -- derivatives: of few elementwise operations, none of which chooses element by element (branches that a processor
# cannot predict cost as much as thirty multiplications) ---------------------------------------------------------------


def _share_above(b: Builder, rows: Value) -> Value:
    """1 where ``rows`` are positive, 0 where they are negative, a half at zero (and less than a half from it within
    the smallest normal number)."""
    steep = rows * float(1 / np.finfo(rows.type.dtype.numpy).tiny)
    return b.minimum(b.maximum(steep + 0.5, 0.0), 1.0)


def _spread(b: Builder, grad: Value, like: Value) -> Value:
    """A gradient [*front] of sums as one that broadcasts against rows [*front, *s]."""
    return b.reshape(grad, (*grad.shape, *((1,) * (like.rank - grad.rank))))


def _total(one: Value | None, other: Value | None) -> Value | None:
    return other if one is None else one if other is None else one + other


def _backsubstitute_derivative(
    b: Builder, op: Op, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value | None]
) -> Gradients:
    """Of both composites: each row's gradient is that of the line it takes; where it is zero, half of either."""
    rows, (grad, bias) = inputs[0], grads
    lower_bias = inputs[2] if len(inputs) == 5 else None
    lower_slope, (upper_slope, upper_bias) = inputs[1], inputs[-2:]
    above, below = b.maximum(rows, 0.0), b.minimum(rows, 0.0)
    spread = None if bias is None else _spread(b, bias, rows)

    def along(slope: Value, line_bias: Value | None) -> Value | None:
        part = None if spread is None or line_bias is None else spread * line_bias
        return _total(None if grad is None else grad * slope, part)

    upper, lower = along(upper_slope, upper_bias), along(lower_slope, lower_bias)
    to_rows = None
    if upper is not None:
        share = _share_above(b, rows)
        to_rows = upper + share * (lower - upper) if lower is not None else upper - share * upper

    def to_line(rows: Value, grad: Value | None, like: Value) -> Value | None:
        return None if grad is None else fitted(b, rows * grad, like.shape)

    parts = [to_rows if to_rows is None else fitted(b, to_rows, rows.shape), to_line(above, grad, lower_slope)]
    if lower_bias is not None:
        parts.append(to_line(above, spread, lower_bias))
    return [*parts, to_line(below, grad, upper_slope), to_line(below, spread, upper_bias)]


def _concretize_box_derivative(
    b: Builder, op: Op, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value | None]
) -> Gradients:
    """The corner that each row takes; where a row is zero, the centre."""
    (grad,) = grads
    if grad is None:
        return [None] * 3
    rows, centre, radius = (_flat(b, value, op.attrs["front"]) for value in inputs)
    spread = _spread(b, grad, rows)
    parts = [spread * centre - b.sign(rows) * (spread * radius), spread * rows, -(spread * b.abs(rows))]
    return [
        b.reshape(fitted(b, part, flat.shape), value.shape)
        for part, flat, value in zip(parts, (rows, centre, radius), inputs, strict=True)
    ]


def _tighten(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    lower, upper, old_lower, old_upper = inputs
    lower, upper = b.where(lower > old_lower, lower, old_lower), b.where(upper < old_upper, upper, old_upper)
    return settled(b, lower, upper)


def _tighten_derivative(
    b: Builder, op: Op, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value | None]
) -> Gradients:
    """All to the new bounds, also where the old ones are as good or better: a way to get better than these is wanted.
    An undefined gradient, of relaxations of infinite bounds, is none."""

    def defined(grad: Value | None) -> Value | None:
        return None if grad is None else b.where(b.compare(grad, grad, "eq"), grad, 0.0)

    return [defined(grads[0]), defined(grads[1]), None, None]


TIGHTEN = Composite(
    "tighten",
    "bounds [R] intersected with old ones, in order; gradients go to the new ones",
    _tighten,
    _tighten_derivative,
)
BACKSUBSTITUTE = Composite(
    "backsubstitute",
    "rows A [*front, *s] through lines: (A+ lower_slope + A- upper_slope, sum A+ lower_bias + A- upper_bias)",
    _backsubstitute,
    _backsubstitute_derivative,
)
RELU_BACKSUBSTITUTE = Composite(
    "relu_backsubstitute",
    "rows A [*front, *s] through lines with no lower bias: (A+ lower_slope + A- upper_slope, sum A- upper_bias)",
    _relu_backsubstitute,
    _backsubstitute_derivative,
)
CONCRETIZE_BOX = Composite(
    "concretize_box",
    "least value of rows A [*front, *s] over a box: sum A centre - |A| radius",
    _concretize_box,
    _concretize_box_derivative,
)
CONCRETIZE_BALL = Composite(
    "concretize_ball",
    "least value of rows A [*front, *s] over balls of norm p: sum A centre - radius ||A||, by the dual norm (Hölder)",
    _concretize_ball,
)

COMPOSITES = (
    BACKSUBSTITUTE,
    RELU_BACKSUBSTITUTE,
    CONCRETIZE_BOX,
    CONCRETIZE_BALL,
    GATHER_WINDOWS,
    SCATTER_WINDOWS,
    TIGHTEN,
)
