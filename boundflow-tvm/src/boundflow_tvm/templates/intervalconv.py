"""Bounds of convolutions, in centre/radius form: vectors of output channels, a few pixels at a time.

Centre and radius of an image are computed once, with zeros around them. A register tile holds sums of centres and of
radii for some pixels of a row; each weight is read once for both. Images of the result are turned from
[pixels, channels] to [channels, pixels] in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.program import Op
from boundflow_tvm.templates.interface import Input, Kernel, Operand, Output, Packed, Scratch
from boundflow_tvm.templates.lanes import transposed
from boundflow_tvm.templates.machine import Machine, machine
from boundflow_tvm.templates.taps import tiles
from boundflow_tvm.templates.writer import Writer

__all__ = ["interval_conv2d"]

VERSION = 1


@dataclass(frozen=True)
class _Layer:
    """A convolution's numbers; ``padded`` is the extent of an image with its borders."""

    channels: int
    extent: tuple[int, int]
    outputs: int
    positions: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    bias: bool

    @property
    def padded(self) -> tuple[int, int]:
        top, left, bottom, right = self.padding
        return self.extent[0] + top + bottom, self.extent[1] + left + right


def interval_conv2d(op: Op, known: Sequence[bool]) -> Kernel | None:
    """Convolutions without groups, with weight and bias known beforehand."""
    attrs, weight = op.attrs, op.inputs[2]
    dims = (*op.inputs[0].shape[1:], *weight.shape, *op.outputs[0].shape[1:])
    if attrs["groups"] != 1 or not all(known[2:]) or any(not isinstance(d, int) or d == 0 for d in dims):
        return None
    numbers = [d for d in dims if isinstance(d, int)]
    layer = _Layer(
        numbers[0],
        (numbers[1], numbers[2]),
        numbers[3],
        (numbers[8], numbers[9]),
        (numbers[5], numbers[6]),
        tuple(attrs["stride"]),
        tuple(attrs["dilation"]),
        tuple(attrs["padding"]),
        len(op.inputs) == 4,
    )
    dtype, found = str(op.inputs[0].type.dtype), machine()
    lanes = _lanes(layer, found.lanes(dtype))
    operands: list[Operand] = [Input(0), Input(1), Packed((2,), lambda w: _pack(w, lanes), f"interval-conv/{lanes}")]
    if layer.bias:
        operands.append(Packed((3,), lambda b: _pack(b.reshape(-1, 1, 1, 1), lanes), f"interval-conv-bias/{lanes}"))
    operands += [
        Scratch((2, layer.channels, *layer.padded), dtype),
        Scratch((2, layer.positions[0] * layer.positions[1], lanes), dtype),
        Output(0),
        Output(1),
    ]
    return Kernel(
        name="interval_conv2d",
        key=f"{VERSION} {found.name} {dtype} {layer}",
        build=lambda: _build(layer, dtype, found),
        operands=tuple(operands),
        flops=4.0 * layer.positions[0] * layer.positions[1] * float(np.prod(numbers[3:7])),
    )


def _lanes(layer: _Layer, most: int) -> int:
    """Output channels in a vector: no more than there are, rounded up to a power of two."""
    lanes = most
    while lanes > 2 and lanes // 2 >= layer.outputs:
        lanes //= 2
    return lanes


def _pack(weight: NDArray[Any], lanes: int) -> NDArray[Any]:
    """[O, C, kh, kw] as [O / lanes, C, kh, kw, lanes], filled up with zeros."""
    outputs = weight.shape[0]
    padded = np.zeros((-(-outputs // lanes) * lanes, *weight.shape[1:]), weight.dtype)
    padded[:outputs] = weight
    return np.ascontiguousarray(padded.reshape(-1, lanes, *weight.shape[1:]).transpose(0, 2, 3, 4, 1))


def _pixels(width: int, accumulators: int) -> int:
    """Pixels in a register tile: as few tiles as possible, of about the same size."""
    most = max(1, accumulators // 2)
    return -(-width // -(-width // most))


def _build(layer: _Layer, dtype: str, machine: Machine) -> Any:
    w, lanes = Writer(dtype), _lanes(layer, machine.lanes(dtype))
    images, groups = w.size("B"), -(-layer.outputs // lanes)
    (height, width), (kh, kw) = layer.positions, layer.kernel
    lower, upper = (w.param((images, layer.channels, *layer.extent)) for _ in range(2))
    weight = w.param((groups, layer.channels, kh, kw, lanes))
    offset = w.param((groups, 1, 1, 1, lanes)) if layer.bias else None
    ready = w.param((2, layer.channels, *layer.padded))
    made = w.param((2, height * width, lanes))
    results = [w.param((images, layer.outputs, height, width)) for _ in range(2)]
    with w.loop(images) as image:
        _centre_radius(w, layer, (lower, upper), image, ready, machine.lanes(dtype))
        with w.loop(groups) as group:
            with w.loop(height) as y:
                for tile in tiles(width, _pixels(width, machine.accumulators)):
                    with w.loop(tile.count) as t:
                        x = w.keep(t * tile.size + tile.start)
                        _tile(w, layer, (y, x, tile.size), group, (ready, weight, offset, made), lanes)
            for part in range(2):
                _turn_out(w, layer, made, part, results[part], (image, group), lanes)
    return w.function()


def _centre_radius(w: Writer, layer: _Layer, bounds: tuple[Any, Any], image: Any, ready: Any, lanes: int) -> None:
    """Centre and radius within the border, which stays zero. Halves first, as their sum cannot overflow."""
    top, left, _, _ = layer.padding
    with w.loop(layer.channels) as c, w.loop(layer.extent[0]) as y:
        for tile in tiles(layer.extent[1], lanes):
            size = tile.size if tile.size & (tile.size - 1) == 0 else 1
            with w.loop(tile.count * tile.size // size) as t:
                x = w.keep(t * size + tile.start)
                low, high = (w.keep(w.load(b, image, c, y, x, lanes=size) * w.spread(0.5, size)) for b in bounds)
                w.store(low + high, ready, 0, c, y + top, x + left, lanes=size)
                w.store(high - low, ready, 1, c, y + top, x + left, lanes=size)


def _tile(
    w: Writer, layer: _Layer, at: tuple[Any, Any, int], group: Any, arrays: tuple[Any, Any, Any, Any], lanes: int
) -> None:
    """``count`` pixels of row ``y`` from ``x`` on, for one vector of channels."""
    (y, x, count), (ready, weight, offset, made) = at, arrays
    sums = [[w.local(lanes) for _ in range(count)] for _ in range(2)]
    for p in range(count):
        begin = w.load(offset, group, 0, 0, 0, 0, lanes=lanes) if offset is not None else w.spread(0.0, lanes)
        w.store(begin, sums[0][p], 0, lanes=lanes)
        w.store(w.spread(0.0, lanes), sums[1][p], 0, lanes=lanes)
    with w.loop(layer.channels) as c, w.loop(layer.kernel[0]) as ky, w.loop(layer.kernel[1]) as kx:
        vector = w.keep(w.load(weight, group, c, ky, kx, 0, lanes=lanes))
        row = w.keep(y * layer.stride[0] + ky * layer.dilation[0])
        column = w.keep(x * layer.stride[1] + kx * layer.dilation[1])
        for part, factor in ((0, vector), (1, w.keep(w.absolute(vector)))):
            for p in range(count):
                term = w.spread(w.load(ready, part, c, row, column + p * layer.stride[1]), lanes) * factor
                held = sums[part][p]
                w.store(w.load(held, 0, lanes=lanes) + term, held, 0, lanes=lanes)
    for p in range(count):
        centre, radius = (w.keep(w.load(s[p], 0, lanes=lanes)) for s in sums)
        place = y * layer.positions[1] + x + p
        w.store(centre - radius, made, 0, place, 0, lanes=lanes)
        w.store(centre + radius, made, 1, place, 0, lanes=lanes)


def _turn_out(w: Writer, layer: _Layer, made: Any, part: int, result: Any, at: tuple[Any, Any], lanes: int) -> None:
    """[pixels, channels of a vector] to [channels, pixels]."""
    (image, group), pixels = at, layer.positions[0] * layer.positions[1]
    if pixels < lanes or layer.outputs % lanes:
        left = w.minimum(w.integer(lanes), layer.outputs - group * lanes)
        with w.loop(w.keep(left)) as lane, w.loop(pixels) as place:
            w.store(w.load(made, part, place, lane), result, image, group * lanes + lane, 0, place)
        return
    with w.loop(-(-pixels // lanes)) as square:  # the last one takes pixels before it once more
        place = w.keep(w.minimum(square * lanes, w.integer(pixels - lanes)))
        vectors = [w.keep(w.load(made, part, place + p, 0, lanes=lanes)) for p in range(lanes)]
        for lane, vector in enumerate(transposed(w, vectors)):
            w.store(vector, result, image, group * lanes + lane, 0, place, lanes=lanes)
