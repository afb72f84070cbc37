"""What kernels share: places of elements, and sums over the threads of a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from boundflow_core.ir.types import Dim, DType, size
from boundflow_tvm.backend_cuda import Grid
from boundflow_tvm.codegen.arithmetic import combine, storage, unit
from boundflow_tvm.codegen.loops import Frame

__all__ = ["THREADS", "declared", "grid_size", "joined", "places", "strided"]

THREADS = 128
"""Threads of a block, a power of two."""


def declared(frame: Frame, body: Any) -> Any:
    """``body`` with the buffers of the frame's pointers."""
    t = frame.t
    return t.seq(*(t.t.DeclBuffer(b, data=p) for b, p in zip(frame.buffers, frame.pointers, strict=True)), body)


def grid_size(frame: Frame, dims: Sequence[Dim]) -> Any:
    return frame.dim(size(dims))


def places(frame: Frame, number: Any, dims: Sequence[Dim]) -> list[Any]:
    """The index along each of ``dims`` of the element that is ``number`` in row-major order."""
    t, found = frame.t, []
    for place, dim in enumerate(dims):
        inner = frame.dim(size(dims[place + 1 :]))
        index = number if place == len(dims) - 1 else t.t.truncdiv(number, inner)
        found.append(index if place == 0 else t.t.truncmod(index, frame.dim(dim)))
    return found


def strided(grid: Grid, thread: Any, extent: Any, body: Callable[[Any], Any]) -> Any:
    """``body(i)`` for each i below ``extent`` that is the thread's: every one of ``THREADS``."""
    t = grid.t
    rounds = t.t.truncdiv(extent - thread + t.int(THREADS - 1), t.int(THREADS))
    return t.loop(rounds, lambda turn: body(turn * t.int(THREADS) + thread), "turn")


def joined(
    grid: Grid, thread: Any, dtype: DType, reduction: str, sweep: Callable[[Any], Any], write: Callable[[Any], Any]
) -> Any:
    """A reduction over the threads of a block.

    Args:
        sweep: ``sweep(add)``: the statements by which the thread takes its share, ``add(value)`` for each element.
        write: ``write(total)``: the statement that the first thread ends with.
    """
    t, kind = grid.t, storage(dtype)
    mine, allocate = grid.array("mine", 1, kind, "local")
    parts, allocate_parts = grid.array("parts", THREADS, kind, "shared")
    zero = t.int(0)

    def add(value: Any) -> Any:
        return t.store(mine, zero, combine(t, reduction, t.load(mine, zero), value, dtype))

    steps = [
        allocate,
        allocate_parts,
        t.store(mine, zero, t.number(unit(reduction, dtype), kind)),
        sweep(add),
        t.store(parts, thread, t.load(mine, zero)),
        grid.barrier(),
    ]
    width = THREADS // 2
    while width:
        other = t.load(parts, thread + t.int(width))
        half = t.store(parts, thread, combine(t, reduction, t.load(parts, thread), other, dtype))
        steps += [t.when(t.t.LT(thread, t.int(width)), half), grid.barrier()]
        width //= 2
    return t.seq(*steps, t.when(t.t.EQ(thread, zero), write(t.load(parts, zero))))
