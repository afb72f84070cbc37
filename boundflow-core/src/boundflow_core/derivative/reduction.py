"""Derivatives of reductions over axes and windows: ``rule(b, attrs, inputs, output, grad)``, see :mod:`.support`."""

from __future__ import annotations

from collections.abc import Sequence

from boundflow_core.derivative.layout import spread
from boundflow_core.derivative.support import Gradients, number
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, Dim

__all__ = ["extremum", "max_pool2d", "reduce_sum"]


def _kept(b: Builder, attrs: Attrs, x: Value, reduced: Value) -> Value:
    """A result of a reduction of ``x`` with the reduced axes as axes of size 1."""
    return b.reshape(reduced, tuple(1 if axis in attrs["axes"] else dim for axis, dim in enumerate(x.shape)))


def reduce_sum(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    (x,) = xs
    return [b.broadcast(_kept(b, attrs, x, g), x.shape)]


def extremum(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    """To the largest (smallest) element; equal ones share alike."""
    (x,) = xs
    chosen = b.cast(b.compare(x, _kept(b, attrs, x, y), "eq"), g.type.dtype)
    count = b.reduce_sum(chosen, attrs["axes"], keepdims=True)
    return [chosen * (_kept(b, attrs, x, g) / count)]


def max_pool2d(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    """To the first largest element of each window, row by row.

    The places of the window are gone through in order: at each, the elements there that are the maximum of their window
    take what is left of the gradient.
    """
    (x,), zero = xs, number(b, 0.0, g)
    top, left, bottom, right = attrs["padding"]
    low, high = (0, 0, top, left), (0, 0, bottom, right)
    padded = b.pad(x, low, high, float("-inf")) if any(attrs["padding"]) else x
    total: Value | None = None
    for row in range(attrs["kernel"][0]):
        for column in range(attrs["kernel"][1]):
            window = _places(attrs, padded, y, (row, column))
            first = b.compare(b.slice(padded, *window), y, "eq")
            part = spread(b, b.where(first, g, zero), padded.shape, *window)
            total = part if total is None else total + part
            g = b.where(first, zero, g)
    assert total is not None
    stops = (*x.shape[:2], *(int(dim) + before for dim, before in zip(x.shape[2:], low[2:], strict=True)))  # type: ignore[arg-type]
    return [b.slice(total, low, stops, (1, 1, 1, 1)) if padded is not x else total]


def _places(
    attrs: Attrs, padded: Value, y: Value, place: tuple[int, int]
) -> tuple[tuple[Dim, ...], tuple[Dim, ...], tuple[int, ...]]:
    """Starts, stops and steps of the slice of ``padded`` that lies under one place of all windows."""
    starts = [at * dilation for at, dilation in zip(place, attrs["dilation"], strict=True)]
    stops = [
        start + stride * (int(count) - 1) + 1  # type: ignore[arg-type]
        for start, stride, count in zip(starts, attrs["stride"], y.shape[2:], strict=True)
    ]
    return (0, 0, *starts), (*padded.shape[:2], *stops), (1, 1, *attrs["stride"])
