"""Products of matrices as loop nests: register tiles over columns, or sums in the lanes of a vector along rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from boundflow_core.ir.program import Op
from boundflow_core.ir.types import Dim, Shape
from boundflow_core.planner.views import row_major
from boundflow_tvm.backend import Tir
from boundflow_tvm.codegen.index import Axis, Index
from boundflow_tvm.codegen.loops import Frame

__all__ = ["matmul"]

ROWS = 4


def matmul(t: Tir, op: Op, symbols: Sequence[str], *, turned: bool = False) -> Any:
    """The function of (x, y, result) for a primitive `matmul`; ``turned``: y's last two axes are exchanged for it."""
    frame = Frame(t, [v.type for v in (*op.inputs, *op.outputs)], symbols)
    return frame.function(_Product(frame, op, turned).leading(0, []))


class _Product:
    def __init__(self, frame: Frame, op: Op, turned: bool) -> None:
        x, y, out = (*op.inputs, *op.outputs)
        self.frame, self.t = frame, frame.t
        self.dtype = str(out.type.dtype)
        self.lead: Shape = out.shape[:-2]
        self.rows, self.columns = out.shape[-2:]
        self.a, self.b = op.attrs["transpose_a"], op.attrs["transpose_b"] != turned
        self.depth: Dim = x.shape[-2] if self.a else x.shape[-1]
        self.shapes = (x.shape, y.shape, out.shape)
        self.lanes = 16 if self.dtype == "float32" else 8

    def leading(self, axis: int, axes: list[Any]) -> Any:
        """Loops over the leading axes, and the product of two matrices inside."""
        if axis < len(self.lead):
            return self.t.loop(
                self.frame.dim(self.lead[axis]), lambda var: self.leading(axis + 1, [*axes, var]), f"b{axis}"
            )
        self.starts = [self._start(shape, axes) for shape in self.shapes]
        inner = not self.a and (self.b or self.columns == 1)
        return self._dots() if inner else self._tiles()

    def _start(self, shape: Shape, axes: Sequence[Any]) -> Any:
        """Address of the matrix of an operand; axes of size 1 are repeated."""
        total = Index()
        offset = len(self.lead) - (len(shape) - 2)
        for place, (dim, stride) in enumerate(zip(shape[:-2], row_major(shape)[:-2], strict=True)):
            if dim != 1:
                total = total + Index.of({(Axis(offset + place), ()): 1}).times(stride)
        return self.frame.index(total, axes)

    def x(self, row: Any, k: Any) -> Any:
        at = k * self.frame.dim(self.rows) + row if self.a else row * self.frame.dim(self.depth) + k
        return self.t.load(self.frame.buffers[0], self.starts[0] + at)

    def y(self, k: Any, column: Any) -> Any:
        at = column * self.frame.dim(self.depth) + k if self.b else k * self.frame.dim(self.columns) + column
        return self.t.load(self.frame.buffers[1], self.starts[1] + at)

    def put(self, row: Any, column: Any, value: Any) -> Any:
        at = self.starts[2] + row * self.frame.dim(self.columns) + column
        return self.t.store(self.frame.buffers[2], at, value)

    def _blocks(self, extent: Dim, step: int, body: Callable[[Any, int], Any], name: str) -> list[Any]:
        """Calls ``body(start, count)`` for whole blocks of ``step``, then for the rest, or for single ones of it."""
        t, parts = self.t, []
        if isinstance(extent, int):
            if whole := extent // step:
                parts.append(t.loop(whole, lambda i: body(i * t.int(step), step), name))
            if rest := extent % step:
                parts.append(body(t.int(whole * step), rest))
            return parts
        length = self.frame.dim(extent)
        blocks = t.t.truncdiv(length, t.int(step))
        parts.append(t.loop(blocks, lambda i: body(i * t.int(step), step), name))
        rest_start = blocks * t.int(step)
        parts.append(t.loop(length - rest_start, lambda i: body(rest_start + i, 1), name + "_rest"))
        return parts

    def _tiles(self) -> Any:
        """Tiles of rows times lanes; each step of the depth adds a column of x times a row of y."""
        width = 2 * self.lanes
        if isinstance(self.columns, int) and self.columns < width:
            width = self.columns

        def rows(row: Any, height: int) -> Any:
            return self.t.seq(*self._blocks(self.columns, width, lambda c, n: self._tile(row, height, c, n), "column"))

        return self.t.seq(*self._blocks(self.rows, ROWS, rows, "row"))

    def _tile(self, row: Any, height: int, column: Any, width: int) -> Any:
        t = self.t
        acc, allocate = t.local("acc", height * width, self.dtype)
        zero = t.number(0.0, self.dtype)

        def step(k: Any) -> Any:
            parts = []
            for r in range(height):
                value = t.var(f"x{r}", self.dtype)
                parts.append(t.bind(value, self.x(row + t.int(r), k)))

                def lane(i: Any, r: int = r, value: Any = value) -> Any:
                    at = t.int(r * width) + i
                    return t.store(acc, at, t.t.Add(t.load(acc, at), t.t.Mul(value, self.y(k, column + i))))

                parts.append(t.loop(width, lane, "lane") if width > 1 else lane(t.int(0)))
            return t.seq(*parts)

        def out(r: int) -> Any:
            def one(i: Any) -> Any:
                return self.put(row + t.int(r), column + i, t.load(acc, t.int(r * width) + i))

            return t.loop(width, one, "lane")

        clear = t.loop(height * width, lambda i: t.store(acc, i, zero), "lane")
        return t.seq(allocate, clear, t.loop(self.frame.dim(self.depth), step, "k"), *(out(r) for r in range(height)))

    def _dots(self) -> Any:
        """Rows of x times rows of y: partial sums in lanes."""

        def rows(row: Any, height: int) -> Any:
            return self.t.seq(*self._blocks(self.columns, ROWS, lambda c, n: self._dot(row, c, n), "column"))

        return self.t.seq(*self._blocks(self.rows, 1, rows, "row"))

    def _dot(self, row: Any, column: Any, width: int) -> Any:
        t, lanes = self.t, self.lanes
        acc, allocate = t.local("acc", width * lanes, self.dtype)
        zero = t.number(0.0, self.dtype)

        def add(c: int, lane: Any, k: Any) -> Any:
            at = t.int(c * lanes) + lane
            product = t.t.Mul(self.x(row, k), self.y(k, column + t.int(c)))
            return t.store(acc, at, t.t.Add(t.load(acc, at), product))

        def block(start: Any, count: int) -> Any:
            if count == 1:
                return t.seq(*(add(c, t.int(0), start) for c in range(width)))

            def column_sums(c: int) -> Any:
                return t.loop(count, lambda lane: add(c, lane, start + lane), "lane")

            return t.seq(*map(column_sums, range(width)))

        joins = []
        for c in range(width):
            half = lanes // 2
            while half:
                for lane in range(half):
                    a, b = t.int(c * lanes + lane), t.int(c * lanes + lane + half)
                    joins.append(t.store(acc, a, t.t.Add(t.load(acc, a), t.load(acc, b))))
                half //= 2
            joins.append(self.put(row, column + t.int(c), t.load(acc, t.int(c * lanes))))
        clear = t.loop(width * lanes, lambda i: t.store(acc, i, zero), "lane")
        return t.seq(allocate, clear, *self._blocks(self.depth, lanes, block, "k"), *joins)
