"""Derivatives of layout and indexing primitives: ``rule(b, attrs, inputs, output, grad)``, see :mod:`.support`."""

from __future__ import annotations

from collections.abc import Sequence

from boundflow_core.derivative.support import Gradients, zeros
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, Dim, Shape

__all__ = [
    "broadcast",
    "concat",
    "gather_rows",
    "pad",
    "permute",
    "reshape",
    "scatter_add_rows",
    "scatter_rows",
    "slice_",
    "spread",
]


def reshape(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    return [b.reshape(g, xs[0].shape)]


def permute(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    axes = attrs["axes"]
    return [b.permute(g, sorted(range(len(axes)), key=lambda axis: int(axes[axis])))]


def broadcast(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    return [g]  # summed like that of every operand that was broadcast


def slice_(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    return [spread(b, g, xs[0].shape, attrs["starts"], attrs["stops"], attrs["steps"])]


def spread(
    b: Builder, g: Value, shape: Shape, starts: Sequence[Dim], stops: Sequence[Dim], steps: Sequence[int]
) -> Value:
    """The adjoint of a slice from ``shape``: each element back at its place, zeros elsewhere."""
    low, high = [0] * len(shape), [0] * len(shape)
    for axis, (dim, start, stop, step) in enumerate(zip(shape, starts, stops, steps, strict=True)):
        if isinstance(dim, int) and isinstance(start, int):
            g = _stretched(b, g, axis, step)
            low[axis], high[axis] = start, dim - start - int(g.shape[axis])  # type: ignore[arg-type]
        elif not isinstance(dim, int):
            after = _difference(dim, stop)
            parts = [_zeros_along(b, g, axis, start), g, _zeros_along(b, g, axis, after)]
            g = b.concat([part for part in parts if part is not None], axis)
    return b.pad(g, low, high) if any(low) or any(high) else g


def _stretched(b: Builder, g: Value, axis: int, step: int) -> Value:
    """``step - 1`` zeros after each element along ``axis`` but the last."""
    count = g.shape[axis]
    if step == 1 or not isinstance(count, int) or count < 2:
        return g
    front, back = g.shape[:axis], g.shape[axis + 1 :]
    apart = b.reshape(g, (*front, count, 1, *back))
    sides = [step - 1 if place == axis + 1 else 0 for place in range(apart.rank)]
    flat = b.reshape(b.pad(apart, [0] * apart.rank, sides), (*front, count * step, *back))
    stops = (*front, (count - 1) * step + 1, *back)
    return b.slice(flat, [0] * g.rank, stops, [1] * g.rank)


def _difference(dim: Dim, stop: Dim) -> Dim:
    """``dim - stop`` of multiples of the same symbols."""
    if stop == dim:
        return 0
    return dim if stop == 0 else dim + (-1) * stop


def _zeros_along(b: Builder, g: Value, axis: int, count: Dim) -> Value | None:
    if count == 0:
        return None
    return zeros(b, g, (*g.shape[:axis], count, *g.shape[axis + 1 :]))


def pad(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    (x,), low = xs, attrs["low"]
    stops = [first + dim if first else dim for first, dim in zip(low, x.shape, strict=True)]
    return [b.slice(g, low, stops, [1] * x.rank)]


def concat(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    axis, parts = attrs["axis"], []
    start: Dim = 0
    starts: list[Dim] = [0] * g.rank
    stops: list[Dim] = list(g.shape)
    for x in xs:
        stop = x.shape[axis] if start == 0 else start + x.shape[axis]
        starts[axis], stops[axis] = start, stop
        parts.append(b.slice(g, starts, stops, [1] * g.rank))
        start = stop
    return parts


def gather_rows(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    x, index = xs
    return [b.scatter_add_rows(zeros(b, g, x.shape), index, g, attrs["axis"]), None]


def scatter_rows(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    _, index, rows = xs
    return [
        b.scatter_rows(g, index, zeros(b, g, rows.shape), attrs["axis"]),
        None,
        b.gather_rows(g, index, attrs["axis"]),
    ]


def scatter_add_rows(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    return [g, None, b.gather_rows(g, xs[1], attrs["axis"])]
