"""Convolutions and pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boundflow_core.errors import IRError
from boundflow_core.frontends import compose
from boundflow_onnx.node import Converter, OnnxNode

__all__ = ["CONVERTERS"]


@dataclass(frozen=True)
class _Window:
    """Geometry of a sliding window, one entry a spatial axis."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    padding: list[tuple[int, int]]


def _window(n: OnnxNode, kernel: Sequence[int]) -> _Window:
    """The window that a node's attributes describe, padded as `auto_pad` asks."""
    spatial = n.operand().shape[2:]
    count = len(spatial)
    if count not in (1, 2):
        n.unsupported(f"over {count} spatial axes", "only one or two are supported")
    ones = [1] * count
    kernel, stride = list(n.attribute("kernel_shape", kernel)), list(n.attribute("strides", ones))
    dilation, pads = list(n.attribute("dilations", ones)), list(n.attribute("pads", [0] * 2 * count))
    if {len(kernel), len(stride), len(dilation), len(pads) // 2} != {count}:
        raise IRError(f"kernel, strides, dilations or pads do not fit {count} spatial axes")
    padding = list(zip(pads[:count], pads[count:], strict=True))
    automatic = n.attribute("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((-(-size // step) - 1) * step + far * (k - 1) + 1 - size, 0)
            for size, k, step, far in zip(spatial, kernel, stride, dilation, strict=True)
        ]
        padding = [_shared(total, automatic == "SAME_UPPER") for total in totals]
    elif automatic == "VALID":
        padding = [(0, 0)] * count
    elif automatic != "NOTSET":
        n.unsupported(f"with auto_pad={automatic!r}")
    return _Window(kernel, stride, dilation, padding)


def _shared(total: int, upper: bool) -> tuple[int, int]:
    """Padding on both sides; an odd element goes to the end where ``upper``, else to the beginning."""
    less, more = total // 2, total - total // 2
    return (less, more) if upper else (more, less)


def _conv(n: OnnxNode) -> Any:
    weight = n.weight(1, "weights")
    window = _window(n, weight.shape[2:])
    if window.kernel != list(weight.shape[2:]):
        raise IRError(f"kernel_shape {window.kernel} contradicts the weight {list(weight.shape)}")
    bias = n.weight(2, "biases") if n.has(2) else None
    return compose.convolution(
        n.g, n.operand(), weight, bias, window.stride, window.padding, window.dilation, n.attribute("group", 1)
    )


def _conv_transpose(n: OnnxNode) -> Any:
    weight = n.weight(1, "weights")
    window = _window(n, weight.shape[2:])
    spatial = n.operand().shape[2:]
    extra = list(n.attribute("output_padding", [0] * len(spatial)))
    padding, automatic = window.padding, n.attribute("auto_pad", "NOTSET")
    wanted = n.attribute("output_shape")
    if wanted is None and automatic.startswith("SAME"):
        wanted = [size * step for size, step in zip(spatial, window.stride, strict=True)]
    if wanted is not None:
        full = [
            (size - 1) * step + far * (k - 1) + 1 + more
            for size, k, step, far, more in zip(
                spatial, window.kernel, window.stride, window.dilation, extra, strict=True
            )
        ]
        totals = [have - want for have, want in zip(full, wanted[-len(spatial) :], strict=True)]
        padding = [_shared(max(total, 0), automatic == "SAME_UPPER") for total in totals]
        extra = [more + max(-total, 0) for more, total in zip(extra, totals, strict=True)]
    bias = n.weight(2, "biases") if n.has(2) else None
    return compose.conv_transpose(
        n.g, n.operand(), weight, bias, window.stride, padding, window.dilation, n.attribute("group", 1), extra
    )


def _max_pool(n: OnnxNode) -> Any:
    if n.reads(1):
        n.unsupported("with its output Indices")
    window = _window(n, ())
    return compose.max_pool(
        n.g, n.operand(), window.kernel, window.stride, window.padding, window.dilation,
        ceil_mode=bool(n.attribute("ceil_mode", 0)),
    )  # fmt: skip


def _average_pool(n: OnnxNode) -> Any:
    window = _window(n, ())
    return compose.average_pool(
        n.g, n.operand(), window.kernel, window.stride, window.padding, window.dilation,
        ceil_mode=bool(n.attribute("ceil_mode", 0)), count_include_pad=bool(n.attribute("count_include_pad", 0)),
    )  # fmt: skip


def _global_average_pool(n: OnnxNode) -> Any:
    return compose.global_average_pool(n.g, n.operand())


def _global_max_pool(n: OnnxNode) -> Any:
    return n.g.op("reduce_max", n.operand(), axes=tuple(range(2, len(n.operand().shape))), keepdims=True)


CONVERTERS: Mapping[str, Converter] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "MaxPool": _max_pool,
}
