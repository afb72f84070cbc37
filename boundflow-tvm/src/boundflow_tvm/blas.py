"""Products of large matrices, which a library of linear algebra computes faster than generated code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from boundflow_core.ir.program import Op
from boundflow_core.ir.types import size

__all__ = ["NAME", "product", "refused"]

NAME = "blas"
LEAST = 64 * 64  # elements of the smaller matrix's known dimensions, from which a call of a library pays


def refused(op: Op) -> str | None:
    """Why ``op`` is no matter for a library, or None."""
    if op.name != "matmul":
        return "no product of matrices"
    x, y = op.inputs
    columns, depth = op.outputs[0].shape[-1], x.shape[-2 if op.attrs["transpose_a"] else -1]
    if op.outputs[0].shape[-2] == 1 or columns == 1:
        return "a product of a matrix and a vector"
    if isinstance(columns, int) and isinstance(depth, int) and columns * depth < LEAST:
        return "a small product"
    if size(x.shape[:-2]) != 1 and size(y.shape[:-2]) != 1:
        return "many products"
    return None


def product(op: Op, x: Any, y: Any, out: Any) -> Callable[[], Any]:
    """The call of NumPy for ``op``, a matmul of known sizes."""
    if op.attrs["transpose_a"]:
        x = x.swapaxes(-1, -2)
    if op.attrs["transpose_b"]:
        y = y.swapaxes(-1, -2)
    if op.attrs["transpose_a"] is False and y.ndim == 2 and out.ndim > 2:  # rows of all are rows of one product
        x, out = x.reshape(-1, x.shape[-1]), out.reshape(-1, out.shape[-1])
    return partial(np.matmul, x, y, out=out)
