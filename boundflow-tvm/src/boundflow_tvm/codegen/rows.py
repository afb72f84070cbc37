"""Rows put into arrays at places that depend on data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boundflow_core.ir.program import Op
from boundflow_core.ir.types import size
from boundflow_tvm.backend import Tir
from boundflow_tvm.codegen.loops import Frame

__all__ = ["scatter_rows"]


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
