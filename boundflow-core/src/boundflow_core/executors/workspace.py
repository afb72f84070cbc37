"""What kernels allocate for themselves while they run, in bytes, so that plans can count it.

Found by measuring (``benchmarks/memory.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

from boundflow_core.executors.convolution import Convolution, torch_adjoint_bytes, torch_forward_bytes
from boundflow_core.ir.program import Op
from boundflow_core.ir.types import concrete_dim, concrete_shape, size
from boundflow_core.planner.storage import Operand

__all__ = ["NUMPY_WORKING", "TORCH_WORKING", "numpy_workspace", "torch_workspace"]

Sizes = Mapping[str, int]
Rule = Callable[[Op, Sizes], int]


def numpy_workspace(op: Op, sizes: Sizes, operands: Sequence[Operand]) -> int:
    """Of the kernels of executor ``reference``; see :class:`boundflow_core.planner.storage.MemoryTraits`."""
    return _NUMPY[op.name](op, sizes) if op.name in _NUMPY else 0


def torch_workspace(op: Op, sizes: Sizes, operands: Sequence[Operand], *, onednn: bool) -> int:
    """Of the kernels of executor ``torch``, on a processor, where torch has oneDNN or not."""
    if op.name == "conv2d":
        return torch_forward_bytes(Convolution.of(op, sizes), onednn, operands[0].in_order, operands[-1].in_order)
    if op.name == "conv2d_input_grad":
        x, weight, result = operands
        conv = Convolution.of(op, sizes)
        return torch_adjoint_bytes(conv, onednn, x.in_order, x.channels_last, weight.fixed, result.in_order)
    return _TORCH[op.name](op, sizes) if op.name in _TORCH else 0


def _elements(op: Op, sizes: Sizes) -> int:
    return concrete_dim(size(op.outputs[0].shape), sizes)


def _again(op: Op, sizes: Sizes) -> int:
    """Another result."""
    return _elements(op, sizes) * op.outputs[0].type.dtype.itemsize


def _numpy_conv2d(op: Op, sizes: Sizes) -> int:
    """The padded input, with a group's windows as a matrix, or with the groups' outputs apart and then side by side."""
    conv = Convolution.of(op, sizes)
    padded = conv.channels * prod(conv.padded)
    out = conv.outputs * prod(conv.positions)
    return conv.images * (padded + max(conv.windows // conv.groups, 2 * out)) * conv.dtype.itemsize


def _numpy_conv2d_input_grad(op: Op, sizes: Sizes) -> int:
    """The padded result beside the products of a group with all kernel positions, made from a group in another order.

    The result itself is cut out last, when that group in another order is gone; without a border it is the padded one.
    The products of the group before are still there.
    """
    conv = Convolution.of(op, sizes)
    positions = prod(conv.positions)
    moved = 0 if 1 in (conv.images, positions, conv.outputs // conv.groups) else conv.outputs // conv.groups * positions
    products = min(2, conv.groups) * (conv.windows // conv.groups)
    if not any(conv.padding):
        return conv.images * (products + moved) * conv.dtype.itemsize
    padded, result = conv.channels * prod(conv.padded), conv.channels * prod(conv.size)
    return conv.images * (padded + products + max(moved - result, 0)) * conv.dtype.itemsize


def _padded_input(op: Op, sizes: Sizes) -> int:
    images, channels, height, width = concrete_shape(op.inputs[0].shape, sizes)
    top, left, bottom, right = op.attrs["padding"]
    count: int = images * channels * (height + top + bottom) * (width + left + right)
    return count * op.outputs[0].type.dtype.itemsize


def _torch_max_pool2d(op: Op, sizes: Sizes) -> int:
    """Which element was the largest, as int64."""
    return _elements(op, sizes) * 8 + (_padded_input(op, sizes) if any(op.attrs["padding"]) else 0)


_NUMPY: Mapping[str, Rule] = {
    "conv2d": _numpy_conv2d,
    "conv2d_input_grad": _numpy_conv2d_input_grad,
    "max_pool2d": _padded_input,
    "where": _elements,
    "sigmoid": lambda op, sizes: _elements(op, sizes) + 3 * _again(op, sizes),
}

_TORCH: Mapping[str, Rule] = {
    "max_pool2d": _torch_max_pool2d,
}

# The primitives whose kernels take workspace.
NUMPY_WORKING = frozenset(_NUMPY)
TORCH_WORKING = frozenset({"conv2d", "conv2d_input_grad", *_TORCH})
