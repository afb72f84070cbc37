"""Derivatives of matrix products and convolutions: ``rule(b, attrs, inputs, output, grad)``, see :mod:`.support`."""

from __future__ import annotations

from collections.abc import Sequence

from boundflow_core.derivative.support import Gradients
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, Shape, size

__all__ = ["conv2d", "conv2d_input_grad", "conv2d_weight_grad", "matmul"]


def matmul(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    """Of Y = X Z: dX = dY Z^T and dZ = X^T dY. That of X is taken as the second operand of Y^T = Z^T X^T."""
    (x, z), first, second = xs, attrs["transpose_a"], attrs["transpose_b"]
    return [
        _second(b, z, not second, g, True, x.shape, not first),
        _second(b, x, first, g, False, z.shape, second),
    ]


def _second(b: Builder, x: Value, x_flip: bool, g: Value, g_flip: bool, shape: Shape, flip: bool) -> Value:
    """Gradient of the operand Z of Y = X Z, of ``shape`` [*, k, n], or [*, n, k] where ``flip`` is set.

    ``x`` [*, m, k] and the gradient ``g`` [*, m, n] of Y lie transposed where their flags say so. The result has the
    batch axes of Y, but where Z is one matrix for the whole batch: then one product sums over the batch, too.
    """
    one_matrix = all(dim == 1 for dim in shape[:-2])
    if one_matrix and size(x.shape[:-2]) == size(g.shape[:-2]) != 1:
        x, x_flip = _stacked(b, x, x_flip), False
        g, g_flip = _stacked(b, g, g_flip), False
    if flip:
        return b.matmul(g, x, transpose_a=not g_flip, transpose_b=x_flip)
    return b.matmul(x, g, transpose_a=not x_flip, transpose_b=g_flip)


def _stacked(b: Builder, x: Value, flip: bool) -> Value:
    """The matrices of a batch [*, m, k] (or [*, k, m]) below each other: [size * m, k]."""
    if flip:
        x = b.permute(x, (*range(x.rank - 2), x.rank - 1, x.rank - 2))
    return b.reshape(x, (size(x.shape[:-1]), x.shape[-1]))


def _geometry(attrs: Attrs) -> dict[str, object]:
    return {key: attrs[key] for key in ("stride", "padding", "dilation", "groups")}


# The three below are the partial adjoints of one trilinear form <conv(x, w), g>.


def conv2d(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    x, w = xs
    return [_to_input(b, attrs, g, w, x), _to_weight(b, attrs, x, g, w)]


def conv2d_input_grad(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    rows, w = xs
    return [_to_output(b, attrs, g, w), _to_weight(b, attrs, g, rows, w)]


def conv2d_weight_grad(b: Builder, attrs: Attrs, xs: Sequence[Value], y: Value, g: Value) -> Gradients:
    x, rows = xs
    return [_to_input(b, attrs, rows, g, x), _to_output(b, attrs, x, g)]


def _to_output(b: Builder, attrs: Attrs, x: Value, w: Value) -> Value:
    return b.emit_named("conv2d", x, w, attrs=Attrs(_geometry(attrs)))


def _to_input(b: Builder, attrs: Attrs, g: Value, w: Value, x: Value) -> Value:
    return b.emit_named("conv2d_input_grad", g, w, attrs=Attrs(_geometry(attrs), input_size=x.shape[2:]))


def _to_weight(b: Builder, attrs: Attrs, x: Value, g: Value, w: Value) -> Value:
    return b.emit_named("conv2d_weight_grad", x, g, attrs=Attrs(_geometry(attrs), kernel_size=w.shape[2:]))
