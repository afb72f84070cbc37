"""The primitives that NumPy computes into memory given to it; all others allocate their result by their meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from boundflow_core.ir.meaning import RELATIONS
from boundflow_core.ir.program import Op

__all__ = ["KERNELS"]

Kernel = Callable[..., Any]


def _matmul(op: Op) -> Kernel:
    a, b = op.attrs["transpose_a"], op.attrs["transpose_b"]

    def matmul(x: Any, y: Any, out: Any = None) -> Any:
        return np.matmul(x.swapaxes(-1, -2) if a else x, y.swapaxes(-1, -2) if b else y, out=out)

    return matmul


def _reduction(function: Callable[..., Any]) -> Callable[[Op], Kernel]:
    def kernel(op: Op) -> Kernel:
        axes, keepdims = op.attrs["axes"], op.attrs["keepdims"]
        return lambda x, out=None: function(x, axis=axes, keepdims=keepdims, out=out)

    return kernel


def _where(op: Op) -> Kernel:
    def where(condition: Any, x: Any, y: Any, out: Any = None) -> Any:
        if out is None:
            return np.where(condition, x, y)
        # ``out`` may be the memory of one of the operands, which must be read before it is written to.
        if np.may_share_memory(out, condition):
            out[...] = np.where(condition, x, y)
        elif np.may_share_memory(out, x):
            np.copyto(out, y, where=~condition)
        else:
            np.copyto(out, y)
            np.copyto(out, x, where=condition)
        return out

    return where


def _concat(op: Op) -> Kernel:
    axis = op.attrs["axis"]
    return lambda *xs, out=None: np.concatenate(xs, axis=axis, out=out)


def _gather_rows(op: Op) -> Kernel:
    axis = op.attrs["axis"]

    def gather_rows(x: Any, index: Any, out: Any = None) -> Any:
        # NumPy's own check of the numbers takes a copy of the result.
        inside = out is not None and index.size and index.min() >= 0 and index.max() < x.shape[axis]
        return np.take(x, index, axis=axis, out=out, mode="clip" if inside else "raise")

    return gather_rows


def _copied(view: Callable[[Op], Callable[[Any], Any]]) -> Callable[[Op], Kernel]:
    """Of a view, for operands that the plan has no place for: weights that may change."""

    def kernel(op: Op) -> Kernel:
        viewed = view(op)

        def copy(x: Any, out: Any = None) -> Any:
            if out is None:
                return viewed(x)
            np.copyto(out, viewed(x))
            return out

        return copy

    return kernel


def _permute(op: Op) -> Callable[[Any], Any]:
    return lambda x: x.transpose(op.attrs["axes"])


def _broadcast(op: Op) -> Callable[[Any], Any]:
    return lambda x: np.broadcast_to(x, op.attrs["shape"])


def _slice(op: Op) -> Callable[[Any], Any]:
    index = tuple(map(slice, op.attrs["starts"], op.attrs["stops"], op.attrs["steps"]))
    return lambda x: x[index]


def _reshape(op: Op) -> Kernel:
    """Of an array that does not lie in order."""
    shape = op.attrs["shape"]

    def reshape(x: Any, out: Any = None) -> Any:
        if out is None:
            return x.reshape(shape)
        out.reshape(x.shape)[...] = x
        return out

    return reshape


def _plain(function: Kernel) -> Callable[[Op], Kernel]:
    return lambda op: function


KERNELS: Mapping[str, Callable[[Op], Kernel]] = {
    "add": _plain(np.add),
    "sub": _plain(np.subtract),
    "mul": _plain(np.multiply),
    "div": _plain(np.divide),
    "maximum": _plain(np.maximum),
    "minimum": _plain(np.minimum),
    "neg": _plain(np.negative),
    "abs": _plain(np.abs),
    "sign": _plain(np.sign),
    "floor": _plain(np.floor),
    "exp": _plain(np.exp),
    "log": _plain(np.log),
    "log1p": _plain(np.log1p),
    "sqrt": _plain(np.sqrt),
    "tanh": _plain(np.tanh),
    "sin": _plain(np.sin),
    "cos": _plain(np.cos),
    "compare": lambda op: RELATIONS[op.attrs["relation"]],
    "where": _where,
    "matmul": _matmul,
    "reduce_sum": _reduction(np.sum),
    "reduce_max": _reduction(np.max),
    "reduce_min": _reduction(np.min),
    "reshape": _reshape,
    "permute": _copied(_permute),
    "broadcast": _copied(_broadcast),
    "slice": _copied(_slice),
    "concat": _concat,
    "gather_rows": _gather_rows,
    "running_count": _plain(lambda mask, out=None: np.cumsum(mask, dtype=np.int64, out=out)),
}
