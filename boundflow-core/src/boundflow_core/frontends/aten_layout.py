"""Converters of ATen operators that move elements about, and of those that change nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boundflow_core.frontends import compose
from boundflow_core.frontends.aten_call import Call, Converter, Refused, constant_values, filled, operand
from boundflow_core.ir.primal_builder import Operand

__all__ = ["LAYOUT"]

# torch's modes of padding, by numpy's names.
_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _identity(call: Call, x: Operand, *args: Any, **kwargs: Any) -> Any:
    return x


def _dropout(call: Call, x: Operand, p: float = 0.5, train: bool = False) -> Any:
    if train and p > 0:
        raise Refused("dropout is active although the module is in eval mode, so that the network is no function")
    return x


def _reshape(call: Call, x: Operand, *args: Any, **kwargs: Any) -> Any:
    """All that only reads the same elements in another shape, which torch has worked out."""
    return compose.reshape(call.g, x, call.shape)


def _expand(call: Call, x: Operand, *args: Any, **kwargs: Any) -> Any:
    return compose.expand(call.g, x, call.shape)


# -- transposing ------------------------------------------------------------------------------------------------------


def _permute(call: Call, x: Operand, dims: Sequence[int]) -> Any:
    return compose.permute(call.g, x, dims)


def _transpose(call: Call, x: Operand, dim0: int, dim1: int) -> Any:
    order = list(range(len(x.shape)))
    first, second = (compose.axis_of(dim, len(order)) for dim in (dim0, dim1))
    order[first], order[second] = order[second], order[first]
    return compose.permute(call.g, x, order)


def _t(call: Call, x: Operand) -> Any:
    return _transpose(call, x, 0, 1) if len(x.shape) == 2 else x


def _reversed(call: Call, x: Operand) -> Any:
    return compose.permute(call.g, x, range(len(x.shape))[::-1])


# -- joining and repeating --------------------------------------------------------------------------------------------


def _cat(call: Call, xs: Sequence[Operand], dim: int = 0) -> Any:
    """As torch does, parts of shape [0] are left out whatever the rank of the others."""
    kept = [operand(call, x) for x in xs if math.prod(x.shape) > 0]
    return compose.concat(call.g, kept, dim)


def _stack(call: Call, xs: Sequence[Operand], dim: int = 0) -> Any:
    axis = compose.axis_of(dim, len(call.shape))
    return compose.concat(call.g, [compose.unsqueeze(call.g, operand(call, x), [axis]) for x in xs], axis)


def _repeat(call: Call, x: Operand, repeats: Sequence[int]) -> Any:
    return compose.tile(call.g, x, repeats)


def _repeat_interleave(call: Call, x: Operand, repeats: int, dim: int | None = None, output_size: Any = None) -> Any:
    x = compose.reshape(call.g, x, (-1,)) if dim is None else x
    axis = compose.axis_of(dim or 0, len(x.shape))
    return compose.gather(call.g, x, np.repeat(np.arange(x.shape[axis]), int(repeats)), axis)


def _pad(call: Call, x: Operand, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """``pad`` gives (low, high) for the last axis first."""
    low, high = [0] * len(x.shape), [0] * len(x.shape)
    for place, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        low[-1 - place], high[-1 - place] = int(before), int(after)
    return compose.pad(call.g, x, low, high, float(value or 0.0), _PAD_MODES[mode])


def _constant_pad(call: Call, x: Operand, pad: Sequence[int], value: float = 0) -> Any:
    return _pad(call, x, pad, "constant", value)


def _pad_in_mode(mode: str) -> Converter:
    return lambda call, x, padding: _pad(call, x, padding, mode)


# -- picking ----------------------------------------------------------------------------------------------------------


def _split(call: Call, x: Operand, size: int | Sequence[int], dim: int = 0) -> Any:
    total = x.shape[compose.axis_of(dim, len(x.shape))]
    sizes = [min(size, total - start) for start in range(0, total, size)] if isinstance(size, int) else list(size)
    return tuple(compose.split(call.g, x, sizes, dim))


def _chunk(call: Call, x: Operand, chunks: int, dim: int = 0) -> Any:
    return _split(call, x, -(-x.shape[compose.axis_of(dim, len(x.shape))] // chunks), dim)


def _select(call: Call, x: Operand, dim: int, index: int) -> Any:
    return compose.gather(call.g, x, int(index), dim)


def _unbind(call: Call, x: Operand, dim: int = 0) -> Any:
    return tuple(_select(call, x, dim, index) for index in range(x.shape[compose.axis_of(dim, len(x.shape))]))


def _slice(call: Call, x: Operand, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    size = x.shape[compose.axis_of(dim, len(x.shape))]
    return compose.slice_(call.g, x, [start or 0], [size if end is None else end], [step], [dim])


def _narrow(call: Call, x: Operand, dim: int, start: int, length: int) -> Any:
    return compose.slice_(call.g, x, [start], [start + length or x.shape[dim]], None, [dim])


def _index_select(call: Call, x: Operand, dim: int, index: Operand) -> Any:
    return compose.gather(call.g, x, np.atleast_1d(constant_values(index, "the index")), dim)


def _embedding(call: Call, weight: Operand, index: Operand, *args: Any, **kwargs: Any) -> Any:
    """Rows of a table at constant indices (positions, say)."""
    return compose.gather(call.g, weight, constant_values(index, "the index"), 0)


def _index(call: Call, x: Operand, indices: Sequence[Operand | None]) -> Any:
    """Advanced indexing by constants, along one axis or along several that lie side by side."""
    arrays: list[Any] = [None if index is None else constant_values(index, "the index") for index in indices]
    if any(array is not None and array.dtype == bool for array in arrays):
        raise Refused("it picks by a mask of bools; pick by a tensor of integers")
    axes = [axis for axis, array in enumerate(arrays) if array is not None]
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise Refused("the indexed axes do not lie side by side")
    dims = [x.shape[axis] for axis in axes]
    places = np.broadcast_arrays(*[np.where(arrays[a] < 0, arrays[a] + x.shape[a], arrays[a]) for a in axes])
    merged = compose.flatten(call.g, x, axes[0], axes[-1])
    return compose.gather(call.g, merged, np.ravel_multi_index(tuple(places), tuple(dims)), axes[0])


def _flip(call: Call, x: Operand, dims: Sequence[int]) -> Any:
    for dim in dims:
        x = compose.gather(call.g, x, np.arange(x.shape[compose.axis_of(dim, len(x.shape))])[::-1], dim)
    return x


def _roll(call: Call, x: Operand, shifts: int | Sequence[int], dims: int | Sequence[int] = ()) -> Any:
    amounts = [shifts] if isinstance(shifts, int) else list(shifts)
    axes = [dims] if isinstance(dims, int) else list(dims)
    y = x if axes else compose.reshape(call.g, x, (-1,))
    for amount, axis in zip(amounts, axes or [0], strict=True):
        y = compose.gather(call.g, y, np.roll(np.arange(y.shape[compose.axis_of(axis, len(y.shape))]), amount), axis)
    return compose.reshape(call.g, y, x.shape)


def _pixel_shuffle(call: Call, x: Operand, factor: int) -> Any:
    *front, channels, height, width = x.shape
    n = len(front)
    apart = compose.reshape(call.g, x, (*front, channels // factor**2, factor, factor, height, width))
    moved = compose.permute(call.g, apart, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return compose.reshape(call.g, moved, call.shape)


def _pixel_unshuffle(call: Call, x: Operand, factor: int) -> Any:
    *front, channels, height, width = x.shape
    n = len(front)
    apart = compose.reshape(call.g, x, (*front, channels, height // factor, factor, width // factor, factor))
    moved = compose.permute(call.g, apart, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return compose.reshape(call.g, moved, call.shape)


# -- writing into parts (what is left of assignments to slices) -------------------------------------------------------


def _slice_scatter(
    call: Call, x: Operand, source: Operand, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    """``x`` with ``source`` in the place of a slice."""
    if step != 1:
        raise Refused("an assignment to every other element has no counterpart")
    axis = compose.axis_of(dim, len(x.shape))
    low, high, _ = slice(start, end).indices(x.shape[axis])
    x, parts = operand(call, x), [operand(call, source)]
    if low > 0:
        parts.insert(0, compose.slice_(call.g, x, [0], [low], None, [axis]))
    if high < x.shape[axis]:
        parts.append(compose.slice_(call.g, x, [high], [x.shape[axis]], None, [axis]))
    return compose.concat(call.g, parts, axis)


def _select_scatter(call: Call, x: Operand, source: Operand, dim: int, index: int) -> Any:
    axis = compose.axis_of(dim, len(x.shape))
    start = index % x.shape[axis]
    return _slice_scatter(call, x, compose.unsqueeze(call.g, operand(call, source), [axis]), axis, start, start + 1)


def _copy(call: Call, x: Operand, source: Any, non_blocking: bool = False) -> Any:
    return compose.expand(call.g, operand(call, source), call.shape)


def _filled(value: float) -> Converter:
    return lambda call, *args, **kwargs: filled(call, value)


def _full(call: Call, x: Any, *args: Any, **kwargs: Any) -> Any:
    """full_like(x, value) and new_full(x, size, value)."""
    return filled(call, kwargs.get("fill_value", args[-1] if args else 0.0))


_IDENTITIES = (
    "alias", "alias_copy", "clone", "contiguous", "detach", "detach_copy", "lift_fresh", "lift_fresh_copy", "to",
    "_to_copy", "type_as",
)  # fmt: skip
_RESHAPES = (
    "flatten", "reshape", "squeeze", "squeeze_copy", "unflatten", "unsqueeze", "unsqueeze_copy", "_unsafe_view", "view",
    "view_copy", "_reshape_copy", "_reshape_alias", "reshape_as", "view_as", "ravel", "atleast_1d", "atleast_2d",
    "atleast_3d",
)  # fmt: skip

LAYOUT: Mapping[str, Converter] = {
    **{f"aten.{name}": _identity for name in _IDENTITIES},
    **{f"aten.{name}": _reshape for name in _RESHAPES},
    "aten.alpha_dropout": _dropout,
    "aten.broadcast_to": _expand,
    "aten.cat": _cat,
    "aten.chunk": _chunk,
    "aten.concat": _cat,
    "aten.constant_pad_nd": _constant_pad,
    "aten.copy": _copy,
    "aten.dropout": _dropout,
    "aten.embedding": _embedding,
    "aten.empty_like": _filled(0.0),
    "aten.expand": _expand,
    "aten.expand_as": _expand,
    "aten.expand_copy": _expand,
    "aten.feature_alpha_dropout": _dropout,
    "aten.feature_dropout": _dropout,
    "aten.fill": _copy,
    "aten.flip": _flip,
    "aten.full_like": _full,
    "aten.index": _index,
    "aten.index_select": _index_select,
    "aten.mT": lambda call, x: _transpose(call, x, -1, -2),
    "aten.native_dropout": lambda call, x, p, train: (_dropout(call, x, p, bool(train)), None),
    "aten.narrow": _narrow,
    "aten.new_empty": _filled(0.0),
    "aten.new_full": _full,
    "aten.new_ones": _filled(1.0),
    "aten.new_zeros": _filled(0.0),
    "aten.numpy_T": _reversed,
    "aten.ones_like": _filled(1.0),
    "aten.pad": _pad,
    "aten.permute": _permute,
    "aten.permute_copy": _permute,
    "aten.pixel_shuffle": _pixel_shuffle,
    "aten.pixel_unshuffle": _pixel_unshuffle,
    "aten.reflection_pad1d": _pad_in_mode("reflect"),
    "aten.reflection_pad2d": _pad_in_mode("reflect"),
    "aten.repeat": _repeat,
    "aten.repeat_interleave.self_int": _repeat_interleave,
    "aten.replication_pad1d": _pad_in_mode("replicate"),
    "aten.replication_pad2d": _pad_in_mode("replicate"),
    "aten.roll": _roll,
    "aten.select": _select,
    "aten.select_copy": _select,
    "aten.select_scatter": _select_scatter,
    "aten.slice": _slice,
    "aten.slice_copy": _slice,
    "aten.slice_scatter": _slice_scatter,
    "aten.split": _split,
    "aten.split_copy": _split,
    "aten.split_with_sizes": _split,
    "aten.split_with_sizes_copy": _split,
    "aten.stack": _stack,
    "aten.t": _t,
    "aten.tile": _repeat,
    "aten.transpose": _transpose,
    "aten.transpose_copy": _transpose,
    "aten.unbind": _unbind,
    "aten.zeros_like": _filled(0.0),
}
