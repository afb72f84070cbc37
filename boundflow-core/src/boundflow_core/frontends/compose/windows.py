"""Convolutions and pools over one or two spatial axes: [..., C, L] is computed as [..., C, 1, L].

``padding`` is (low, high) for each spatial axis; ``kernel``, ``stride`` and ``dilation`` are one number for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.errors import IRError
from boundflow_core.frontends.compose.affine import reduce_mean
from boundflow_core.frontends.compose.layout import reshape
from boundflow_core.ir.constants import Constant, frozen
from boundflow_core.ir.primal_builder import Operand, PrimalBuilder

__all__ = ["average_pool", "conv_transpose", "convolution", "global_average_pool", "max_pool"]

Padding = Sequence[tuple[int, int]]


def convolution(
    g: PrimalBuilder,
    x: Operand,
    weight: Operand,
    bias: Operand | None,
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    groups: int = 1,
) -> Any:
    """Convolution of [..., C, (H,) W] with a constant weight [out, C/groups, (kh,) kw]."""
    return _convolved(
        g, "conv2d", x, weight, bias, len(stride),
        stride=_two(stride, 1), padding=_four(padding), dilation=_two(dilation, 1), groups=groups,
    )  # fmt: skip


def conv_transpose(
    g: PrimalBuilder,
    x: Operand,
    weight: Operand,
    bias: Operand | None,
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    groups: int = 1,
    output_padding: Sequence[int] | None = None,
) -> Any:
    """Transposed convolution of [..., C, (H,) W] with a constant weight [C, out/groups, (kh,) kw]."""
    extra = output_padding or [0] * len(stride)
    if any(more >= step for more, step in zip(extra, stride, strict=True)):
        raise IRError(f"output padding {list(extra)} must be less than the stride {list(stride)}")
    return _convolved(
        g, "conv_transpose2d", x, weight, bias, len(stride),
        stride=_two(stride, 1), padding=_four(padding), dilation=_two(dilation, 1), groups=groups,
        output_padding=_two(extra, 0),
    )  # fmt: skip


def max_pool(
    g: PrimalBuilder,
    x: Operand,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int] | None = None,
    *,
    ceil_mode: bool = False,
) -> Any:
    """Maximum of each window of [..., C, (H,) W]; what lies in the padding never counts."""
    steps = dilation or [1] * len(kernel)
    real = _padded(x, kernel, stride, padding, steps, ceil_mode)
    for axis, length in enumerate(x.shape[-len(kernel) :]):
        if not _counts(length, kernel[axis], stride[axis], real[axis], steps[axis], (0, 0)).all():
            raise IRError(f"a window of {kernel[axis]} lies outside the {length} elements of its axis")
    attrs = {"kernel": _two(kernel, 1), "stride": _two(stride, 1), "padding": _four(real), "dilation": _two(steps, 1)}
    if len(kernel) == 2:
        return g.op("max_pool2d", x, **attrs)
    return _dropped(g, g.op("max_pool2d", _lifted(g, x), **attrs))


def average_pool(
    g: PrimalBuilder,
    x: Operand,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int] | None = None,
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Any:
    """Mean of each window of [..., C, (H,) W]: a depthwise convolution.

    The padding counts among the elements where ``count_include_pad``; what ``ceil_mode`` adds beyond it never does.
    Where windows have unequal numbers of elements, their sums are multiplied by a constant map.
    """
    steps = dilation or [1] * len(kernel)
    real = _padded(x, kernel, stride, padding, steps, ceil_mode)
    counts = np.ones(())
    for axis, length in enumerate(x.shape[-len(kernel) :]):
        margin = padding[axis] if count_include_pad else (0, 0)
        counts = np.multiply.outer(counts, _counts(length, kernel[axis], stride[axis], real[axis], steps[axis], margin))
    if not counts.all():
        raise IRError(f"a window of {list(kernel)} lies outside {list(x.shape)}")
    channels = x.shape[-len(kernel) - 1]
    uniform = bool((counts == counts.flat[0]).all())
    weight = np.full((channels, 1, *kernel), 1.0 / counts.flat[0] if uniform else 1.0)
    sums = convolution(g, x, frozen(weight), None, stride, real, steps, channels)
    return sums if uniform else g.mul(sums, g.op("reciprocal", counts))


def global_average_pool(g: PrimalBuilder, x: Operand, spatial: int | None = None) -> Any:
    """Mean over the last ``spatial`` axes (all but two by default), which stay with size 1."""
    count = len(x.shape) - 2 if spatial is None else spatial
    return reduce_mean(g, x, range(-count, 0))


def _two(values: Sequence[int], missing: int) -> tuple[int, ...]:
    return tuple(int(v) for v in ([missing] * (2 - len(values)) + list(values)))


def _four(padding: Padding) -> tuple[int, ...]:
    pairs = [(0, 0)] * (2 - len(padding)) + list(padding)
    if any(side < 0 for pair in pairs for side in pair):
        raise IRError(f"padding {list(padding)} of a window is negative")
    return (int(pairs[0][0]), int(pairs[1][0]), int(pairs[0][1]), int(pairs[1][1]))


def _convolved(
    g: PrimalBuilder, op: str, x: Operand, weight: Operand, bias: Operand | None, spatial: int, **attrs: Any
) -> Any:
    if not isinstance(weight, Constant) or not isinstance(bias, Constant | None):
        raise IRError("the weights of a convolution must be constants")
    if len(weight.shape) != spatial + 2 or len(x.shape) < spatial + 1:
        raise IRError(f"weight {list(weight.shape)} and input {list(x.shape)} do not fit {spatial} spatial axes")
    biases = [] if bias is None else [bias]
    if spatial == 2:
        return g.op(op, x, weight, *biases, **attrs)
    kernel = reshape(g, weight, (*weight.shape[:2], 1, weight.shape[2]))
    return _dropped(g, g.op(op, _lifted(g, x), kernel, *biases, **attrs))


def _lifted(g: PrimalBuilder, x: Operand) -> Any:
    return reshape(g, x, (*x.shape[:-1], 1, x.shape[-1]))


def _dropped(g: PrimalBuilder, x: Operand) -> Any:
    return reshape(g, x, (*x.shape[:-2], x.shape[-1]))


def _span(kernel: int, dilation: int) -> int:
    return dilation * (kernel - 1) + 1


def _padded(
    x: Operand, kernel: Sequence[int], stride: Sequence[int], padding: Padding, dilation: Sequence[int], ceil: bool
) -> list[tuple[int, int]]:
    """Padding that makes the windows of ``ceil_mode``: the last may reach beyond, but must not start there."""
    result = []
    for axis, (low, high) in enumerate(padding):
        length, step, span = x.shape[axis - len(kernel)], stride[axis], _span(kernel[axis], dilation[axis])
        room = length + low + high - span
        if ceil and room >= 0:
            count = -(-room // step) + 1
            count -= (count - 1) * step >= length + low
            if count != room // step + 1:
                high = max((count - 1) * step + span - length - low, 0)
        result.append((low, high))
    return result


def _counts(
    length: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int, margin: tuple[int, int]
) -> NDArray[np.float64]:
    """How many of each window's elements lie within ``margin`` of the axis."""
    low, high = padding
    starts = np.arange(0, length + low + high - _span(kernel, dilation) + 1, stride) - low
    places = starts[:, None] + dilation * np.arange(kernel)
    inside = (places >= -margin[0]) & (places < length + margin[1])
    return np.asarray(inside.sum(axis=1), dtype=np.float64)
