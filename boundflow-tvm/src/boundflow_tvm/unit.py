"""What is compiled together: the runs of kernels between two library calls, each a function of one object file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from boundflow_core.errors import IRError
from boundflow_core.ir.types import Dim, Shape, SymDim, divide, size
from boundflow_tvm.backend import Tir, compile_module, processor, tir, versions
from boundflow_tvm.kernels import Generated
from boundflow_tvm.templates import Kernel

__all__ = ["CODE_VERSION", "COPIES", "Launch", "Unit"]

CODE_VERSION = 5
"""Part of every key: to be raised when the generator writes other code for the same operation."""

COPIES = "copies"
"""A function of each object file: copies memory, from a vector of addresses to, addresses from, and bytes, in turn."""


@dataclass(frozen=True)
class Launch:
    """A call of a kernel.

    Attributes:
        slots: for each of its operands the place in the table of addresses.
        shapes: of its operands, symbolic.
    """

    kernel: Kernel
    slots: tuple[int, ...]
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Unit:
    """Functions ``run_0``, ``run_1``... of two integer vectors: the addresses of the operands of all their kernels,
    and the values of ``symbols``.
    """

    runs: tuple[tuple[Launch, ...], ...]
    symbols: tuple[str, ...]

    @property
    def key(self) -> str:
        """Text that equals only where the compiled code does."""
        lines = [f"code {CODE_VERSION}", versions(), processor(), " ".join(self.symbols)]
        for run in self.runs:
            lines.append("run")
            for launch in run:
                shapes = "; ".join(",".join(map(str, shape)) for shape in launch.shapes)
                lines.append(f"{launch.kernel.name}|{launch.kernel.key}|{launch.slots}|{shapes}")
        return "\n".join(lines)

    def compile(self) -> bytes:
        """The object file."""
        t = tir()
        made: dict[tuple[str, str], _Callee] = {}
        generated: dict[Any, Any] = {}
        written: dict[Any, Any] = {}
        for launch in (launch for run in self.runs for launch in run):
            kernel = launch.kernel
            if (kernel.name, kernel.key) not in made:
                callee = made[kernel.name, kernel.key] = _callee(t, kernel, t.name(f"kernel_{len(made)}"))
                (generated if isinstance(kernel, Generated) else written)[callee.name] = callee.function
        public = {t.name(f"run_{number}"): self._run(t, run, made) for number, run in enumerate(self.runs)}
        public[t.name(COPIES)] = _copies(t)
        return compile_module(generated, written, public)

    def _run(self, t: Tir, run: Sequence[Launch], made: dict[tuple[str, str], _Callee]) -> Any:
        count = 1 + max((slot for launch in run for slot in launch.slots), default=0)
        addresses = t.buffer("addresses", t.int(count), "int64")
        numbers = t.buffer("numbers", t.int(max(1, len(self.symbols))), "int64")
        sizes = {symbol: t.var(f"size_{symbol}") for symbol in self.symbols}
        statements = [t.bind(var, t.load(numbers, t.int(i))) for i, var in enumerate(sizes.values())]

        def value(dim: Dim) -> Any:
            if isinstance(dim, int):
                return t.int(dim)
            total = t.int(dim.coefficient)
            for symbol in dim.symbols:
                total = total * sizes[symbol]
            return total

        for launch in run:
            callee = made[launch.kernel.name, launch.kernel.key]
            arguments = [t.handle(t.load(addresses, t.int(slot))) for slot in launch.slots]
            arguments += [value(dim) for dim in callee.sizes(launch)]
            statements.append(t.invoke(callee.name, arguments))
        return t.function([addresses, numbers], t.seq(*statements))


def _copies(t: Tir) -> Any:
    length = t.var("length")
    table = t.buffer("table", length, "int64")

    def one(i: Any) -> Any:
        to, source, count = (t.load(table, i * t.int(3) + t.int(part)) for part in range(3))
        return t.copy_memory(t.handle(to), t.handle(source), count)

    return t.function([table], t.loop(t.t.floordiv(length, t.int(3)), one))


@dataclass(frozen=True)
class _Place:
    """Where the value of a size is found: an axis of an operand, which the kernel sees with ``rank`` axes, all others
    of which have ``others`` elements (0: unknown).
    """

    operand: int
    axis: int
    rank: int
    others: int

    def find(self, launch: Launch) -> Dim:
        shape = launch.shapes[self.operand]
        if len(shape) == self.rank:
            return shape[self.axis]
        return divide(size(shape), self.others)


@dataclass(frozen=True)
class _Callee:
    """A kernel to be compiled: its function of pointers and then sizes."""

    name: Any
    function: Any
    kernel: Kernel
    places: tuple[_Place, ...] = ()

    def sizes(self, launch: Launch) -> list[Dim]:
        if isinstance(self.kernel, Generated):
            return [SymDim.of(symbol) for symbol in self.kernel.symbols]
        return [place.find(launch) for place in self.places]


def _callee(t: Tir, kernel: Kernel, name: Any) -> _Callee:
    function = kernel.build()
    if isinstance(kernel, Generated):
        return _Callee(name, function, kernel)
    private, shapes, sizes = t.on_pointers(function)
    return _Callee(name, private, kernel, tuple(_place(t, shapes, variable) for variable in sizes))


def _place(t: Tir, shapes: Sequence[Sequence[Any]], variable: Any) -> _Place:
    for operand, shape in enumerate(shapes):
        for axis, dim in enumerate(shape):
            if t.is_var(dim) and dim.same_as(variable):
                others = [other for place, other in enumerate(shape) if place != axis]
                known = 0 if any(not t.is_number(other) for other in others) else prod(int(o) for o in others)
                return _Place(operand, axis, len(shape), known)
    raise IRError(f"size {variable} of a kernel is no dimension of an operand")
