"""Rows put into arrays at places that depend on data, and how such places are found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boundflow_core.ir.program import Op
from boundflow_core.ir.types import size
from boundflow_tvm.backend import Tir
from boundflow_tvm.codegen.loops import Frame

__all__ = ["first_reaching", "running_count", "scatter_rows"]


def scatter_rows(t: Tir, op: Op, symbols: Sequence[str]) -> Any:
    """The function of (base, index, rows, result) for `scatter_rows` and `scatter_add_rows`."""
    base, index, rows, out = (*op.inputs, *op.outputs)
    frame = Frame(t, [v.type for v in (base, index, rows, out)], symbols)
    axis = op.attrs["axis"]
    before, extent, after = (
        frame.dim(size(base.shape[:axis])),
        frame.dim(base.shape[axis]),
        frame.dim(size(base.shape[axis + 1 :])),
    )
    count = frame.dim(index.shape[0])

    def copy(i: Any) -> Any:
        return t.store(frame.buffers[3], i, t.load(frame.buffers[0], i))

    def put(outer: Any, number: Any, inner: Any) -> Any:
        to = (outer * extent + t.load(frame.buffers[1], number)) * after + inner
        value = t.load(frame.buffers[2], (outer * count + number) * after + inner)
        if op.name == "scatter_add_rows":
            value = t.t.Add(t.load(frame.buffers[3], to), value)
        return t.store(frame.buffers[3], to, value)

    rows_loop = t.loop(
        before,
        lambda outer: t.loop(count, lambda n: t.loop(after, lambda inner: put(outer, n, inner), "inner"), "row"),
        "outer",
    )
    return frame.function(t.seq(t.loop(frame.dim(size(base.shape)), copy, "i"), rows_loop))


def running_count(t: Tir, op: Op, symbols: Sequence[str]) -> Any:
    """The function of (mask, result)."""
    (mask,), (out,) = op.inputs, op.outputs
    frame = Frame(t, [mask.type, out.type], symbols)
    total, allocate = t.local("total", 1, "int64")

    def count(i: Any) -> Any:
        one = t.select(t.t.NE(t.load(frame.buffers[0], i), t.number(0, "int8")), t.int(1), t.int(0))
        more = t.store(total, t.int(0), t.t.Add(t.load(total, t.int(0)), one))
        return t.seq(more, t.store(frame.buffers[1], i, t.load(total, t.int(0))))

    return frame.function(
        t.seq(allocate, t.store(total, t.int(0), t.int(0)), t.loop(frame.dim(out.shape[0]), count, "i"))
    )


MOST_HALVINGS = 48  # of a vector: more elements than memory holds


def first_reaching(t: Tir, op: Op, symbols: Sequence[str]) -> Any:
    """The function of (ascending, wanted, result): how many elements are smaller, bit by bit, from the highest one."""
    (ascending, wanted), (out,) = op.inputs, op.outputs
    frame = Frame(t, [ascending.type, wanted.type, out.type], symbols)
    length, zero = frame.dim(ascending.shape[0]), t.int(0)
    # the largest power of two within the length, and how many there are
    half, allocate_half = t.local("half", 2, "int64")
    place, allocate_place = t.local("place", 2, "int64")

    def double(_: Any) -> Any:
        twice = t.t.Mul(t.load(half, zero), t.int(2))
        grown = t.seq(t.store(half, zero, twice), t.store(half, t.int(1), t.t.Add(t.load(half, t.int(1)), t.int(1))))
        return t.when(t.t.LE(twice, length), grown)

    def search(i: Any) -> Any:
        number = t.load(frame.buffers[1], i)

        def step(_: Any) -> Any:
            found, width = t.load(place, zero), t.load(place, t.int(1))
            last = t.t.Add(found, width)
            inside = t.t.LT(t.load(frame.buffers[0], t.t.Sub(last, t.int(1))), number)
            moved = t.select(t.t.LE(last, length), t.select(inside, last, found), found)
            return t.seq(
                t.store(place, zero, moved), t.store(place, t.int(1), t.t.truncdiv(t.load(place, t.int(1)), t.int(2)))
            )

        found = t.t.min(t.load(place, zero), t.t.Sub(length, t.int(1)))
        return t.seq(
            t.store(place, zero, zero),
            t.store(place, t.int(1), t.load(half, zero)),
            t.loop(steps, step, "step"),
            t.store(frame.buffers[2], i, found),
        )

    steps = t.var("steps")
    return frame.function(
        t.seq(
            allocate_half,
            allocate_place,
            t.store(half, zero, t.int(1)),
            t.store(half, t.int(1), t.int(1)),
            t.loop(MOST_HALVINGS, double, "bit"),
            t.bind(steps, t.load(half, t.int(1))),
            t.loop(frame.dim(wanted.shape[0]), search, "i"),
        )
    )
