"""Convolutions of images, and of bounds in centre/radius form: vectors of output channels, a few pixels at a time.

An image, or its centre and radius, lies with zeros around it. A register tile holds the sums of some pixels of a row,
or their sums of centres and of radii; each weight is read once for all. Images of the result are turned from
[pixels, channels] to [channels, pixels] in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.program import Op
from boundflow_tvm.templates.interface import Input, Kernel, Operand, Output, Packed, Scratch
from boundflow_tvm.templates.lanes import transposed
from boundflow_tvm.templates.machine import Machine, machine
from boundflow_tvm.templates.taps import tiles
from boundflow_tvm.templates.writer import Writer

__all__ = ["conv2d", "interval_conv2d"]

VERSION = 2


@dataclass(frozen=True)
class _Layer:
    """A convolution's numbers; ``padded`` is the extent of an image with its borders.

    Attributes:
        parts: what is convolved: 1: images, 2: centres with the weight, and radii with its magnitudes.
    """

    parts: int
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
    """Bounds of convolutions without groups, with weight and bias known beforehand."""
    return _kernel(op, known, 2)


def conv2d(op: Op, known: Sequence[bool]) -> Kernel | None:
    """Convolutions without groups, with a weight known beforehand."""
    return _kernel(op, known, 1)


def _kernel(op: Op, known: Sequence[bool], parts: int) -> Kernel | None:
    """``parts`` arrays of images come in and go out; behind them stand the weight and perhaps a bias."""
    attrs, weight = op.attrs, op.inputs[parts]
    dims = (*op.inputs[0].shape[1:], *weight.shape, *op.outputs[0].shape[1:])
    if attrs["groups"] != 1 or not all(known[parts:]) or any(not isinstance(d, int) or d == 0 for d in dims):
        return None
    numbers = [d for d in dims if isinstance(d, int)]
    layer = _Layer(
        parts,
        numbers[0],
        (numbers[1], numbers[2]),
        numbers[3],
        (numbers[8], numbers[9]),
        (numbers[5], numbers[6]),
        tuple(attrs["stride"]),
        tuple(attrs["dilation"]),
        tuple(attrs["padding"]),
        len(op.inputs) > parts + 1,
    )
    dtype, found = str(op.inputs[0].type.dtype), machine()
    lanes = _lanes(layer, found.lanes(dtype))
    operands: list[Operand] = [Input(number) for number in range(parts)]
    operands.append(Packed((parts,), lambda w: _pack(w, lanes), f"conv/{lanes}"))
    if layer.bias:
        operands.append(Packed((parts + 1,), lambda b: _pack(b.reshape(-1, 1, 1, 1), lanes), f"conv-bias/{lanes}"))
    operands += [
        Scratch((parts, layer.channels, *layer.padded), dtype),
        Scratch((parts, layer.positions[0] * layer.positions[1], lanes), dtype),
        *(Output(number) for number in range(parts)),
    ]
    return Kernel(
        name=op.name,
        key=f"{VERSION} {found.name} {dtype} {layer}",
        build=lambda: _build(layer, dtype, found),
        operands=tuple(operands),
        flops=2.0 * parts * layer.positions[0] * layer.positions[1] * float(np.prod(numbers[3:7])),
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


def _pixels(width: int, parts: int, accumulators: int) -> int:
    """Pixels in a register tile: as few tiles as possible, of about the same size."""
    most = max(1, accumulators // parts)
    return -(-width // -(-width // most))


def _build(layer: _Layer, dtype: str, machine: Machine) -> Any:
    w, lanes = Writer(dtype), _lanes(layer, machine.lanes(dtype))
    images, groups = w.size("B"), -(-layer.outputs // lanes)
    (height, width), (kh, kw) = layer.positions, layer.kernel
    sources = [w.param((images, layer.channels, *layer.extent)) for _ in range(layer.parts)]
    weight = w.param((groups, layer.channels, kh, kw, lanes))
    offset = w.param((groups, 1, 1, 1, lanes)) if layer.bias else None
    ready = w.param((layer.parts, layer.channels, *layer.padded))
    made = w.param((layer.parts, height * width, lanes))
    results = [w.param((images, layer.outputs, height, width)) for _ in range(layer.parts)]
    with w.loop(images) as image:
        _make_ready(w, layer, sources, image, ready, machine.lanes(dtype))
        with w.loop(groups) as group:
            with w.loop(height) as y:
                for tile in tiles(width, _pixels(width, layer.parts, machine.accumulators)):
                    with w.loop(tile.count) as t:
                        x = w.keep(t * tile.size + tile.start)
                        _tile(w, layer, (y, x, tile.size), group, (ready, weight, offset, made), lanes)
            for part in range(layer.parts):
                _turn_out(w, layer, made, part, results[part], (image, group), lanes)
    return w.function()


def _make_ready(w: Writer, layer: _Layer, sources: Sequence[Any], image: Any, ready: Any, lanes: int) -> None:
    """The image, or centre and radius, within the border, which stays zero. Halves first: their sum cannot overflow."""
    top, left, _, _ = layer.padding
    with w.loop(layer.channels) as c, w.loop(layer.extent[0]) as y:
        for tile in tiles(layer.extent[1], lanes):
            size = tile.size if tile.size & (tile.size - 1) == 0 else 1
            with w.loop(tile.count * tile.size // size) as t:
                x = w.keep(t * size + tile.start)
                found = [w.keep(w.load(source, image, c, y, x, lanes=size)) for source in sources]
                if layer.parts == 2:
                    low, high = (w.keep(x * w.spread(0.5, size)) for x in found)
                    found = [low + high, high - low]
                for part, value in enumerate(found):
                    w.store(value, ready, part, c, y + top, x + left, lanes=size)


def _tile(
    w: Writer, layer: _Layer, at: tuple[Any, Any, int], group: Any, arrays: tuple[Any, Any, Any, Any], lanes: int
) -> None:
    """``count`` pixels of row ``y`` from ``x`` on, for one vector of channels."""
    (y, x, count), (ready, weight, offset, made) = at, arrays
    sums = [[w.local(lanes) for _ in range(count)] for _ in range(layer.parts)]
    for part, p in product(range(layer.parts), range(count)):
        biased = offset is not None and part == 0
        begin = w.load(offset, group, 0, 0, 0, 0, lanes=lanes) if biased else w.spread(0.0, lanes)
        w.store(begin, sums[part][p], 0, lanes=lanes)
    with w.loop(layer.channels) as c, w.loop(layer.kernel[0]) as ky, w.loop(layer.kernel[1]) as kx:
        vector = w.keep(w.load(weight, group, c, ky, kx, 0, lanes=lanes))
        row = w.keep(y * layer.stride[0] + ky * layer.dilation[0])
        column = w.keep(x * layer.stride[1] + kx * layer.dilation[1])
        factors = [vector, w.keep(w.absolute(vector))] if layer.parts == 2 else [vector]
        for part, factor in enumerate(factors):
            for p in range(count):
                term = w.spread(w.load(ready, part, c, row, column + p * layer.stride[1]), lanes) * factor
                held = sums[part][p]
                w.store(w.load(held, 0, lanes=lanes) + term, held, 0, lanes=lanes)
    for p in range(count):
        found = [w.keep(w.load(s[p], 0, lanes=lanes)) for s in sums]
        if layer.parts == 2:
            centre, radius = found
            found = [centre - radius, centre + radius]
        for part, value in enumerate(found):
            w.store(value, made, part, y * layer.positions[1] + x + p, 0, lanes=lanes)


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
