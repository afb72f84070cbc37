"""Moving elements about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from boundflow_core.errors import IRError
from boundflow_core.frontends import compose
from boundflow_onnx.node import Converter, OnnxNode

__all__ = ["CONVERTERS"]


def _shape(n: OnnxNode) -> Any:
    """The shape of any value is known, whatever the value."""
    return np.array(n.operand().shape[n.attribute("start", 0) : n.attribute("end")], dtype=np.int64)


def _size(n: OnnxNode) -> Any:
    return np.array(math.prod(n.operand().shape), dtype=np.int64)


def _flatten(n: OnnxNode) -> Any:
    """A matrix: the axes before `axis` by those from it on."""
    shape, axis = n.operand().shape, n.attribute("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise IRError(f"axis {axis} does not exist in {len(shape)} axes")
    axis = axis + len(shape) if axis < 0 else axis
    return compose.reshape(n.g, n.operand(), (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _reshape(n: OnnxNode) -> Any:
    """0 keeps a dimension (unless `allowzero`), -1 takes what is left."""
    shape, wanted = n.operand().shape, n.integers(1, "shapes")
    if not n.attribute("allowzero", 0):
        wanted = [shape[axis] if dim == 0 else dim for axis, dim in enumerate(wanted)]
    return compose.reshape(n.g, n.operand(), wanted)


def _squeeze(n: OnnxNode) -> Any:
    return compose.squeeze(n.g, n.operand(), n.integer_list("axes", 1, 13, "axes"))


def _unsqueeze(n: OnnxNode) -> Any:
    axes = n.integer_list("axes", 1, 13, "axes")
    if axes is None:
        raise IRError("axes are missing")
    return compose.unsqueeze(n.g, n.operand(), axes)


def _transpose(n: OnnxNode) -> Any:
    rank = len(n.operand().shape)
    return compose.permute(n.g, n.operand(), n.attribute("perm", range(rank)[::-1]))


def _concat(n: OnnxNode) -> Any:
    return compose.concat(n.g, n.operands, n.attribute("axis"))


def _split(n: OnnxNode) -> Any:
    """Into parts of given sizes, or into equal ones of which the last may be smaller."""
    x = n.operand()
    axis = compose.axis_of(n.attribute("axis", 0), len(x.shape))
    sizes = n.integer_list("split", 1, 13, "sizes of parts")
    if sizes is None:
        total, count = x.shape[axis], n.attribute("num_outputs", len(n.proto.output))
        each = -(-total // count)
        sizes = [min(each, total - each * number) for number in range(count)]
    return compose.split(n.g, x, sizes, axis)


def _slice(n: OnnxNode) -> Any:
    """Attributes before opset 10, operands from then on."""
    if n.opset < 10:
        return compose.slice_(n.g, n.operand(), n.attribute("starts"), n.attribute("ends"), None, n.attribute("axes"))
    axes = n.integers(3, "axes") if n.has(3) else None
    steps = n.integers(4, "steps") if n.has(4) else None
    return compose.slice_(n.g, n.operand(), n.integers(1, "starts"), n.integers(2, "ends"), steps, axes)


def _gather(n: OnnxNode) -> Any:
    return compose.gather(n.g, n.operand(), n.array(1, "indices"), n.attribute("axis", 0))


def _pad(n: OnnxNode) -> Any:
    """Amounts and value are attributes before opset 11; from opset 18 on some axes may be chosen."""
    x, mode = n.operand(), n.attribute("mode", "constant")
    rank = len(x.shape)
    value = n.attribute("value", 0.0) if n.opset < 11 else 0.0
    pads = n.integer_list("pads", 1, 11, "amounts") or []
    if n.opset >= 11 and n.has(2):
        value = float(n.array(2, "fill values").item())
    axes = n.integers(3, "axes") if n.has(3) else list(range(rank))
    if len(pads) != 2 * len(axes):
        raise IRError(f"{len(pads)} amounts of padding do not fit {len(axes)} axes")
    low, high = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        low[compose.axis_of(axis, rank)], high[compose.axis_of(axis, rank)] = pads[place], pads[place + len(axes)]
    if not math.isfinite(value):
        n.unsupported(f"with {value}", "bounds of a network need finite values")
    return compose.pad(n.g, x, low, high, value, mode)


def _expand(n: OnnxNode) -> Any:
    return compose.expand(n.g, n.operand(), n.integers(1, "shapes"))


def _tile(n: OnnxNode) -> Any:
    return compose.tile(n.g, n.operand(), n.integers(1, "repeats"))


def _depth_to_space(n: OnnxNode) -> Any:
    """Blocks of channels become blocks of pixels; `mode` says which way the channels are counted."""
    x, block = n.operand(), n.attribute("blocksize")
    batch, channels, height, width = x.shape
    deep = channels // block**2
    if n.attribute("mode", "DCR") == "DCR":
        apart, order = (batch, block, block, deep, height, width), (0, 3, 4, 1, 5, 2)
    else:
        apart, order = (batch, deep, block, block, height, width), (0, 1, 4, 2, 5, 3)
    pixels = compose.permute(n.g, compose.reshape(n.g, x, apart), order)
    return compose.reshape(n.g, pixels, (batch, deep, height * block, width * block))


CONVERTERS: Mapping[str, Converter] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
