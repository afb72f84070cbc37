"""Convolutions of concrete sizes: in which way torch computes one on a processor, in what pieces, in what memory.

No way allocates more than a piece at a time beside the result, which lies in planned memory. Workspaces of this size
are handed out again by the C library's allocator, where larger ones are returned to the system each time and cost page
faults, and they stay in the processor's cache between the parts of a computation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.program import Op
from boundflow_core.ir.types import DType, concrete_shape

__all__ = [
    "PIECE",
    "Convolution",
    "Taps",
    "Way",
    "adjoint_way",
    "forward_way",
    "torch_adjoint_bytes",
    "torch_forward_bytes",
]

# Bytes of operands and results of a piece. Pieces of 1 MiB cost up to a fifth more time, and from 32 MiB on the C
# library takes memory from the system anew each time, which cost four times a convolution's own time.
PIECE = 2**22

# Vectors of 16 floats, by which oneDNN arranges channels; other processors have shorter ones, and need less.
BLOCK = 16

# Below this many multiplications oneDNN spends its time on preparing itself: a 3x3 kernel on an image of 16 channels of
# 8x8 (0.15 M) takes three times as long as natively, four images take as long, 32 a third.
LEAST_WORK = 400_000

# Above, going through the images one by one takes longer than that too.
MANY_IMAGES = 64

# Below this length of a line, to copy images into a border on one side takes longer than to compute a few more results.
SHORT_LINE = 16


class Way(Enum):
    """How a convolution, or its adjoint with respect to the input, is computed.

    Attributes:
        NATIVE: by torch's own kernels, which multiply each image's windows as a matrix (im2col); the adjoint adds up
            the windows that the product gives. What torch chooses itself for float64 and for little work.
        PRODUCT: likewise, written out, for the groups, dilations and uneven borders that these kernels do not take.
        ONEDNN: by oneDNN, which for float32 has kernels of its own that run at up to twice the speed of such products.
            The adjoint is a convolution of stride 1 per remainder of the position by the stride: half as long as
            torch's adjoint onto 3 and 8 channels, and about as long onto 16 and more.
        POINTWISE: of adjoints of kernels 1x1: a product for each image, whose elements go to every s-th place.
    """

    NATIVE = "native"
    PRODUCT = "product"
    ONEDNN = "onednn"
    POINTWISE = "pointwise"


@dataclass(frozen=True)
class Taps:
    """One axis of the adjoint: output ``stride * j + a`` is the sum over t of ``g[j + first_a + t] w[kernel[a][t]]``.

    With stride s, the outputs ``s j + a`` of the adjoint for one remainder ``a`` are a convolution of stride 1 with
    every s-th element of the kernel (Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient
    Sub-Pixel Convolutional Neural Network, 2016). Remainders may read from different places on, so that the one
    convolution for all of them has no more taps than each needs; it then gives a few results that nobody reads.

    Attributes:
        remainders: those whose outputs get anything; all others are zero.
        kernel: place in the kernel, per such remainder and tap; None where there is none.
        starts: which of the convolution's results is the first output, per such remainder.
        low, high: borders that the gradient needs.
        count: outputs per remainder.
        results: of the convolution, per remainder.
    """

    remainders: tuple[int, ...]
    kernel: tuple[tuple[int | None, ...], ...]
    starts: tuple[int, ...]
    low: int
    high: int
    count: int
    results: int

    @staticmethod
    def of(kernel: int, stride: int, padding: int, positions: int, extent: int) -> Taps:
        places = {
            (a, (a + padding - k) // stride): k
            for a in range(stride)
            for k in range(kernel)
            if (a + padding - k) % stride == 0
        }
        count = -(-extent // stride)
        remainders = tuple(a for a in range(min(stride, extent)) if any(a == b for b, _ in places))
        ranges = [[t for b, t in places if a == b] for a in remainders] or [[0]]
        taps = max(max(ts) - min(ts) + 1 for ts in ranges)
        first = min(min(ts) for ts in ranges)
        firsts = tuple(max(first, max(ts) - taps + 1) for ts in ranges)
        table = tuple(
            tuple(places.get((a, f + t)) for t in range(taps)) for a, f in zip(remainders, firsts, strict=False)
        )
        low, high = -first, count - 1 + max(firsts) + taps - positions
        even = positions < SHORT_LINE and min(low, high) >= 0
        before, after = (max(low, high),) * 2 if even else (low, high)
        starts = tuple(f - first + before - low for f in firsts)
        return Taps(remainders, table, starts, before, after, count, positions + before + after - taps + 1)


@dataclass(frozen=True)
class Convolution:
    """Sizes of a convolution [N, C, H, W] -> [N, O, h, w], or of its adjoint, which goes the other way."""

    images: int
    channels: int
    outputs: int
    groups: int
    size: tuple[int, int]
    positions: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    dtype: DType

    @staticmethod
    def of(op: Op, sizes: Mapping[str, int]) -> Convolution:
        """Of an operation ``conv2d`` or ``conv2d_input_grad``."""
        first, weight = (concrete_shape(value.shape, sizes) for value in op.inputs)
        out = concrete_shape(op.outputs[0].shape, sizes)
        x, y = (first, out) if op.name == "conv2d" else (out, first)
        return Convolution(
            images=x[0],
            channels=x[1],
            outputs=y[1],
            groups=op.attrs["groups"],
            size=(x[2], x[3]),
            positions=(y[2], y[3]),
            kernel=(weight[2], weight[3]),
            stride=op.attrs["stride"],
            dilation=op.attrs["dilation"],
            padding=op.attrs["padding"],
            dtype=op.outputs[0].type.dtype,
        )

    @property
    def work(self) -> int:
        """Number of multiplications."""
        return self.images * self.outputs * self.windows // self.groups

    @property
    def windows(self) -> int:
        """Elements of all windows of an image."""
        return self.channels * prod(self.kernel) * prod(self.positions)

    @property
    def padded(self) -> tuple[int, int]:
        top, left, bottom, right = self.padding
        return self.size[0] + top + bottom, self.size[1] + left + right

    @property
    def is_pointwise(self) -> bool:
        """Whether the windows of an image are the image."""
        return self.kernel == self.stride == (1, 1) and not any(self.padding)

    @property
    def is_whole(self) -> bool:
        """Whether the only window of an image is the image."""
        return self.kernel == self.size and not any(self.padding) and self.groups == 1

    @property
    def output_padding(self) -> tuple[int, int]:
        """Rows and columns of the image beyond the last window's, borders aside."""
        rows, columns = (
            self.size[a] + 2 * self.padding[a] - (self.positions[a] - 1) * self.stride[a] - self.kernel[a]
            for a in (0, 1)
        )
        return rows, columns

    @property
    def is_native(self) -> bool:
        """Whether torch's own kernels can compute it and its adjoint."""
        return self.groups == 1 and self.dilation == (1, 1) and self.is_even and self.images > 0

    @property
    def is_even(self) -> bool:
        """Whether the borders on both sides of an axis are equal."""
        return self.padding[:2] == self.padding[2:]

    @cached_property
    def taps(self) -> tuple[Taps, Taps]:
        """Of the adjoint, by axis."""
        rows, columns = (
            Taps.of(self.kernel[a], self.stride[a], self.padding[a], self.positions[a], self.size[a]) for a in (0, 1)
        )
        return rows, columns

    @property
    def subpixel(self) -> Convolution:
        """The convolution of stride 1 that gives the adjoint for all remainders, as channels."""
        rows, columns = self.taps
        return Convolution(
            images=self.images,
            channels=self.outputs,
            outputs=len(rows.remainders) * len(columns.remainders) * self.channels,
            groups=1,
            size=self.positions,
            positions=(rows.results, columns.results),
            kernel=(len(rows.kernel[0]), len(columns.kernel[0])),
            stride=(1, 1),
            dilation=(1, 1),
            padding=(rows.low, columns.low, rows.high, columns.high),
            dtype=self.dtype,
        )

    @property
    def weight_places(self) -> NDArray[np.int64]:
        """Where the weights [remainders * C, O, taps, taps] of :attr:`subpixel` stand in the convolution's own
        [O, C, kh, kw] with a zero after it, all flattened."""
        rows, columns = self.taps
        outputs, channels, (kh, kw) = self.outputs, self.channels, self.kernel
        places = [
            outputs * channels * kh * kw if y is None or x is None else ((o * channels + c) * kh + y) * kw + x
            for row in rows.kernel
            for column in columns.kernel
            for c in range(channels)
            for o in range(outputs)
            for y in row
            for x in column
        ]
        return np.array(places, dtype=np.int64)

    @property
    def result_places(self) -> NDArray[np.int64]:
        """Which result of :attr:`subpixel`, flattened for an image, is each element of the adjoint: [C, H, W]; where
        remainders are left out, any."""
        (rows, columns), inner = self.taps, self.subpixel
        shape = (len(rows.remainders), len(columns.remainders), self.channels, *inner.positions)
        results = np.arange(prod(shape)).reshape(shape)
        places = np.zeros((self.channels, *self.size), dtype=np.int64)
        for row, (a, y) in enumerate(zip(rows.remainders, rows.starts, strict=True)):
            for column, (b, x) in enumerate(zip(columns.remainders, columns.starts, strict=True)):
                target = places[:, a :: self.stride[0], b :: self.stride[1]]
                target[...] = results[row, column, :, y : y + target.shape[1], x : x + target.shape[2]]
        return places

    def piece(self, way: Way) -> int:
        """Number of images that are computed at a time."""
        image = self.channels * prod(self.size) + self.outputs * prod(self.positions)
        count = image if way in (Way.ONEDNN, Way.POINTWISE) or self.is_pointwise else image + self.windows
        most = max(1, PIECE // (count * self.dtype.itemsize))
        return -(-self.images // -(-self.images // most)) if self.images else 1


def forward_way(conv: Convolution, onednn: bool) -> Way:
    """The faster way on one core, as measured on the convolutions of the benchmark networks."""
    if conv.is_whole:
        return Way.PRODUCT
    if onednn and _pays(conv):
        return Way.ONEDNN
    return Way.NATIVE if conv.is_native else Way.PRODUCT


def _pays(conv: Convolution) -> bool:
    """Whether oneDNN's kernels make up for preparing themselves, and for bringing the weights into their order."""
    if conv.dtype is not DType.FLOAT32:
        return False
    return conv.work >= (LEAST_WORK if conv.images > 1 else 10 * LEAST_WORK) or conv.images > MANY_IMAGES


def adjoint_way(conv: Convolution, onednn: bool) -> Way:
    """Likewise of the adjoint."""
    plain = conv.groups == 1 and conv.dilation == (1, 1)
    if plain and conv.kernel == (1, 1) and not any(conv.padding):
        return Way.POINTWISE
    if onednn and _pays(conv) and plain and min(conv.subpixel.padding) >= 0 and conv.subpixel.outputs:
        return Way.ONEDNN
    enlarged = all(0 <= more < step for more, step in zip(conv.output_padding, conv.stride, strict=True))
    return Way.NATIVE if conv.is_native and enlarged else Way.PRODUCT


def torch_forward_bytes(conv: Convolution, onednn: bool, in_order: bool, result: bool) -> int:
    """What computing ``conv`` allocates beside its result at a time. ``in_order``, ``result``: these are row-major."""
    way = forward_way(conv, onednn)
    if way is Way.PRODUCT:
        return 0 if conv.is_whole else _product_bytes(conv)
    if way is Way.NATIVE:
        copied = 0 if in_order else conv.channels * prod(conv.size)
        again = 0 if result else conv.outputs * prod(conv.positions)
        return conv.piece(way) * (copied + again + (0 if conv.is_pointwise else conv.windows)) * conv.dtype.itemsize
    return _onednn_bytes(conv, conv.piece(way), in_order)


def torch_adjoint_bytes(
    conv: Convolution, onednn: bool, in_order: bool, channels_last: bool, fixed: bool, result: bool
) -> int:
    """Likewise of the adjoint. ``fixed``: the weights are, so that they are arranged beforehand."""
    way = adjoint_way(conv, onednn)
    if way is Way.POINTWISE:
        copied = 0 if in_order or channels_last else conv.outputs
        return conv.piece(way) * (conv.channels + copied) * prod(conv.positions) * conv.dtype.itemsize
    if way is Way.PRODUCT:
        return conv.piece(way) * conv.windows * conv.dtype.itemsize
    if way is Way.NATIVE:
        copied = 0 if in_order else conv.outputs * prod(conv.positions)
        again = 0 if result else conv.channels * prod(conv.size)
        return conv.piece(way) * (copied + again + conv.windows) * conv.dtype.itemsize
    weight = 0 if fixed else conv.subpixel.channels * conv.subpixel.outputs * prod(conv.subpixel.kernel)
    return _onednn_bytes(conv.subpixel, conv.piece(way), in_order) + weight * conv.dtype.itemsize


def _product_bytes(conv: Convolution) -> int:
    if conv.is_pointwise:
        return 0
    padded = conv.channels * prod(conv.padded) if any(conv.padding) else 0
    return conv.piece(Way.PRODUCT) * (padded + conv.windows) * conv.dtype.itemsize


def _onednn_bytes(conv: Convolution, images: int, in_order: bool) -> int:
    """A copy of the input with its border, or in order; blocked copies of input, weight and result, and the result.

    As measured with torch 2.13 on a processor with vectors of 16 floats.
    """
    plain = conv.channels < BLOCK and conv.groups == 1 and max(conv.kernel) > 1
    copied = conv.channels * prod(conv.size if conv.is_even else conv.padded)
    channels = _blocked(conv.channels) if conv.groups == 1 else conv.channels
    image = 0 if plain else channels * prod(conv.size if conv.is_even else conv.padded)
    blocked, result = _blocked(conv.outputs) * prod(conv.positions), conv.outputs * prod(conv.positions)
    taps = prod(conv.kernel) * (conv.channels if plain else channels) // conv.groups
    weight = _blocked(conv.outputs) * taps
    within = max(images * (image + blocked) + weight, images * (blocked + result))
    return ((0 if in_order and conv.is_even else images * copied) + within) * conv.dtype.itemsize


def _blocked(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK
