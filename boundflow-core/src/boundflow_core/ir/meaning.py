"""Meaning of the primitives in NumPy: the executable definition of the IR, written for clarity before speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.types import Attrs

Array = NDArray[Any]
Arrays = Sequence[Array]

RELATIONS = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def sigmoid(xs: Arrays, attrs: Attrs) -> Array:
    """1 / (1 + exp(-x)), computed from exp(-|x|) so that it never overflows."""
    (x,) = xs
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(x.dtype)


def erf(xs: Arrays, attrs: Attrs) -> Array:
    (x,) = xs
    return np.fromiter(map(math.erf, x.ravel().tolist()), dtype=x.dtype, count=x.size).reshape(x.shape)


def compare(xs: Arrays, attrs: Attrs) -> Array:
    return np.asarray(RELATIONS[attrs["relation"]](xs[0], xs[1]))


def power(xs: Arrays, attrs: Attrs) -> Array:
    (x,) = xs
    return np.asarray(np.power(x, x.dtype.type(attrs["exponent"])))


def matmul(xs: Arrays, attrs: Attrs) -> Array:
    x, y = xs
    x = x.swapaxes(-1, -2) if attrs["transpose_a"] else x
    y = y.swapaxes(-1, -2) if attrs["transpose_b"] else y
    return np.asarray(np.matmul(x, y))


def windows(x: Array, kernel: Sequence[int], attrs: Attrs, fill: float) -> Array:
    """Views [N, C, h, w, kh, kw] of the padded ``x`` [N, C, H, W] under a sliding window."""
    top, left, bottom, right = attrs["padding"]
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    spans = [dilation * (k - 1) + 1 for k, dilation in zip(kernel, attrs["dilation"], strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(2, 3))
    (sh, sw), (dh, dw) = attrs["stride"], attrs["dilation"]
    return np.asarray(view[:, :, ::sh, ::sw, ::dh, ::dw])


def conv2d(xs: Arrays, attrs: Attrs) -> Array:
    """Cross-correlation y[n,o,i,j] = sum_c,p,q x[n,c,i*s+p*d-pad,...] w[o,c,p,q], group by group."""
    x, w = xs
    view = windows(x, w.shape[2:], attrs, 0.0)
    groups = attrs["groups"]
    parts = zip(np.split(view, groups, axis=1), np.split(w, groups, axis=0), strict=True)
    joined = [np.tensordot(v, k, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2) for v, k in parts]
    return np.ascontiguousarray(np.concatenate(joined, axis=1))


def conv2d_input_grad(xs: Arrays, attrs: Attrs) -> Array:
    """Adjoint of :func:`conv2d` in its input: each output position scatters its kernel back."""
    g, w = xs
    groups, (height, width) = attrs["groups"], attrs["input_size"]
    top, left, bottom, right = attrs["padding"]
    (sh, sw), (dh, dw) = attrs["stride"], attrs["dilation"]
    (out_h, out_w), (kh, kw) = g.shape[2:], w.shape[2:]
    padded = np.zeros((g.shape[0], w.shape[1] * groups, height + top + bottom, width + left + right), g.dtype)
    for part, (g_part, w_part) in enumerate(zip(np.split(g, groups, 1), np.split(w, groups, 0), strict=True)):
        channels = slice(part * w.shape[1], (part + 1) * w.shape[1])
        spread = np.tensordot(g_part, w_part, axes=(1, 0)).transpose(0, 3, 1, 2, 4, 5)
        for p in range(kh):
            for q in range(kw):
                rows = slice(p * dh, p * dh + sh * (out_h - 1) + 1, sh)
                columns = slice(q * dw, q * dw + sw * (out_w - 1) + 1, sw)
                padded[:, channels, rows, columns] += spread[..., p, q]
    return np.ascontiguousarray(padded[:, :, top : top + height, left : left + width])


def conv2d_weight_grad(xs: Arrays, attrs: Attrs) -> Array:
    """Adjoint of :func:`conv2d` in its weight: dw[o,c,p,q] = sum_n,i,j g[n,o,i,j] x[n,c,i*s+p*d-pad,...]."""
    x, g = xs
    view = windows(x, attrs["kernel_size"], attrs, 0.0)
    groups = attrs["groups"]
    parts = zip(np.split(g, groups, axis=1), np.split(view, groups, axis=1), strict=True)
    return np.ascontiguousarray(np.concatenate([np.tensordot(k, v, axes=((0, 2, 3),) * 2) for k, v in parts]))


def max_pool2d(xs: Arrays, attrs: Attrs) -> Array:
    return np.asarray(windows(xs[0], attrs["kernel"], attrs, -np.inf).max(axis=(4, 5)))


def reduce_sum(xs: Arrays, attrs: Attrs) -> Array:
    return np.asarray(xs[0].sum(axis=attrs["axes"], keepdims=attrs["keepdims"]))


def reduce_max(xs: Arrays, attrs: Attrs) -> Array:
    return np.asarray(xs[0].max(axis=attrs["axes"], keepdims=attrs["keepdims"]))


def reduce_min(xs: Arrays, attrs: Attrs) -> Array:
    return np.asarray(xs[0].min(axis=attrs["axes"], keepdims=attrs["keepdims"]))


def slice_(xs: Arrays, attrs: Attrs) -> Array:
    return xs[0][tuple(map(slice, attrs["starts"], attrs["stops"], attrs["steps"]))]


def pad(xs: Arrays, attrs: Attrs) -> Array:
    sides = np.array([attrs["low"], attrs["high"]], dtype=np.int64).T
    return np.pad(xs[0], sides, constant_values=attrs["value"]) if xs[0].ndim else xs[0]


def scatter_rows(xs: Arrays, attrs: Attrs) -> Array:
    base, index, rows = xs
    out = base.copy()
    out[(slice(None),) * attrs["axis"] + (index,)] = rows
    return out


def scatter_add_rows(xs: Arrays, attrs: Attrs) -> Array:
    base, index, rows = xs
    out = base.copy()
    np.add.at(out, (slice(None),) * attrs["axis"] + (index,), rows)
    return out


def first_reaching(xs: Arrays, attrs: Attrs) -> Array:
    ascending, wanted = xs
    return np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1).astype(np.int64)
