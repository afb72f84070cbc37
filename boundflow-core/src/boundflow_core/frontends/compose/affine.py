"""Products and sums with weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from boundflow_core.errors import IRError
from boundflow_core.frontends.compose.layout import axis_of, expand, permute, reshape
from boundflow_core.ir.constants import Constant
from boundflow_core.ir.primal_builder import Operand, PrimalBuilder, Tensor

__all__ = ["gemm", "linear", "matmul", "reduce_mean"]


def linear(g: PrimalBuilder, x: Operand, weight: Operand, bias: Operand | None = None) -> Any:
    """``x weight^T + bias`` on the last axis; weight [out, in], bias [out], either of which may depend on the input."""
    if isinstance(weight, Constant) and (bias is None or isinstance(bias, Constant)):
        return g.op("linear", x, weight, *([] if bias is None else [bias]))
    product = matmul(g, x, transposed(g, weight))
    return product if bias is None else g.add(product, bias)


def transposed(g: PrimalBuilder, x: Operand) -> Any:
    """``x`` with its last two axes exchanged."""
    rank = len(x.shape)
    return permute(g, x, (*range(rank - 2), rank - 1, rank - 2))


def matmul(g: PrimalBuilder, x: Operand, y: Operand) -> Any:
    """Matrix product as in NumPy: the last two axes, vectors promoted, leading axes broadcast.

    A constant matrix on the right, or on the left of vectors or columns, makes a ``linear``.
    """
    if not x.shape or not y.shape:
        raise IRError("a matrix product of a scalar does not exist")
    if isinstance(y, Constant) and not isinstance(x, Constant):
        if len(y.shape) == 1:
            return reshape(g, g.op("linear", x, reshape(g, y, (1, -1))), x.shape[:-1])
        if math.prod(y.shape[:-2]) == 1:
            weight = transposed(g, reshape(g, y, y.shape[-2:]))
            if len(y.shape) == 2 or len(x.shape) > 1:
                return g.op("linear", _lifted(g, x, len(y.shape)) if len(x.shape) > 1 else x, weight)
    if isinstance(x, Constant) and not isinstance(y, Constant) and len(x.shape) <= 2:
        weight = reshape(g, x, (-1, x.shape[-1]))
        if len(y.shape) == 1:
            return reshape(g, g.op("linear", y, weight), x.shape[:-1])
        if y.shape[-1] == 1:
            columns = g.op("linear", reshape(g, y, y.shape[:-1]), weight)
            return reshape(g, columns, (*y.shape[:-2], *x.shape[:-1], 1))
    left = reshape(g, x, (1, -1)) if len(x.shape) == 1 else x
    right = reshape(g, y, (-1, 1)) if len(y.shape) == 1 else y
    rank = max(len(left.shape), len(right.shape))
    product = g.op("matmul", _lifted(g, left, rank), _lifted(g, right, rank))
    front, (m, n) = product.shape[:-2], product.shape[-2:]
    return reshape(g, product, (*front, *([m] if len(x.shape) > 1 else []), *([n] if len(y.shape) > 1 else [])))


def _lifted(g: PrimalBuilder, x: Operand, rank: int) -> Any:
    """``x`` with at least ``rank`` axes: those of tensors must not be aligned with the batch."""
    missing = rank - len(x.shape)
    return reshape(g, x, (*[1] * missing, *x.shape)) if missing > 0 and isinstance(x, Tensor) else x


def gemm(
    g: PrimalBuilder,
    x: Operand,
    y: Operand,
    c: Operand | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> Any:
    """``alpha x y + beta c`` of matrices, where ``c`` broadcasts to the product."""
    if isinstance(y, Constant) and not isinstance(x, Constant):
        weight = scaled(g, transposed(g, y), alpha)
        if c is None:
            return g.op("linear", x, weight)
        if isinstance(c, Constant) and math.prod(c.shape[:-1]) == 1:
            bias = expand(g, reshape(g, scaled(g, c, beta), c.shape[-1:]), (weight.shape[0],))
            return g.op("linear", x, weight, bias)
        return g.add(g.op("linear", x, weight), scaled(g, c, beta))
    product = scaled(g, matmul(g, x, y), alpha)
    return product if c is None else g.add(product, scaled(g, c, beta))


def scaled(g: PrimalBuilder, x: Operand, factor: float) -> Any:
    """``factor * x``."""
    return x if factor == 1.0 else g.mul(x, g.scalar(factor))


def reduce_mean(g: PrimalBuilder, x: Operand, axes: Sequence[int], keepdims: bool = True) -> Any:
    """Mean over ``axes``: their sum over their number."""
    chosen = tuple(sorted(axis_of(axis, len(x.shape)) for axis in axes))
    total = g.op("reduce_sum", x, axes=chosen, keepdims=keepdims)
    return g.mul(total, g.scalar(1.0 / math.prod(x.shape[axis] for axis in chosen)))
