"""Indices of loop nests: sums of loop variables times (symbolic) numbers, kept in a form that can be divided.

A reshape is a division of a linear address by the dimensions of its operand. Where that is exact by the extents of the
loops it leaves no division in the code; where a loop should be two loops for that, :class:`SplitAxis` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from boundflow_core.errors import IRError
from boundflow_core.ir.types import Dim, Shape, SymDim, divide
from boundflow_core.planner.views import row_major

__all__ = ["Axis", "Index", "Opaque", "Space", "SplitAxis", "constant", "flat_address", "reshaped"]


@dataclass(frozen=True)
class Axis:
    """A loop variable."""

    number: int


@dataclass(frozen=True)
class Opaque:
    """A number that is no sum: "div", "mod" (by ``dim``), "clamp" (to 0..dim-1) or "value" (an instruction)."""

    kind: str
    index: Index = field(default_factory=lambda: Index())
    dim: Dim = 1
    value: int = 0


Atom = Axis | Opaque | None  # None: the term is a number
Monomial = tuple[Atom, tuple[str, ...]]


@dataclass(frozen=True)
class Index:
    """A sum of terms ``coefficient * product of symbols * atom``."""

    terms: tuple[tuple[Monomial, int], ...] = ()
    table: Mapping[Monomial, int] = field(default_factory=dict, compare=False, hash=False, repr=False)

    @staticmethod
    def of(table: Mapping[Monomial, int]) -> Index:
        kept = {key: count for key, count in table.items() if count}
        return Index(tuple(sorted(kept.items(), key=lambda item: (repr(item[0]), item[1]))), kept)

    def __add__(self, other: Index) -> Index:
        table = dict(self.table)
        for key, count in other.table.items():
            table[key] = table.get(key, 0) + count
        return Index.of(table)

    def times(self, dim: Dim) -> Index:
        factor, symbols = (dim, ()) if isinstance(dim, int) else (dim.coefficient, dim.symbols)
        return Index.of({(a, tuple(sorted(s + symbols))): count * factor for (a, s), count in self.table.items()})

    def map_atoms(self, change: Callable[[Any], Index]) -> Index:
        """With each atom replaced by an index."""
        total = Index()
        for (atom, symbols), count in self.table.items():
            part = constant(1) if atom is None else change(atom)
            total = total + part.times(SymDim(count, symbols) if symbols else count)
        return total


def constant(dim: Dim) -> Index:
    if isinstance(dim, int):
        return Index.of({(None, ()): dim})
    return Index.of({(None, dim.symbols): dim.coefficient})


class SplitAxis(Exception):
    """A loop should be two loops: the outer one, and an inner one of ``inner`` steps."""

    def __init__(self, axis: Axis, inner: Dim) -> None:
        super().__init__(axis, inner)
        self.axis, self.inner = axis, inner


@dataclass(frozen=True)
class Space:
    """The extents of the loops."""

    extents: tuple[Dim, ...]

    def divmod(self, index: Index, dim: Dim) -> tuple[Index, Index]:
        """``index`` (never negative) by ``dim``: quotient and remainder."""
        if dim == 1:
            return index, Index()
        whole: dict[Monomial, int] = {}
        rest: dict[Monomial, int] = {}
        for (atom, symbols), count in index.table.items():
            quotient = _divided(count, symbols, dim)
            if quotient is None:
                rest[atom, symbols] = count
            else:
                factor, left = (quotient, ()) if isinstance(quotient, int) else (quotient.coefficient, quotient.symbols)
                whole[atom, left] = whole.get((atom, left), 0) + factor
        remainder = Index.of(rest)
        if not rest or self._below(remainder, dim):
            return Index.of(whole), remainder
        self._want_split(remainder, dim)
        return Index.of({(Opaque("div", index, dim), ()): 1}), Index.of({(Opaque("mod", index, dim), ()): 1})

    def _extent(self, atom: Atom) -> Dim | None:
        return self.extents[atom.number] if isinstance(atom, Axis) else None

    def _below(self, index: Index, dim: Dim) -> bool:
        """Whether ``index`` stays below ``dim``: terms that count on from each other, or plain numbers."""
        top = 0
        if isinstance(dim, int):
            for (atom, symbols), count in index.table.items():
                extent = 2 if atom is None else self._extent(atom)
                if symbols or not isinstance(extent, int) or count < 0:
                    break
                top += count * (extent - 1)
            else:
                return top < dim
        cover: Dim = 1
        left = dict(index.table)
        while left:
            found = next((k for k, count in left.items() if k[0] is not None and _dim(count, k[1]) == cover), None)
            extent = self._extent(found[0]) if found else None
            if found is None or extent is None:
                return False
            del left[found]
            cover = cover * extent
        return _at_most(cover, dim)

    def _want_split(self, index: Index, dim: Dim) -> None:
        for (atom, symbols), count in index.table.items():
            if not isinstance(atom, Axis):
                continue
            try:
                inner = divide(dim, _dim(count, symbols))
                divide(self.extents[atom.number], inner)
            except IRError:
                continue
            if inner not in (1, self.extents[atom.number]):
                raise SplitAxis(atom, inner)


def _dim(count: int, symbols: tuple[str, ...]) -> Dim:
    return SymDim(count, symbols) if symbols else count


def _divided(count: int, symbols: tuple[str, ...], dim: Dim) -> Dim | None:
    try:
        return divide(_dim(count, symbols), dim)
    except IRError:
        return None


def _at_most(part: Dim, dim: Dim) -> bool:
    if isinstance(part, int) and isinstance(dim, int):
        return part <= dim
    try:
        return divide(dim, part) != 0
    except IRError:
        return False


def flat_address(indices: Sequence[Index], shape: Shape) -> Index:
    """Address of an element in a row-major array."""
    total = Index()
    for index, stride in zip(indices, row_major(shape), strict=True):
        total = total + index.times(stride)
    return total


def reshaped(space: Space, indices: Sequence[Index], shape: Shape, source: Shape) -> list[Index]:
    """Indices into ``source`` of the element that is at ``indices`` of ``shape``."""
    left = flat_address(indices, shape)
    found: list[Index] = []
    for dim in reversed(source[1:]):
        left, index = space.divmod(left, dim)
        found.append(index)
    if source:
        found.append(left)
    return found[::-1]
