"""Rows that are zero but for a window: linear functions of a map [C, H, W] that stem from one neuron each.

A neuron of a convolution depends on its receptive field alone. Its row starts as one element and grows with each
convolution on the way back, as long as that is less than a map ("patches" in the literature: Xu et al., Automatic
Perturbation Analysis for Scalable Certified Robustness and Beyond, 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import frozen
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Dim, Shape, concrete_shape, divide, size
from boundflow_crown.frames import Frame
from boundflow_crown.rows import Rows
from boundflow_crown.window_composites import GATHER_WINDOWS, SCATTER_WINDOWS

__all__ = ["FULL_MAP_SHARE", "Picks", "Window", "WindowRows", "as_maps", "as_window", "cleaned", "embedded", "joined"]

# Windows above this part of a map become full maps, which need no gathering and whose convolutions run faster.
# Measured with benchmarks/crown_windows.py: 11x11 of 16x16 took 0.6 of the time of full maps, 15x15 of 16x16 as long.
FULL_MAP_SHARE = 1 / 2


@dataclass(frozen=True)
class Picks:
    """Neurons of a map [C, P, Q] that rows start from, one per row: ``neuron`` [R], its number in the flattened map."""

    b: Builder
    neuron: Value
    shape: tuple[int, int, int]

    def channel(self) -> Value:
        """[R]."""
        return self._looked_up(np.arange(self.shape[0]).repeat(self.shape[1] * self.shape[2]))

    def position(self) -> Value:
        """Row and column in one number [R]."""
        return self._looked_up(np.tile(np.arange(self.shape[1] * self.shape[2]), self.shape[0]))

    def maps(self) -> Value:
        """One at the neuron, zero elsewhere: [R, C, P, Q]."""
        count, row = int(np.prod(self.shape)), self.neuron.shape[0]
        places = self.b.constant(frozen(np.arange(count, dtype=np.int64)))
        chosen = self.b.compare(self.b.reshape(self.neuron, (row, 1)), places, "eq")
        return self.b.reshape(self.b.where(chosen, 1.0, 0.0), (row, *self.shape))

    def _looked_up(self, table: NDArray[np.int64]) -> Value:
        return self.b.gather_rows(self.b.constant(frozen(table.astype(np.int64))), self.neuron)


@dataclass(frozen=True)
class Window:
    """Rows on a map, zero outside of a window each.

    Attributes:
        value: [*front, h, w, C]; None for rows that pick out their neuron, a window of one element.
        frame: where the windows lie.
        picks: the neurons.
        clean: whether coefficients outside of the map are zero.
    """

    value: Value | None
    frame: Frame
    picks: Picks
    clean: bool = True

    @staticmethod
    def start(picks: Picks) -> Window:
        """Rows that pick out their neuron."""
        return Window(None, Frame(picks.shape[1:]), picks)

    def label(self, extent: Shape) -> str:
        """For reports."""
        (h, w), (height, width) = self.frame.size, extent
        return f"window {h}x{w} of {height}x{width}"


@dataclass(frozen=True)
class WindowRows:
    """The layout of rows that are windows, with the methods of :class:`Rows` that rules of elementwise operators use.

    Mirrored rows belong to the same windows, so that what is cut out of a map serves both: in front of a window's axes
    are (B, copies, R), or (copies, R) for rows of any regions.
    """

    b: Builder
    rows: Rows
    frame: Frame
    picks: Picks

    @property
    def copies(self) -> int:
        count = divide(self.rows.front[-1], self.picks.neuron.shape[0])
        assert isinstance(count, int)
        return count

    @property
    def front(self) -> tuple[Dim, ...]:
        return (*self.rows.front[:-1], self.copies, self.picks.neuron.shape[0])

    def split(self, x: Value) -> Value:
        """[*rows.front, ...] as [*front, ...]."""
        return self.b.reshape(x, (*self.front, *x.shape[len(self.rows.front) :]))

    def merged(self, x: Value) -> Value:
        """The inverse of :meth:`split`."""
        return self.b.reshape(x, (*self.rows.front, *x.shape[len(self.front) :]))

    def lift(self, value: Value) -> Value:
        """Maps per region [B, C, H, W] as windows, zero outside of the map; other values per region as Rows does."""
        region = self._region()
        if value.rank != 4:
            lifted = value if region is None else self.b.gather_rows(value, region)
            lead = (value.shape[0], 1, 1) if region is None else (1, self.front[-1])
            return self.b.reshape(lifted, (*lead, *value.shape[1:]))
        operands = (value, self.picks.position()) if region is None else (value, self.picks.position(), region)
        (found,) = self.b.emit(GATHER_WINDOWS, *operands, **self.frame.attrs)
        if region is None:
            return self.b.reshape(found, (found.shape[0], 1, *found.shape[1:]))
        return self.b.reshape(found, (1, *found.shape))

    def lift_constant(self, maps: Value) -> Value:
        """A constant map [C, H, W] as windows, zero outside of the map."""
        whole = self.b.reshape(maps, (1, *maps.shape))
        (found,) = self.b.emit(GATHER_WINDOWS, whole, self.picks.position(), **self.frame.attrs)
        return self.b.reshape(found, (*(1 for _ in self.front[:-1]), *found.shape[1:]))

    def sum(self, x: Value) -> Value:
        """``x`` summed over its windows: [*front], row by row as :meth:`Rows.sum` does."""
        for axis in range(x.rank - 1, len(self.front) - 1, -1):
            x = self.b.reduce_sum(x, (axis,))
        return x

    def inside(self, x: Value, shape: Shape) -> Value:
        """Windows ``x`` with zeros outside of a map of ``shape`` [C, H, W]."""
        extent = concrete_shape(shape[-2:], {})
        if self.frame.inside(extent):
            return x
        ones = self.b.constant(frozen(np.ones((1, *extent))))
        return x * self.lift_constant(ones)  # a quarter of the time of a choice by condition

    def _region(self) -> Value | None:
        """Region of each neuron [R]."""
        if self.rows.region is None or self.copies == 1:
            return self.rows.region
        return self.b.slice(self.rows.region, (0,), (self.front[-1],), (1,))


def as_window(window: Window, rows: Rows) -> tuple[Value, WindowRows]:
    """The windows' elements [*front, h, w, C] and their layout."""
    b = rows.b
    layout = WindowRows(b, rows, window.frame, window.picks)
    if window.value is not None:
        return window.value, layout
    channels = window.picks.shape[0]
    chosen = b.gather_rows(b.constant(np.eye(channels)), window.picks.channel())
    return spread(b, b.reshape(chosen, (chosen.shape[0], 1, 1, channels)), rows), layout


def spread(b: Builder, x: Value, rows: Rows) -> Value:
    """``x`` [R, *s] of one region's rows for all of them, before they are mirrored."""
    return x if len(rows.front) == 1 else b.broadcast(x, (*rows.front, *x.shape[1:]))


def cleaned(window: Window, rows: Rows, extent: tuple[int, ...]) -> tuple[Value, WindowRows]:
    """As :func:`as_window`, with zeros outside of the map."""
    value, layout = as_window(window, rows)
    if window.clean or window.frame.inside(extent):
        return value, layout
    return layout.merged(layout.inside(layout.split(value), (value.shape[-1], *extent))), layout


def as_maps(window: Window, rows: Rows, extent: tuple[int, int]) -> Value:
    """The same rows as full maps [*front, C, H, W]."""
    b = rows.b
    if window.value is None and window.frame.grid == extent:
        return spread(b, window.picks.maps(), rows)
    value, layout = as_window(window, rows)  # what lies outside is left behind
    channels = value.shape[-1]
    if window.frame.grid == (1, 1):  # all windows at one place, which is known
        return _placed(b, value, window.frame, extent)
    count = size(rows.front)
    position = window.picks.position()
    lead = tuple(1 for _ in layout.front[:-1])
    each = b.broadcast(b.reshape(position, (*lead, position.shape[0])), layout.front)
    flat = b.reshape(value, (count, *value.shape[-3:]))
    attrs = {**window.frame.attrs, "extent": extent}
    (maps,) = b.emit(SCATTER_WINDOWS, flat, b.reshape(each, (count,)), **attrs)
    return b.reshape(maps, (*rows.front, channels, *extent))


def _placed(b: Builder, value: Value, frame: Frame, extent: tuple[int, int]) -> Value:
    """Full maps from windows [*front, h, w, C] that all lie at the frame's offset."""
    front = value.rank - 3
    low, high = frame.outside(extent)
    starts = (*(0 for _ in range(front)), *low, 0)
    stops = (*value.shape[:front], *(frame.size[a] - high[a] for a in (0, 1)), value.shape[-1])
    inner = b.slice(value, starts, stops, (1,) * value.rank) if low != (0, 0) or high != (0, 0) else value
    before = [max(0, frame.offset[a]) for a in (0, 1)]
    after = [max(0, extent[a] - frame.offset[a] - frame.size[a]) for a in (0, 1)]
    if any(before) or any(after):
        inner = b.pad(inner, (*(0,) * front, *before, 0), (*(0,) * front, *after, 0))
    return b.permute(inner, (*range(front), value.rank - 1, value.rank - 3, value.rank - 2))


def embedded(b: Builder, value: Value, frame: Frame, wider: Frame) -> Value:
    """Windows [*front, h, w, C] of ``frame`` as those of ``wider``, which hold them."""
    front = (0,) * (value.rank - 3)
    low = [frame.offset[a] - wider.offset[a] for a in (0, 1)]
    high = [wider.size[a] - frame.size[a] - low[a] for a in (0, 1)]
    return value if not any(low) and not any(high) else b.pad(value, (*front, *low, 0), (*front, *high, 0))


def joined(one: Window, other: Window, rows: Rows) -> Window | None:
    """The sum of rows, or None where no frame holds the windows of both."""
    wider = one.frame.union(other.frame)
    if wider is None:
        return None
    parts = [embedded(rows.b, as_window(w, rows)[0], w.frame, wider) for w in (one, other)]
    return replace(one, value=parts[0] + parts[1], frame=wider, clean=one.clean and other.clean)
