"""A writer of TVM functions: loops, vectors of lanes, local arrays. The only module of the templates that knows TVM.

Functions are put together node by node: TVM's text front end needs a source file and several times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["Writer"]

Expr = Any
Buffer = Any


class Writer:
    """Collects the statements of one function.

    Vectors are ``lanes`` consecutive elements of an array's last axis. Nothing checks the indices.
    """

    def __init__(self, dtype: str = "float32") -> None:
        from tvm import tirx
        from tvm.tirx.buffer import decl_buffer

        self._t, self._declare = tirx, decl_buffer
        self.dtype = dtype
        self._params: list[Any] = []
        self._blocks: list[list[Any]] = [[]]
        self._names = 0

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    # -- parameters and memory ----------------------------------------------------------------------------------------

    def size(self, name: str) -> Expr:
        """A dimension known when the function runs."""
        return self._t.Var(name, "int64")

    def param(self, shape: Sequence[Expr], dtype: str | None = None) -> Buffer:
        """The next parameter: an array of ``shape``."""
        buffer = self._declare(tuple(map(self._int, shape)), dtype or self.dtype, self._name("a"), layout=None)
        self._params.append(buffer)
        return buffer

    def local(self, count: int, dtype: str | None = None) -> Buffer:
        """A small array of the function's own, in registers where all indices are known."""
        size = self._t.IntImm("int32", count)  # of scope "local", or of another type, TVM takes it from a pool
        buffer = self._declare((size,), dtype or self.dtype, self._name("l"), layout=None)
        self._emit(self._t.AllocBuffer(buffer))
        return buffer

    # -- expressions --------------------------------------------------------------------------------------------------

    def _int(self, value: Expr) -> Expr:
        return self._t.IntImm("int64", value) if isinstance(value, int) else value

    def integer(self, value: int) -> Expr:
        return self._int(value)

    def number(self, value: float) -> Expr:
        return self._t.FloatImm(self.dtype, value)

    def real(self, value: Expr) -> Expr:
        """An integer as a number of the kernel's type."""
        return self._t.Cast(self.dtype, value)

    def load(self, buffer: Buffer, *index: Expr, lanes: int = 1) -> Expr:
        """One element, or ``lanes`` consecutive ones."""
        return self._t.BufferLoad(buffer, self._index(index, lanes))

    def spread(self, value: Expr, lanes: int) -> Expr:
        """The same number in all lanes."""
        value = self.number(value) if isinstance(value, (int, float)) else value
        return value if lanes == 1 else self._t.Broadcast(value, lanes)

    def shuffle(self, x: Expr, y: Expr, places: Sequence[int]) -> Expr:
        """Elements of the concatenation of two vectors."""
        return self._t.Shuffle([x, y], [self._t.IntImm("int32", place) for place in places])

    def maximum(self, x: Expr, y: Expr) -> Expr:
        return self._t.Max(x, y)

    def minimum(self, x: Expr, y: Expr) -> Expr:
        return self._t.Min(x, y)

    def positive(self, x: Expr, lanes: int = 1) -> Expr:
        """max(x, 0); NaN stays NaN, which the minimum and maximum of TVM do not promise."""
        zero = self.spread(0.0, lanes)
        return self._t.Select(x < zero, zero, x)

    def negative(self, x: Expr, lanes: int = 1) -> Expr:
        """min(x, 0); NaN stays NaN."""
        zero = self.spread(0.0, lanes)
        return self._t.Select(x > zero, zero, x)

    def both(self, one: Expr, other: Expr) -> Expr:
        return self._t.And(one, other)

    def absolute(self, x: Expr) -> Expr:
        return self._t.abs(x)

    def _index(self, index: Sequence[Expr], lanes: int) -> list[Expr]:
        found = [self._int(part) for part in index]
        if lanes > 1:
            found[-1] = self._t.Ramp(found[-1], self._int(1), lanes)
        return found

    # -- statements ---------------------------------------------------------------------------------------------------

    def _emit(self, statement: Any) -> None:
        self._blocks[-1].append(statement)

    def store(self, value: Expr, buffer: Buffer, *index: Expr, lanes: int = 1) -> None:
        self._emit(self._t.BufferStore(buffer, value, self._index(index, lanes)))

    def keep(self, value: Expr) -> Expr:
        """``value`` computed here, once."""
        from tvm.tirx import Bind

        variable = self._t.Var(self._name("v"), value.ty)
        self._emit(Bind(variable, value))
        return variable

    @contextmanager
    def loop(self, extent: Expr) -> Iterator[Expr]:
        """Statements within run for each number below ``extent``; gives the number."""
        if isinstance(extent, int) and extent == 1:
            yield self._int(0)
            return
        variable = self._t.Var(self._name("i"), "int64")
        self._blocks.append([])
        yield variable
        body = self._closed()
        self._emit(self._t.For(variable, self._int(0), self._int(extent), self._t.ForKind.SERIAL, body))

    @contextmanager
    def repeat(self, condition: Expr) -> Iterator[None]:
        """Statements within run as long as ``condition`` holds."""
        self._blocks.append([])
        yield
        self._emit(self._t.While(condition, self._closed()))

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        self._blocks.append([])
        yield
        self._emit(self._t.IfThenElse(condition, self._closed(), None))

    def _closed(self) -> Any:
        statements = self._blocks.pop()
        return statements[0] if len(statements) == 1 else self._t.SeqStmt(statements)

    def function(self) -> Any:
        """The finished function."""
        (statements,) = self._blocks
        body = statements[0] if len(statements) == 1 else self._t.SeqStmt(statements)
        made = self._t.PrimFunc(self._params, body)
        return made.with_attr("global_symbol", "main").with_attr("tirx.noalias", True).with_attr("s_tir", True)
