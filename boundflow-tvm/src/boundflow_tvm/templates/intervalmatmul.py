"""Bounds of products with a weight, in centre/radius form: the weight is read once for both.

Centre and radius of a few rows are computed first; a register tile then holds sums of centres and of radii for these
rows and four vectors of columns. The weight lies as [inputs, columns of a tile], tile after tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.program import Op
from boundflow_tvm.templates.interface import Input, Kernel, Operand, Output, Packed, Scratch
from boundflow_tvm.templates.machine import Machine, machine
from boundflow_tvm.templates.writer import Writer

__all__ = ["interval_matmul"]

VERSION = 1
VECTORS = 4  # of columns in a tile


def interval_matmul(op: Op, known: Sequence[bool]) -> Kernel | None:
    """x W and x W^T for vectors x, with weight and bias known beforehand."""
    lower, weight = op.inputs[0], op.inputs[2]
    if op.attrs["side"] != "right" or lower.rank != 2 or weight.rank != 2 or not all(known[2:]):
        return None
    inputs, columns = lower.shape[1], op.outputs[0].shape[1]
    if not isinstance(inputs, int) or not isinstance(columns, int) or not inputs or not columns:
        return None
    bias = len(op.inputs) == 4
    if bias and op.inputs[3].shape != (columns,):
        return None
    dtype, found, transpose = str(lower.type.dtype), machine(), bool(op.attrs["transpose"])
    lanes, rows = found.lanes(dtype), _rows(found)
    operands: list[Operand] = [Input(0), Input(1)]
    name = f"interval-matmul/{lanes}/{transpose}"
    operands.append(Packed((2,), lambda w: _pack(w.T if transpose else w, lanes), name))
    if bias:
        operands.append(Packed((3,), lambda b: _pack(b[None], lanes), f"interval-bias/{lanes}"))
    operands += [Scratch((2, rows, inputs), dtype), Output(0), Output(1)]
    return Kernel(
        name="interval_matmul",
        key=f"{VERSION} {found.name} {dtype} {inputs}x{columns} bias={bias}",
        build=lambda: _build(inputs, columns, bias, dtype, found),
        operands=tuple(operands),
        flops=4.0 * inputs * columns,
    )


def _rows(machine: Machine) -> int:
    """Rows of a register tile."""
    return max(1, machine.accumulators // (2 * VECTORS))


def _groups(columns: int, lanes: int) -> list[tuple[int, int, int]]:
    """Tiles of columns: (first column, number of tiles, vectors in a tile, a power of two)."""
    found, start, vectors = [], 0, VECTORS
    while start < columns:
        count = (columns - start) // (vectors * lanes)
        if vectors == 1:
            count = -(-(columns - start) // lanes)
        if count:
            found.append((start, count, vectors))
            start += count * vectors * lanes
        vectors //= 2
    return found


def _pack(weight: NDArray[Any], lanes: int) -> NDArray[Any]:
    """[inputs, columns] as [inputs, columns of a tile], tile after tile; the last one filled up with zeros."""
    inputs, columns = weight.shape
    found = []
    for first, count, vectors in _groups(columns, lanes):
        for k in range(count):
            start = first + k * vectors * lanes
            tile = np.zeros((inputs, vectors * lanes), weight.dtype)
            part = weight[:, start : start + vectors * lanes]
            tile[:, : part.shape[1]] = part
            found.append(tile.reshape(-1))
    return np.concatenate(found)


def _build(inputs: int, columns: int, bias: bool, dtype: str, machine: Machine) -> Any:
    w, lanes, most = Writer(dtype), machine.lanes(dtype), _rows(machine)
    count = w.size("B")
    lower, upper = w.param((count, inputs)), w.param((count, inputs))
    width = sum(c * v * lanes for _, c, v in _groups(columns, lanes))
    weight = w.param((inputs * width,))
    offset = w.param((width,)) if bias else None
    ready = w.param((2, most, inputs))
    low, high = w.param((count, columns)), w.param((count, columns))

    def block(first: Any, rows: int) -> None:
        for row in range(rows):
            _centre_radius(w, (lower, upper), first + row, ready, row, inputs, lanes)
        for start, tile_count, vectors in _groups(columns, lanes):
            with w.loop(tile_count) as tile:
                column = w.keep(tile * (vectors * lanes) + start)
                size = vectors * lanes
                sums = [[w.local(size) for _ in range(rows)] for _ in range(2)]
                for row in range(rows):
                    begin = w.load(offset, column, lanes=size) if offset is not None else w.spread(0.0, size)
                    w.store(begin, sums[0][row], 0, lanes=size)
                    w.store(w.spread(0.0, size), sums[1][row], 0, lanes=size)
                base = w.keep(tile * (vectors * lanes * inputs) + start * inputs)
                with w.loop(inputs) as k:
                    vector = w.keep(w.load(weight, base + k * size, lanes=size))
                    for part, factor in ((0, vector), (1, w.keep(w.absolute(vector)))):
                        for row in range(rows):
                            term = w.spread(w.load(ready, part, row, k), size) * factor
                            held = sums[part][row]
                            w.store(w.load(held, 0, lanes=size) + term, held, 0, lanes=size)
                left = w.keep(w.minimum(w.integer(size), columns - column))
                whole = start + tile_count * size <= columns
                for row in range(rows):
                    centre, radius = (w.keep(w.load(s[row], 0, lanes=size)) for s in sums)
                    for target, value in ((low, centre - radius), (high, centre + radius)):
                        if whole:
                            w.store(value, target, first + row, column, lanes=size)
                        else:
                            w.store(value, sums[0][row], 0, lanes=size)
                            with w.loop(left) as lane:
                                w.store(w.load(sums[0][row], lane), target, first + row, column + lane)

    with w.loop(count // most) as group:
        block(w.keep(group * most), most)
    if most > 1:
        with w.loop(count % most) as row:
            block(w.keep(count - count % most + row), 1)
    return w.function()


def _centre_radius(w: Writer, bounds: tuple[Any, Any], row: Any, ready: Any, place: int, size: int, lanes: int) -> None:
    """Halves first, as their sum cannot overflow."""

    def part(start: Any, count: int) -> None:
        low, high = (w.keep(w.load(x, row, start, lanes=count) * w.spread(0.5, count)) for x in bounds)
        w.store(low + high, ready, 0, place, start, lanes=count)
        w.store(high - low, ready, 1, place, start, lanes=count)

    with w.loop(size // lanes) as vector:
        part(w.keep(vector * lanes), lanes)
    with w.loop(size % lanes) as left:
        part(w.keep(left + (size - size % lanes)), 1)
