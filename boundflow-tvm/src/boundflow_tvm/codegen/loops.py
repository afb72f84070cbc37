"""Loop nests of scalar code as functions of TVM's tensor IR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from boundflow_core.ir.types import Dim, DType, TensorType, size
from boundflow_tvm.backend import Tir
from boundflow_tvm.codegen.arithmetic import apply, combine, storage, unit
from boundflow_tvm.codegen.index import Axis, Index, Opaque
from boundflow_tvm.codegen.scalar import LoopNest

__all__ = ["Frame", "nest_function"]


class Frame:
    """The parameters of a kernel: a pointer per operand and result, then the symbols of its shapes."""

    def __init__(self, t: Tir, types: Sequence[TensorType], symbols: Sequence[str]) -> None:
        self.t = t
        self.sizes = {name: t.var(f"size_{name}") for name in symbols}
        self.pointers = [t.pointer(f"p{i}", storage(kind.dtype)) for i, kind in enumerate(types)]
        self.buffers = [
            t.buffer(f"b{i}", self.dim(size(kind.shape)), storage(kind.dtype)) for i, kind in enumerate(types)
        ]

    def dim(self, dim: Dim) -> Any:
        t = self.t
        if isinstance(dim, int):
            return t.int(dim)
        found = t.int(dim.coefficient) if dim.coefficient != 1 else None
        for symbol in dim.symbols:
            found = self.sizes[symbol] if found is None else found * self.sizes[symbol]
        return found

    def index(self, index: Index, axes: Sequence[Any], values: Sequence[Any] = ()) -> Any:
        total = None
        for (atom, symbols), count in index.terms:
            term = None if atom is None else self._atom(atom, axes, values)
            for symbol in symbols:
                term = self.sizes[symbol] if term is None else term * self.sizes[symbol]
            term = self.t.int(count) if term is None else term if count == 1 else term * self.t.int(count)
            total = term if total is None else total + term
        return self.t.int(0) if total is None else total

    def _atom(self, atom: Axis | Opaque, axes: Sequence[Any], values: Sequence[Any]) -> Any:
        if isinstance(atom, Axis):
            return axes[atom.number]
        if atom.kind == "value":
            return values[atom.value]
        t, inner, dim = self.t, self.index(atom.index, axes, values), self.dim(atom.dim)
        if atom.kind == "clamp":
            return t.t.max(t.t.min(inner, dim - 1), t.int(0))
        return t.t.truncdiv(inner, dim) if atom.kind == "div" else t.t.truncmod(inner, dim)

    def function(self, body: Any) -> Any:
        t = self.t
        declared = [t.t.DeclBuffer(b, data=p) for b, p in zip(self.buffers, self.pointers, strict=True)]
        return t.function([*self.pointers, *self.sizes.values()], t.seq(*declared, body))


def element(frame: Frame, nest: LoopNest, axes: Sequence[Any]) -> tuple[list[Any], Any]:
    """The statements that compute an element, and its value."""
    t = frame.t
    values: list[Any] = []
    statements: list[Any] = []
    for number, code in enumerate(nest.code):
        operands = [values[i] for i in code.operands] if code.name != "load" else []
        if code.name == "load":
            value = t.load(frame.buffers[code.operands[0]], frame.index(code.index, axes, values))
            value = value if code.dtype is not DType.BOOL else t.t.NE(value, t.number(0, "int8"))
        elif code.name == "constant":
            values.append(t.number(code.attrs, str(code.dtype)))
            continue
        elif code.name == "number":
            value = frame.index(code.index, axes, values)
        elif code.name == "inside":
            at = frame.index(code.index, axes, values)
            value = t.t.And(t.t.GE(at, t.int(0)), t.t.LT(at, frame.dim(code.dim)))
        elif code.name == "same":
            value = operands[0]
        else:
            dtypes = [nest.code[i].dtype for i in code.operands]
            value = apply(t, code.name, operands, dtypes, code.attrs)
        var = t.var(f"v{number}", str(code.dtype))
        statements.append(t.bind(var, value))
        values.append(var)
    return statements, values[-1]


def nest_function(t: Tir, types: Sequence[TensorType], symbols: Sequence[str], nest: LoopNest) -> Any:
    """A function of operands and result, in the order of ``types``, that runs ``nest``."""
    frame = Frame(t, types, symbols)
    if not nest.reduction:
        return frame.function(_plain(frame, nest))
    inner = len(nest.extents) - 1
    if not nest.reduced or inner in nest.reduced:
        return frame.function(_reduced_inside(frame, nest))
    return frame.function(_reduced_outside(frame, nest))


def _loops(frame: Frame, nest: LoopNest, order: Sequence[int], axes: dict[int, Any], body: Callable[[], Any]) -> Any:
    if not order:
        return body()

    def inside(var: Any) -> Any:
        axes[order[0]] = var
        return _loops(frame, nest, order[1:], axes, body)

    return frame.t.loop(frame.dim(nest.extents[order[0]]), inside, f"i{order[0]}")


def _list(nest: LoopNest, axes: Mapping[int, Any]) -> list[Any]:
    return [axes.get(number) for number in range(len(nest.extents))]


def _store(frame: Frame, nest: LoopNest, axes: Mapping[int, Any], value: Any) -> Any:
    t = frame.t
    if nest.code[-1].dtype is DType.BOOL:
        value = t.select(value, t.number(1, "int8"), t.number(0, "int8"))
    return t.store(frame.buffers[-1], frame.index(nest.store, _list(nest, axes)), value)


def _plain(frame: Frame, nest: LoopNest) -> Any:
    axes: dict[int, Any] = {}

    def body() -> Any:
        statements, value = element(frame, nest, _list(nest, axes))
        return frame.t.seq(*statements, _store(frame, nest, axes, value))

    return _loops(frame, nest, range(len(nest.extents)), axes, body)


def _reduced_inside(frame: Frame, nest: LoopNest) -> Any:
    """The innermost loop is reduced: partial results in as many lanes as a vector has, put together at the end."""
    t, axes = frame.t, {}
    dtype = nest.code[-1].dtype
    kept = [number for number in range(len(nest.extents)) if number not in nest.reduced]
    reduced = sorted(nest.reduced)
    extent = nest.extents[reduced[-1]] if reduced else 1
    lanes = 64 // max(dtype.itemsize, 4) if not isinstance(extent, int) or extent >= 16 else 1
    neutral = t.number(unit(nest.reduction, dtype), "int8" if dtype is DType.BOOL else str(dtype))

    def update(acc: Any, lane: Any, at: Any) -> Any:
        if reduced:
            axes[reduced[-1]] = at
        statements, value = element(frame, nest, _list(nest, axes))
        if dtype is DType.BOOL:
            value = t.select(value, t.number(1, "int8"), t.number(0, "int8"))
        return t.seq(*statements, t.store(acc, lane, combine(t, nest.reduction, t.load(acc, lane), value, dtype)))

    def one() -> Any:
        acc, allocate = t.local("acc", lanes, storage(dtype))
        start = t.loop(lanes, lambda lane: t.store(acc, lane, neutral), "lane")
        length = frame.dim(extent)

        def sweep() -> Any:
            if lanes == 1:
                return t.loop(length, lambda at: update(acc, t.int(0), at), "at")
            whole = t.t.truncdiv(length, t.int(lanes))
            blocks = t.loop(
                whole,
                lambda block: t.loop(lanes, lambda lane: update(acc, lane, block * t.int(lanes) + lane), "lane"),
                "block",
            )
            tail = t.loop(
                length - whole * t.int(lanes),
                lambda rest: update(acc, t.int(0), whole * t.int(lanes) + rest),
                "rest",
            )
            return t.seq(blocks, tail)

        parts = _loops(frame, nest, reduced[:-1], axes, sweep)
        joins = []
        width = lanes // 2
        while width:
            for lane in range(width):
                a, b = t.load(acc, t.int(lane)), t.load(acc, t.int(lane + width))
                joins.append(t.store(acc, t.int(lane), combine(t, nest.reduction, a, b, dtype)))
            width //= 2
        index = frame.index(nest.store, _list(nest, axes))
        return t.seq(allocate, start, parts, *joins, t.store(frame.buffers[-1], index, t.load(acc, t.int(0))))

    return _loops(frame, nest, kept, axes, one)


def _reduced_outside(frame: Frame, nest: LoopNest) -> Any:
    """The innermost loop is kept: each step of the reduced loops adds a row to the result."""
    t, axes = frame.t, {}
    dtype = nest.code[-1].dtype
    last = len(nest.extents) - 1
    kept = [number for number in range(last) if number not in nest.reduced]
    neutral = t.number(unit(nest.reduction, dtype), storage(dtype))
    out = frame.buffers[-1]

    def fill(at: Any) -> Any:
        axes[last] = at
        return t.store(out, frame.index(nest.store, _list(nest, axes)), neutral)

    def add(at: Any) -> Any:
        axes[last] = at
        statements, value = element(frame, nest, _list(nest, axes))
        if dtype is DType.BOOL:
            value = t.select(value, t.number(1, "int8"), t.number(0, "int8"))
        place = frame.index(nest.store, _list(nest, axes))
        return t.seq(*statements, t.store(out, place, combine(t, nest.reduction, t.load(out, place), value, dtype)))

    def row() -> Any:
        length = frame.dim(nest.extents[last])
        return t.seq(
            t.loop(length, fill, "at"),
            _loops(frame, nest, sorted(nest.reduced), axes, lambda: t.loop(length, add, "at")),
        )

    return _loops(frame, nest, kept, axes, row)
