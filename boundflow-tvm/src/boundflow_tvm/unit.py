"""What is compiled together: the runs of kernels between two library calls, each a function of one object file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from boundflow_core.errors import IRError
from boundflow_core.ir.types import Dim, Shape, SymDim, divide, size
from boundflow_tvm.backend import Tir, compile_module, compile_template, joined, processor, tir, versions
from boundflow_tvm.kernels import Generated
from boundflow_tvm.templates import Kernel

__all__ = ["CODE_VERSION", "COPIES", "ENTRY", "Launch", "Unit"]

CODE_VERSION = 6
"""Part of every key: to be raised when the generator writes other code for the same operation."""

ENTRY = "run"
"""The one function of an object file that is called from outside, since the checks of each take time to compile.

It takes two integer vectors, addresses and sizes, and what is to be done: the number of a run, or :data:`COPIES`.
"""

COPIES = -1
"""Copies memory: addresses to, addresses from, and bytes, in turn, instead of the addresses of operands."""


Kept = Callable[[str, Callable[[], bytes]], bytes]


def _ground() -> tuple[str, ...]:
    """What all compiled code depends on."""
    return f"code {CODE_VERSION}", versions(), processor()


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
    """Runs of two integer vectors: the addresses of the operands of all their kernels, and values of ``symbols``."""

    runs: tuple[tuple[Launch, ...], ...]
    symbols: tuple[str, ...]

    @property
    def key(self) -> str:
        """Text that equals only where the compiled code does."""
        lines = [*_ground(), " ".join(self.symbols)]
        for run in self.runs:
            lines.append("run")
            for launch in run:
                shapes = "; ".join(",".join(map(str, shape)) for shape in launch.shapes)
                lines.append(f"{launch.kernel.name}|{launch.kernel.key}|{launch.slots}|{shapes}")
        return "\n".join(lines)

    def compile(self, kept: Kept) -> bytes:
        """The code: an object file of generated code and of what calls it, and one for each template.

        Args:
            kept: ``kept(key, compile_code) -> code``, from where object files of templates are kept.
        """
        t = tir()
        made: dict[tuple[str, str], _Callee] = {}
        generated: dict[Any, Any] = {}
        objects: list[bytes] = []
        for launch in (launch for run in self.runs for launch in run):
            kernel = launch.kernel
            if (kernel.name, kernel.key) in made:
                continue
            if isinstance(kernel, Generated):
                callee = _Callee(t.name(f"kernel_{len(made)}"), kernel)
                generated[callee.name] = kernel.build()
            else:
                key = "\n".join([*_ground(), f"{kernel.name}|{kernel.key}"])
                symbol = "boundflow_" + hashlib.sha256(key.encode()).hexdigest()[:32]
                function, shapes, sizes = t.on_pointers(kernel.build())
                objects.append(kept(key, partial(compile_template, function, symbol)))
                callee = _Callee(symbol, kernel, tuple(_place(t, shapes, variable) for variable in sizes))
            made[kernel.name, kernel.key] = callee
        runs = {t.name(f"run_{number}"): self._run(t, run, made) for number, run in enumerate(self.runs)}
        return joined([compile_module({**generated, **runs}, {t.name(ENTRY): _entry(t, tuple(runs))}), *objects])

    def _run(self, t: Tir, run: Sequence[Launch], made: dict[tuple[str, str], _Callee]) -> Any:
        count = 1 + max((slot for launch in run for slot in launch.slots), default=0)
        addresses = t.buffer("addresses", t.int(count), "int64")
        numbers = t.buffer("numbers", t.int(max(1, len(self.symbols))), "int64")
        pointers = [t.pointer(buffer.name, "int64") for buffer in (addresses, numbers)]
        sizes = {symbol: t.var(f"size_{symbol}") for symbol in self.symbols}
        statements = [t.at(buffer, pointer) for buffer, pointer in zip((addresses, numbers), pointers, strict=True)]
        statements += [t.bind(var, t.load(numbers, t.int(i))) for i, var in enumerate(sizes.values())]

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
        return t.function(pointers, t.seq(*statements))


def _entry(t: Tir, runs: Sequence[Any]) -> Any:
    length, wanted = t.var("length"), t.var("wanted")
    addresses, numbers = t.buffer("addresses", length, "int64"), t.buffer("numbers", t.var("sizes"), "int64")

    def copy(i: Any) -> Any:
        to, source, count = (t.load(addresses, i * t.int(3) + t.int(part)) for part in range(3))
        return t.copy_memory(t.handle(to), t.handle(source), count)

    chosen = t.when(t.same(wanted, t.int(COPIES)), t.loop(t.t.floordiv(length, t.int(3)), copy))
    for number, run in enumerate(runs):
        chosen = t.when(t.same(wanted, t.int(number)), t.invoke(run, [addresses.data, numbers.data]), chosen)
    return t.function([addresses, numbers, wanted], chosen)


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
    """A kernel as it is called, with pointers and then sizes.

    Attributes:
        name: the function, or its symbol in another object file.
    """

    name: Any
    kernel: Kernel
    places: tuple[_Place, ...] = ()

    def sizes(self, launch: Launch) -> list[Dim]:
        if isinstance(self.kernel, Generated):
            return [SymDim.of(symbol) for symbol in self.kernel.symbols]
        return [place.find(launch) for place in self.places]


def _place(t: Tir, shapes: Sequence[Sequence[Any]], variable: Any) -> _Place:
    for operand, shape in enumerate(shapes):
        for axis, dim in enumerate(shape):
            if t.is_var(dim) and dim.same_as(variable):
                others = [other for place, other in enumerate(shape) if place != axis]
                known = 0 if any(not t.is_number(other) for other in others) else prod(int(o) for o in others)
                return _Place(operand, axis, len(shape), known)
    raise IRError(f"size {variable} of a kernel is no dimension of an operand")
