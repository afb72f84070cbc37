"""Moving elements about: reshaping, transposing, slicing, joining, repeating and picking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.errors import IRError
from boundflow_core.ir.primal_builder import Operand, PrimalBuilder

__all__ = [
    "axis_of",
    "concat",
    "expand",
    "flatten",
    "gather",
    "pad",
    "permute",
    "reshape",
    "slice_",
    "split",
    "squeeze",
    "tile",
    "unsqueeze",
]

_PAD_MODES = ("reflect", "edge", "wrap")


def axis_of(axis: int, rank: int) -> int:
    """``axis`` counted from the front.

    Raises:
        IRError: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise IRError(f"axis {axis} does not exist in {rank} axes")
    return axis % rank


def reshape(g: PrimalBuilder, x: Operand, shape: Sequence[int]) -> Any:
    """``x`` in ``shape``, where one dimension may be -1 (what is left)."""
    dims = [int(dim) for dim in shape]
    if dims.count(-1) > 1:
        raise IRError(f"shape {dims} leaves more than one dimension open")
    if -1 in dims:
        known = -math.prod(dims)
        if known == 0 or math.prod(x.shape) % known:
            raise IRError(f"{list(x.shape)} cannot be reshaped to {dims}")
        dims[dims.index(-1)] = math.prod(x.shape) // known
    return x if tuple(dims) == x.shape else g.op("reshape", x, shape=tuple(dims))


def permute(g: PrimalBuilder, x: Operand, axes: Sequence[int]) -> Any:
    """``x`` with its axes in the order ``axes``."""
    order = tuple(axis_of(axis, len(x.shape)) for axis in axes)
    return x if order == tuple(range(len(x.shape))) else g.op("permute", x, axes=order)


def flatten(g: PrimalBuilder, x: Operand, start: int = 0, end: int = -1) -> Any:
    """Merges the axes ``start`` to ``end`` (inclusive) into one."""
    rank = len(x.shape)
    if rank == 0:
        return reshape(g, x, (1,))
    low, high = axis_of(start, rank), axis_of(end, rank)
    return reshape(g, x, (*x.shape[:low], math.prod(x.shape[low : high + 1]), *x.shape[high + 1 :]))


def squeeze(g: PrimalBuilder, x: Operand, axes: Sequence[int] | None = None, *, strict: bool = True) -> Any:
    """Removes ``axes``, or all axes of size 1.

    Args:
        strict: an axis of another size is an error (ONNX); without, it stays (torch).
    """
    rank = len(x.shape)
    chosen = range(rank) if axes is None else [axis_of(axis, rank) for axis in axes]
    gone = {axis for axis in chosen if x.shape[axis] == 1}
    if axes is not None and strict and len(gone) < len(set(chosen)):
        raise IRError(f"axes {list(axes)} of {list(x.shape)} are not all of size 1")
    return reshape(g, x, [dim for axis, dim in enumerate(x.shape) if axis not in gone])


def unsqueeze(g: PrimalBuilder, x: Operand, axes: Sequence[int]) -> Any:
    """Inserts axes of size 1, which are the axes ``axes`` of the result."""
    rank = len(x.shape) + len(axes)
    new = {axis_of(axis, rank) for axis in axes}
    if len(new) < len(axes):
        raise IRError(f"axes {list(axes)} repeat")
    dims = iter(x.shape)
    return reshape(g, x, [1 if axis in new else next(dims) for axis in range(rank)])


def expand(g: PrimalBuilder, x: Operand, shape: Sequence[int]) -> Any:
    """``x`` broadcast to ``shape`` and it to ``x`` (both ways, as ONNX's Expand does)."""
    try:
        target = np.broadcast_shapes(x.shape, tuple(int(dim) for dim in shape))
    except ValueError as error:
        raise IRError(f"{list(x.shape)} does not broadcast with {list(shape)}") from error
    return x if target == x.shape else g.op("expand", x, shape=target)


def tile(g: PrimalBuilder, x: Operand, repeats: Sequence[int]) -> Any:
    """``x`` repeated as a whole ``repeats`` times along each axis."""
    missing = len(repeats) - len(x.shape)
    counts = (1,) * -missing + tuple(int(count) for count in repeats)
    shape = (1,) * missing + x.shape
    if any(count < 1 for count in counts):
        raise IRError(f"cannot repeat {list(repeats)} times")
    apart = [dim for size in shape for dim in (1, size)]
    together = [dim for count, size in zip(counts, shape, strict=True) for dim in (count, size)]
    joined = [count * size for count, size in zip(counts, shape, strict=True)]
    if all(count == 1 for count in counts):
        return reshape(g, x, shape)
    return reshape(g, expand(g, reshape(g, x, apart), together), joined)


def concat(g: PrimalBuilder, xs: Sequence[Operand], axis: int) -> Any:
    """``xs`` joined along ``axis``; parts without elements are left out."""
    kept = [x for x in xs if math.prod(x.shape) > 0] or list(xs[:1])
    return kept[0] if len(kept) == 1 else g.op("concat", *kept, axis=axis_of(axis, len(kept[0].shape)))


def slice_(
    g: PrimalBuilder,
    x: Operand,
    starts: Sequence[int],
    stops: Sequence[int],
    steps: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
) -> Any:
    """``x[starts:stops:steps]`` along ``axes`` (the first ones by default) with Python's rules for negative numbers."""
    rank = len(x.shape)
    low, high, by = [0] * rank, list(x.shape), [1] * rank
    backwards: list[tuple[int, NDArray[np.int64]]] = []
    chosen = range(len(starts)) if axes is None else axes
    for position, given in enumerate(chosen):
        axis, step = axis_of(given, rank), 1 if steps is None else int(steps[position])
        if step == 0:
            raise IRError("the step of a slice is 0")
        start, stop, step = slice(int(starts[position]), int(stops[position]), step).indices(x.shape[axis])
        if len(range(start, stop, step)) == 0:
            given_range = f"{starts[position]}:{stops[position]}:{step}"
            raise IRError(f"slice {given_range} of axis {axis} of {list(x.shape)} is empty")
        if step < 0:
            backwards.append((axis, np.arange(start, stop, step, dtype=np.int64)))
        else:
            low[axis], high[axis], by[axis] = start, stop, step
    if (low, high, by) != ([0] * rank, list(x.shape), [1] * rank):
        x = g.op("slice", x, starts=tuple(low), stops=tuple(high), steps=tuple(by))
    for axis, index in backwards:
        x = gather(g, x, index, axis)
    return x


def split(g: PrimalBuilder, x: Operand, sizes: Sequence[int], axis: int) -> list[Any]:
    """``x`` cut along ``axis`` into parts of the given sizes."""
    axis = axis_of(axis, len(x.shape))
    if sum(sizes) != x.shape[axis]:
        raise IRError(f"parts {list(sizes)} do not make up axis {axis} of {list(x.shape)}")
    ends = np.cumsum(sizes)
    return [slice_(g, x, [int(end) - size], [int(end)], axes=[axis]) for end, size in zip(ends, sizes, strict=True)]


def gather(g: PrimalBuilder, x: Operand, index: NDArray[Any] | int, axis: int) -> Any:
    """Elements ``index`` (of any rank, 0 included, negative ones from the end) of ``x`` along ``axis``.

    Evenly spaced ascending indices become a slice.
    """
    axis, places = axis_of(axis, len(x.shape)), np.asarray(index, dtype=np.int64)
    size = x.shape[axis]
    if places.size == 0 or places.min() < -size or places.max() >= size:
        raise IRError(f"indices of axis {axis} of {list(x.shape)} are missing or out of range")
    flat = np.where(places < 0, places + size, places).ravel()
    step = int(flat[1] - flat[0]) if flat.size > 1 else 1
    if step > 0 and (np.diff(flat) == step).all():
        picked = slice_(g, x, [int(flat[0])], [int(flat[-1]) + 1], [step], [axis])
    else:
        picked = g.op("gather", x, flat, axis=axis)
    return reshape(g, picked, (*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))


def pad(
    g: PrimalBuilder, x: Operand, low: Sequence[int], high: Sequence[int], value: float = 0.0, mode: str = "constant"
) -> Any:
    """``x`` with ``low`` elements put before and ``high`` after each axis; negative numbers cut off.

    Args:
        mode: "constant" (``value``), "reflect", "edge" or "wrap", as in :func:`numpy.pad`.
    """
    if mode != "constant" and mode not in _PAD_MODES:
        raise IRError(f"padding mode {mode!r} is unknown")
    cut_low, cut_high = [max(-n, 0) for n in low], [max(-n, 0) for n in high]
    if any(cut_low) or any(cut_high):
        x = slice_(g, x, cut_low, [dim - n for dim, n in zip(x.shape, cut_high, strict=True)])
    low, high = [max(int(n), 0) for n in low], [max(int(n), 0) for n in high]
    if not any(low) and not any(high):
        return x
    if mode == "constant":
        return g.op("pad", x, low=tuple(low), high=tuple(high), value=float(value))
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        if before or after:
            index = np.pad(np.arange(x.shape[axis]), (before, after), mode=mode)  # type: ignore[call-overload]
            x = gather(g, x, index, axis)
    return x
