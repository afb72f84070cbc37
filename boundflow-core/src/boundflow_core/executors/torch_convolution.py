"""Convolutions in torch: on a processor into given memory, in the way that :mod:`executors.convolution` chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import torch
import torch.nn.functional as F

from boundflow_core.executors.convolution import Convolution, Way, adjoint_way, forward_way
from boundflow_core.ir.program import Op

__all__ = ["ONEDNN", "conv2d", "conv2d_input_grad"]

Kernel = Callable[..., torch.Tensor]
Into = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]

# Elements of an image up to which results are brought to their places by a table.
PLACES = 2**14

ONEDNN = torch.backends.mkldnn.is_available()


def conv2d(op: Op) -> Kernel:
    """Without memory to write into, and on other devices, torch chooses."""
    conv = Convolution.of(op, {})
    plain = _plain(conv)
    return _either(plain, _FORWARD[forward_way(conv, ONEDNN)](conv))


def conv2d_input_grad(op: Op, fixed: torch.Tensor | None = None) -> Kernel:
    """Likewise. ``fixed``: the weights, where they are always these."""
    conv = Convolution.of(op, {})
    way = adjoint_way(conv, ONEDNN)
    into = _subpixel(conv, fixed) if way is Way.ONEDNN else _ADJOINT[way](conv)
    return _either(_plain_adjoint(conv), into)


def _either(plain: Kernel, into: Into) -> Kernel:
    def kernel(x: torch.Tensor, w: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if out is None:
            return plain(x, w)
        if x.device.type != "cpu":
            return out.copy_(plain(x, w))
        into(x, w, out)
        return out

    return kernel


def _plain(conv: Convolution) -> Kernel:
    options: dict[str, Any] = {"stride": conv.stride, "dilation": conv.dilation, "groups": conv.groups}
    top, left, bottom, right = conv.padding
    if conv.is_even:
        return lambda x, w: F.conv2d(x, w, padding=(top, left), **options)
    return lambda x, w: F.conv2d(F.pad(x, (left, right, top, bottom)), w, **options)


def _plain_adjoint(conv: Convolution) -> Kernel:
    """The full transposed convolution, cut or widened to the rows and columns that the convolution reads."""
    options: dict[str, Any] = {"stride": conv.stride, "dilation": conv.dilation, "groups": conv.groups}
    top, left, _, _ = conv.padding
    full = [
        (positions - 1) * stride + dilation * (kernel - 1) + 1
        for positions, kernel, stride, dilation in zip(
            conv.positions, conv.kernel, conv.stride, conv.dilation, strict=True
        )
    ]
    cut = (-left, conv.size[1] + left - full[1], -top, conv.size[0] + top - full[0])
    if cut[::2] == cut[1::2] and max(cut) <= 0:
        return lambda g, w: F.conv_transpose2d(g, w, padding=(top, left), **options)
    # Widened first: a convolution that reads little but padding has all of a side cut off, and more.
    wider, narrower = [max(side, 0) for side in cut], [min(side, 0) for side in cut]
    if any(wider) and any(narrower):
        return lambda g, w: F.pad(F.pad(F.conv_transpose2d(g, w, **options), wider), narrower)
    return lambda g, w: F.pad(F.conv_transpose2d(g, w, **options), cut)


def _pieces(images: int, most: int, *arrays: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Arrays of images in pieces of at most ``most``."""
    if most >= images:
        yield arrays
        return
    for start in range(0, images, most):
        yield tuple(array[start : start + most] for array in arrays)


# -- products of matrices ---------------------------------------------------------------------------------------------


def _product(conv: Convolution) -> Into:
    if conv.is_whole:
        return _whole
    most = conv.piece(Way.PRODUCT)
    inner, outer = conv.channels // conv.groups * prod(conv.kernel), conv.outputs // conv.groups

    def into(x: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> None:
        weight = w.reshape(conv.groups, 1, outer, inner)
        for images, results in _pieces(conv.images, most, x, out):
            count = len(images)
            columns = _columns(conv, images).view(count, conv.groups, inner, -1)
            places = results.view(count, conv.groups, outer, -1)
            for group in range(conv.groups):
                torch.bmm(weight[group].expand(count, -1, -1), columns[:, group], out=places[:, group])

    return into


def _whole(x: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> None:
    torch.mm(x.reshape(len(x), -1), w.reshape(len(w), -1).T, out=out[:, :, 0, 0])


def _columns(conv: Convolution, x: torch.Tensor) -> torch.Tensor:
    """All windows [n, C, kh, kw, h, w] of the images ``x``."""
    if conv.is_pointwise:
        return x
    if any(conv.padding):
        top, left, bottom, right = conv.padding
        x = F.pad(x, (left, right, top, bottom)).contiguous()
    image, channel, row, column = x.stride()
    windows = x.as_strided(
        (len(x), conv.channels, *conv.kernel, *conv.positions),
        (
            image,
            channel,
            conv.dilation[0] * row,
            conv.dilation[1] * column,
            conv.stride[0] * row,
            conv.stride[1] * column,
        ),
        x.storage_offset(),
    )
    return windows.contiguous()


def _folded(conv: Convolution) -> Into:
    most = conv.piece(Way.PRODUCT)
    inner, outer = conv.channels // conv.groups * prod(conv.kernel), conv.outputs // conv.groups
    ranges = [_targets(conv, axis) for axis in (0, 1)]
    taps = [
        ((..., y, x, *found), (..., *placed))
        for y, (rows, row_places) in enumerate(ranges[0])
        for x, (columns, column_places) in enumerate(ranges[1])
        for found, placed in [((rows, columns), (row_places, column_places))]
    ]

    def into(g: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> None:
        weight = w.reshape(conv.groups, 1, outer, inner).mT
        for images, results in _pieces(conv.images, most, g, out):
            count = len(images)
            rows = images.reshape(count, conv.groups, outer, -1)
            columns = images.new_empty(count, conv.groups, inner, rows.shape[-1])
            for group in range(conv.groups):
                torch.bmm(weight[group].expand(count, -1, -1), rows[:, group], out=columns[:, group])
            windows = columns.view(count, conv.channels, *conv.kernel, *conv.positions)
            results.zero_()
            for found, placed in taps:
                results[placed].add_(windows[found])

    return into


def _targets(conv: Convolution, axis: int) -> list[tuple[slice, slice]]:
    """For each place in the kernel, the positions whose window has an element of the image there, and which one."""
    stride, before, extent = conv.stride[axis], conv.padding[axis], conv.size[axis]
    found = []
    for place in range(conv.kernel[axis]):
        shift = place * conv.dilation[axis] - before
        first = max(0, -(shift // stride))
        end = max(first, min(conv.positions[axis], -(-(extent - shift) // stride)))
        at = first * stride + shift
        found.append((slice(first, end), slice(at, at + (end - first - 1) * stride + 1 if end > first else at, stride)))
    return found


# -- torch's own kernels ------------------------------------------------------------------------------------------


def _row_major(x: torch.Tensor) -> torch.Tensor:
    """``x`` with the strides of a row-major array even where an axis of size 1 leaves them open.

    By these strides the kernels guess whether channels lie last, and give the result they write to other strides.
    """
    return x.reshape(-1).view(x.shape)


def _native(conv: Convolution) -> Into:
    most, kernel, stride, padding = conv.piece(Way.NATIVE), conv.kernel, conv.stride, conv.padding[:2]

    def convolve(x: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> None:
        torch._C._nn.thnn_conv2d(x, w, kernel, None, stride, padding, out=out)

    return _row_major_pieces(conv, most, convolve)


def _native_adjoint(conv: Convolution) -> Into:
    most, kernel, stride, padding = conv.piece(Way.NATIVE), conv.kernel, conv.stride, conv.padding[:2]
    more, dilation = conv.output_padding, conv.dilation

    def convolve(g: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> None:
        torch._C._nn.slow_conv_transpose2d(g, w, kernel, None, stride, padding, more, dilation, out=out)

    return _row_major_pieces(conv, most, convolve)


def _row_major_pieces(conv: Convolution, most: int, convolve: Into) -> Into:
    """``convolve`` in pieces, for kernels that read and write row-major arrays alone."""

    def into(x: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> None:
        weight = _row_major(w)
        for images, results in _pieces(conv.images, most, x, out):
            if results.is_contiguous():
                convolve(_row_major(images), weight, _row_major(results))
            else:
                target = torch.empty(results.shape, dtype=results.dtype)
                convolve(_row_major(images), weight, target)
                results.copy_(target)

    return into


# -- oneDNN -----------------------------------------------------------------------------------------------------------


def _onednn(conv: Convolution) -> Into:
    most, convolve = conv.piece(Way.ONEDNN), _convolve(conv)

    def into(x: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> None:
        for images, results in _pieces(conv.images, most, x, out):
            results.copy_(convolve(images, w))

    return into


def _convolve(conv: Convolution) -> Kernel:
    """oneDNN's kernels for inputs whose channels lie last are slow where there are few of them."""
    top, left, bottom, right = conv.padding
    border, padding = ((0, 0, 0, 0), [top, left]) if conv.is_even else ((left, right, top, bottom), [0, 0])
    stride, dilation, groups = list(conv.stride), list(conv.dilation), conv.groups

    def convolve(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, border) if any(border) else x
        return torch.mkldnn_convolution(x.contiguous(), w, None, padding, stride, dilation, groups)

    return convolve


def _subpixel(conv: Convolution, fixed: torch.Tensor | None) -> Into:
    """``fixed``: the weights, where they never change, to be arranged once."""
    most, inner = conv.piece(Way.ONEDNN), conv.subpixel
    convolve, place = _convolve(inner), _placing(conv)
    places = torch.from_numpy(conv.weight_places)
    shape = (inner.outputs, inner.channels, *inner.kernel)

    def arranged(w: torch.Tensor) -> torch.Tensor:
        return F.pad(w.reshape(-1), (0, 1)).index_select(0, places.to(w.device)).view(shape)

    beforehand = None if fixed is None else arranged(fixed)

    def into(g: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> None:
        weight = arranged(w) if beforehand is None else beforehand
        for images, results in _pieces(conv.images, most, g, out):
            place(convolve(images, weight), results)

    return into


def _placing(conv: Convolution) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Brings results [n, remainders * C, h, w] of the convolution of stride 1 to their places in images.

    Images of moderate size are put together element by element by a table, which takes two thirds of the time of a
    copy with strides for each remainder: these have short lines.
    """
    (down, across), (rows, columns) = conv.stride, conv.taps
    shape = (len(rows.remainders), len(columns.remainders), conv.channels, *conv.subpixel.positions)
    gaps = shape[0] * shape[1] < prod(conv.stride)
    by_table = not gaps and conv.channels * prod(conv.size) <= PLACES
    table = torch.from_numpy(conv.result_places) if by_table else torch.empty(0)
    orders = [table.reshape(-1), table.permute(1, 2, 0).reshape(-1)] if by_table else []

    def part(found: torch.Tensor, results: torch.Tensor, row: int, column: int) -> None:
        target = results[..., rows.remainders[row] :: down, columns.remainders[column] :: across]
        y, x = rows.starts[row], columns.starts[column]
        target.copy_(found[:, row, column, :, y : y + target.shape[2], x : x + target.shape[3]])

    def place(found: torch.Tensor, results: torch.Tensor) -> None:
        count = len(found)
        for order, target in zip(orders, (results, results.permute(0, 2, 3, 1)), strict=False):
            if target.is_contiguous():
                torch.index_select(found.reshape(count, -1), 1, order, out=target.view(count, -1))
                return
        found = found.view(count, *shape)
        if gaps:
            results.zero_()
        for row in range(shape[0]):
            for column in range(shape[1]):
                part(found, results, row, column)

    return place


def _scattered(conv: Convolution) -> Into:
    most, (down, across), (height, width) = conv.piece(Way.POINTWISE), conv.stride, conv.positions
    gaps = conv.size != conv.positions

    def into(g: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> None:
        weight = w.reshape(conv.outputs, conv.channels)
        for images, results in _pieces(conv.images, most, g, out):
            if images.stride(1) == 1:  # channels lie last
                found = torch.matmul(images.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)
            else:
                found = torch.matmul(weight.T, images.flatten(2)).unflatten(2, conv.positions)
            if gaps:
                results.zero_()
            results[..., : height * down : down, : width * across : across].copy_(found)

    return into


_FORWARD: Mapping[Way, Callable[[Convolution], Into]] = {
    Way.PRODUCT: _product,
    Way.NATIVE: _native,
    Way.ONEDNN: _onednn,
}

_ADJOINT: Mapping[Way, Callable[[Convolution], Into]] = {
    Way.PRODUCT: _folded,
    Way.NATIVE: _native_adjoint,
    Way.POINTWISE: _scattered,
}
