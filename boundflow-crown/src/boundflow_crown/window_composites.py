"""Composites that cut windows out of maps and put them back, at places that depend on data.

Windows have their channels last, so that each of their elements is one piece of memory. Their decompositions see a map
as a list of places and read, or write, the places of each window, which a table tells by the neuron's position: one
look-up, and maps need no borders, since what lies outside has places of its own behind the map. Where that table would
be large, maps get borders, and places are ``first place of the window + place within``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import Constant, frozen
from boundflow_core.ir.program import Composite, Value
from boundflow_core.ir.types import Attrs, Dim
from boundflow_crown.frames import Frame, Pair

__all__ = ["GATHER_WINDOWS", "SCATTER_WINDOWS"]

# Places in a table at most: 4 MiB.
TABLE = 1 << 19


# Kept, so that all windows of one frame share their constants and with them the arithmetic on places.
@lru_cache(maxsize=256)
def _origins(frame: Frame, low: Pair, width: int) -> Constant:
    """Place of the window's first element in a map of ``width`` that starts ``low`` earlier, per position: [P * Q]."""
    rows, columns = (frame.scale[a] * np.arange(frame.grid[a]) + frame.offset[a] + low[a] for a in (0, 1))
    return frozen((rows[:, None] * width + columns).reshape(-1).astype(np.int64))


@lru_cache(maxsize=256)
def _within(size: Pair, width: int) -> Constant:
    """Places within a window, from its first element: [h * w]."""
    rows, columns = (np.arange(size[a]) for a in (0, 1))
    return frozen((rows[:, None] * width + columns).reshape(-1).astype(np.int64))


def _places(b: Builder, origin: Value, size: Pair, width: int) -> Value:
    """Places of the elements of all windows whose first elements are at ``origin`` [N]: [N * h * w]."""
    each = b.reshape(origin, (origin.shape[0], 1)) + b.constant(_within(size, width))
    return b.reshape(each, (origin.shape[0] * (size[0] * size[1]),))


@lru_cache(maxsize=256)
def _table(frame: Frame, extent: Pair, apart: bool) -> tuple[Constant, int]:
    """Places in a map of ``extent`` of the elements of the window of each position [P * Q, h * w], and how many places
    behind the map those outside of it have.

    Args:
        apart: give each element of a window that lies outside a place of its own; else all have the same.
    """
    rows, columns = (_lines(frame, axis) for axis in (0, 1))
    inside = [(lines >= 0) & (lines < extent[axis]) for axis, lines in enumerate((rows, columns))]
    count = len(rows) * len(columns)
    within = (inside[0][:, None, :, None] & inside[1][None, :, None, :]).reshape(count, -1)
    places = (rows[:, None, :, None] * extent[1] + columns[None, :, None, :]).reshape(count, -1)
    number = np.cumsum(~within, axis=1) if apart else np.ones_like(places)
    behind = int(number.max(where=~within, initial=0))
    return frozen(np.where(within, places, extent[0] * extent[1] - 1 + number).astype(np.int64)), behind


def _lines(frame: Frame, axis: int) -> NDArray[np.int64]:
    """Rows, or columns, of the map that windows cover, by position: [P, h]."""
    first = frame.scale[axis] * np.arange(frame.grid[axis]) + frame.offset[axis]
    return first[:, None] + np.arange(frame.size[axis])


def _has_table(frame: Frame) -> bool:
    return frame.grid[0] * frame.grid[1] * frame.size[0] * frame.size[1] <= TABLE


def _looked_up(b: Builder, table: Constant, position: Value, offset: Value | None) -> Value:
    """Places of the elements of all windows, each window's moved by ``offset`` [N]: [N * h * w]."""
    places = b.gather_rows(b.constant(table), position)
    if offset is not None:
        places = places + b.reshape(offset, (offset.shape[0], 1))
    return b.reshape(places, (places.shape[0] * places.shape[1],))


def _gather_windows(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    maps, position = inputs[:2]
    region = inputs[2] if len(inputs) == 3 else None
    frame = Frame.of(attrs)
    batch, channels, extent = maps.shape[0], maps.shape[1], _extent(maps.shape[2:])
    x = b.permute(maps, (0, 2, 3, 1))
    if _has_table(frame):
        table, behind = _table(frame, extent, False)
        if behind:
            x = b.pad(x, (0,) * 4, (0, 1, 0, 0))
        count = (extent[0] + behind) * extent[1]
        x = b.reshape(x, (batch, count, channels))
        places = _looked_up(b, table, position, None if region is None else region * b.constant(_number(count)))
    else:
        low, high = frame.outside(extent)
        if not frame.inside(extent):
            x = b.pad(x, (0, *low, 0), (0, *high, 0))
        height, width = _extent(x.shape[1:3])
        count = height * width
        x = b.reshape(x, (batch, count, channels))
        origin = b.gather_rows(b.constant(_origins(frame, low, width)), position)
        if region is not None:
            origin = origin + region * b.constant(_number(count))
        places = _places(b, origin, frame.size, width)
    if region is not None:
        found = b.gather_rows(b.reshape(x, (batch * count, channels)), places)
        return (b.reshape(found, (position.shape[0], *frame.size, channels)),)
    found = b.gather_rows(x, places, axis=1)
    return (b.reshape(found, (batch, position.shape[0], *frame.size, channels)),)


def _scatter_windows(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    windows, position = inputs
    frame, extent = Frame.of(attrs), attrs["extent"]
    count, channels = windows.shape[0], windows.shape[3]
    low, high = frame.outside(extent)
    height, width = extent
    if _has_table(frame):
        table, behind = _table(frame, extent, True)
        length = height * width + behind
        places = _looked_up(b, table, position, b.row_numbers(position) * b.constant(_number(length)))
    else:
        height, width = (extent[a] + low[a] + high[a] for a in (0, 1))
        length = height * width
        origin = b.gather_rows(b.constant(_origins(frame, low, width)), position)
        places = _places(b, origin + b.row_numbers(position) * b.constant(_number(length)), frame.size, width)
    flat = b.reshape(windows, (count * (frame.size[0] * frame.size[1]), channels))
    nothing = b.broadcast(b.constant(0.0), (count * length, channels))
    wide = b.scatter_rows(nothing, places, flat)
    if (height, width) == extent:
        maps = b.slice(
            b.reshape(wide, (count, length, channels)), (0,) * 3, (count, height * width, channels), (1,) * 3
        )
        return (b.reshape(b.permute(maps, (0, 2, 1)), (count, channels, height, width)),)
    stops = (count, low[0] + extent[0], low[1] + extent[1], channels)
    maps = b.slice(b.reshape(wide, (count, height, width, channels)), (0, *low, 0), stops, (1,) * 4)
    return (b.permute(maps, (0, 3, 1, 2)),)


@lru_cache(maxsize=256)
def _number(number: int) -> Constant:
    return frozen(np.asarray(number, dtype=np.int64))


def _extent(dims: Sequence[Dim]) -> Pair:
    height, width = dims
    assert isinstance(height, int) and isinstance(width, int)
    return height, width


GATHER_WINDOWS = Composite(
    "gather_windows",
    "windows [B, R, h, w, C] of maps [B, C, H, W] at positions [R], or [R, h, w, C] of the maps numbered by a third "
    "operand [R]; zero outside of the maps",
    _gather_windows,
)
SCATTER_WINDOWS = Composite(
    "scatter_windows",
    "maps [N, C, H, W] of `extent`, zero but for windows [N, h, w, C] at positions [N]; what lies outside is dropped",
    _scatter_windows,
)
