"""What kernels allocate for themselves while they run, in bytes, from symbolic shapes: so that plans can count it.

Found by measuring (``benchmarks/memory.py``); of torch's convolutions it is what oneDNN asks torch for on a processor
with vectors of 16 floats, which depends on the processor, the version and the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from boundflow_core.ir.program import Op
from boundflow_core.ir.types import Dim, DType, size

__all__ = ["numpy_workspace", "torch_workspace"]

Terms = tuple[Dim, ...]
BLOCK = 16


def numpy_workspace(op: Op) -> Terms:
    """Of the kernels of executor ``reference``."""
    return _NUMPY[op.name](op) if op.name in _NUMPY else ()


def torch_workspace(op: Op) -> Terms:
    """Of the kernels of executor ``torch``."""
    return _TORCH[op.name](op) if op.name in _TORCH else ()


def _bytes(op: Op, count: Dim) -> Dim:
    return count * op.outputs[0].type.dtype.itemsize


def _ints(*dims: Dim) -> list[int]:
    """Channels, heights and widths, which are never symbolic."""
    return [dim for dim in dims if isinstance(dim, int)]


def _window_sizes(op: Op) -> tuple[int, int, int]:
    """Elements per image of a convolution: the padded input, all its windows within one group, and the output."""
    x, out = op.inputs[0].shape, op.outputs[0].shape
    channels, height, width = _ints(*x[1:])
    top, left, bottom, right = op.attrs["padding"]
    padded = channels * (height + top + bottom) * (width + left + right)
    kernel = op.attrs["kernel"] if "kernel" in op.attrs else _ints(*op.inputs[1].shape[2:])
    windows = channels // op.attrs.get("groups", 1) * math.prod(_ints(*out[2:])) * math.prod(kernel)
    return padded, windows, math.prod(_ints(*out[1:]))


def _numpy_conv2d(op: Op) -> Terms:
    """The padded input, with the windows as a matrix, or with one more output before its axes are in order."""
    padded, windows, out = _window_sizes(op)
    images, weight = op.inputs[0].shape[0], size(op.inputs[1].shape)
    return (_bytes(op, images * (padded + max(windows, out))), _bytes(op, weight))


def _numpy_conv2d_input_grad(op: Op) -> Terms:
    """The padded result, and the products of a group with all kernel positions, twice."""
    g, w, out = op.inputs[0].shape, op.inputs[1].shape, op.outputs[0].shape
    top, left, bottom, right = op.attrs["padding"]
    channels, height, width = _ints(*out[1:])
    padded = channels * (height + top + bottom) * (width + left + right)
    spread = math.prod(_ints(*g[2:])) * math.prod(_ints(*w[1:]))
    moved = math.prod(_ints(*g[1:])) // op.attrs["groups"]
    return (_bytes(op, g[0] * (padded + spread + moved)),)


def _numpy_max_pool2d(op: Op) -> Terms:
    return (_bytes(op, op.inputs[0].shape[0] * _window_sizes(op)[0]),)


def _blocked(channels: int, area: int) -> int:
    """Elements of an image whose channels are filled up to whole vectors."""
    return -(-channels // BLOCK) * BLOCK * area


def _torch_conv2d(op: Op) -> Terms:
    """Of float32 numbers, blocked copies of input, weight and output; of others, the windows as a matrix."""
    padded, windows, out = _window_sizes(op)
    x, w, y = op.inputs[0].shape, op.inputs[1].shape, op.outputs[0].shape
    top, left, bottom, right = op.attrs["padding"]
    copied = padded if (top, left) != (bottom, right) else 0
    if op.outputs[0].type.dtype is not DType.FLOAT32:
        more = out if op.attrs["groups"] > 1 else 0
        return (_bytes(op, x[0] * (copied + windows + more)),)
    channels, height, width = _ints(*x[1:])
    plain = channels < BLOCK and op.attrs["groups"] == 1 and max(_ints(*w[2:])) > 1
    image = 0 if plain else _blocked(channels, height * width)
    result = _blocked(_ints(y[1])[0], math.prod(_ints(*y[2:])))
    return (_bytes(op, x[0] * (copied + max(result, image + result - out))), _bytes(op, size(w)) if image else 0)


def _torch_conv2d_input_grad(op: Op) -> Terms:
    """Of float32 numbers, two more results; of others, the windows as a matrix."""
    g, w, out = op.inputs[0].shape, op.inputs[1].shape, op.outputs[0].shape
    if op.outputs[0].type.dtype is DType.FLOAT32:
        return (_bytes(op, 2 * size(out)),)
    return (_bytes(op, g[0] * math.prod(_ints(*g[2:])) * math.prod(_ints(*w[1:]))),)


def _torch_max_pool2d(op: Op) -> Terms:
    """Which element was the largest, as int64."""
    padded = _bytes(op, op.inputs[0].shape[0] * _window_sizes(op)[0]) if any(op.attrs["padding"]) else 0
    return (size(op.outputs[0].shape) * 8, padded)


def _flags(op: Op) -> Terms:
    return (size(op.outputs[0].shape),)


def _again(op: Op) -> Terms:
    return (_bytes(op, size(op.outputs[0].shape)),)


_NUMPY: Mapping[str, Callable[[Op], Terms]] = {
    "conv2d": _numpy_conv2d,
    "conv2d_input_grad": _numpy_conv2d_input_grad,
    "max_pool2d": _numpy_max_pool2d,
    "where": _flags,
    "sigmoid": lambda op: (*_flags(op), *_again(op), *_again(op), *_again(op)),
    "gather_rows": _again,
}

_TORCH: Mapping[str, Callable[[Op], Terms]] = {
    "conv2d": _torch_conv2d,
    "conv2d_input_grad": _torch_conv2d_input_grad,
    "max_pool2d": _torch_max_pool2d,
}
