"""Normalizations, and functions of one operand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from boundflow_core.frontends.compose.affine import reduce_mean, scaled
from boundflow_core.frontends.compose.layout import axis_of, reshape
from boundflow_core.ir.primal_builder import Operand, PrimalBuilder

__all__ = ["batch_norm", "elu", "hard_sigmoid", "layer_norm", "log_softmax", "power", "silu"]


def batch_norm(
    g: PrimalBuilder,
    x: Operand,
    scale: Operand | None,
    bias: Operand | None,
    mean: Operand,
    var: Operand,
    eps: float,
    axis: int = 1,
) -> Any:
    """``(x - mean) / sqrt(var + eps) * scale + bias`` with one constant a channel, the channels being ``axis`` of x.

    Written as ``x * factor + shift``: a later pass merges both into the layer before.
    """
    axis = axis_of(axis, len(x.shape))
    factor = g.op("reciprocal", g.op("sqrt", g.add(var, g.scalar(eps))))
    factor = factor if scale is None else g.mul(scale, factor)
    shift = g.neg(g.mul(mean, factor))
    shift = shift if bias is None else g.add(bias, shift)
    shape = (-1, *[1] * (len(x.shape) - axis - 1))
    return g.add(g.mul(x, reshape(g, factor, shape)), reshape(g, shift, shape))


def layer_norm(
    g: PrimalBuilder,
    x: Operand,
    axes: Sequence[int],
    scale: Operand | None,
    bias: Operand | None,
    eps: float,
) -> Any:
    """``(x - mean) / sqrt(var + eps) * scale + bias`` with mean and (biased) variance of x itself over ``axes``.

    ``scale`` and ``bias`` broadcast to x.
    """
    centred = g.sub(x, reduce_mean(g, x, axes))
    variance = reduce_mean(g, g.op("pow", centred, exponent=2.0), axes)
    inverse = g.op("reciprocal", g.op("sqrt", g.add(variance, g.scalar(eps))))
    result = g.mul(centred, inverse)
    result = result if scale is None else g.mul(result, scale)
    return result if bias is None else g.add(result, bias)


def hard_sigmoid(g: PrimalBuilder, x: Operand, alpha: float = 1 / 6, beta: float = 0.5) -> Any:
    """``alpha x + beta`` limited to [0, 1]. (ONNX's default alpha is 0.2, torch's 1/6.)"""
    return g.op("clip", g.add(scaled(g, x, alpha), g.scalar(beta)), min=0.0, max=1.0)


def silu(g: PrimalBuilder, x: Operand) -> Any:
    """``x sigmoid(x)``."""
    return g.mul(x, g.op("sigmoid", x))


def elu(g: PrimalBuilder, x: Operand, alpha: float = 1.0) -> Any:
    """``x`` where positive, else ``alpha (exp(x) - 1)``: relu(x) + alpha (exp(min(x, 0)) - 1)."""
    tail = g.add(g.op("exp", g.op("clip", x, min=-math.inf, max=0.0)), g.scalar(-1.0))
    return g.add(g.op("relu", x), scaled(g, tail, alpha))


def log_softmax(g: PrimalBuilder, x: Operand, axis: int) -> Any:
    """``log(softmax(x))``."""
    return g.op("log", g.op("softmax", x, axis=axis_of(axis, len(x.shape))))


def power(g: PrimalBuilder, x: Operand, exponent: float) -> Any:
    """``x`` to a constant exponent; 1, 1/2 and -1 have operators of their own."""
    named = {0.5: "sqrt", -1.0: "reciprocal"}
    if exponent == 1.0:
        return x
    if exponent in named:
        return g.op(named[exponent], x)
    return g.op("pow", x, exponent=float(exponent))
