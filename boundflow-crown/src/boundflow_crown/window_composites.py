"""Composites that cut windows out of maps and put them back, at places that depend on data.

Windows have their channels last, so that each of their elements is one piece of memory. Their decompositions see a map
as a list of places and read, or write, the places of each window: ``first place of the window + place within``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import Constant, frozen
from boundflow_core.ir.program import Composite, Value
from boundflow_core.ir.types import Attrs, Dim
from boundflow_crown.frames import Frame, Pair

__all__ = ["GATHER_WINDOWS", "SCATTER_WINDOWS"]


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


def _gather_windows(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    maps, position = inputs[:2]
    frame = Frame.of(attrs)
    batch, channels, extent = maps.shape[0], maps.shape[1], _extent(maps.shape[2:])
    low, high = frame.outside(extent)
    x = b.permute(maps, (0, 2, 3, 1))
    if not frame.inside(extent):
        x = b.pad(x, (0, *low, 0), (0, *high, 0))
    height, width = _extent(x.shape[1:3])
    origin = b.gather_rows(b.constant(_origins(frame, low, width)), position)
    count: Dim = position.shape[0]
    if len(inputs) == 3:
        origin = origin + inputs[2] * b.constant(_number(height * width))
        found = b.gather_rows(b.reshape(x, (batch * height * width, channels)), _places(b, origin, frame.size, width))
        return (b.reshape(found, (count, *frame.size, channels)),)
    places = _places(b, origin, frame.size, width)
    found = b.gather_rows(b.reshape(x, (batch, height * width, channels)), places, axis=1)
    return (b.reshape(found, (batch, count, *frame.size, channels)),)


def _scatter_windows(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    windows, position = inputs
    frame, extent = Frame.of(attrs), attrs["extent"]
    count, channels = windows.shape[0], windows.shape[3]
    low, high = frame.outside(extent)
    height, width = (extent[a] + low[a] + high[a] for a in (0, 1))
    origin = b.gather_rows(b.constant(_origins(frame, low, width)), position)
    origin = origin + b.row_numbers(position) * b.constant(_number(height * width))
    flat = b.reshape(windows, (count * (frame.size[0] * frame.size[1]), channels))
    nothing = b.broadcast(b.constant(0.0), (count * (height * width), channels))
    wide = b.scatter_rows(nothing, _places(b, origin, frame.size, width), flat)
    maps = b.reshape(wide, (count, height, width, channels))
    if (height, width) != extent:
        stops = (count, low[0] + extent[0], low[1] + extent[1], channels)
        maps = b.slice(maps, (0, *low, 0), stops, (1,) * 4)
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
