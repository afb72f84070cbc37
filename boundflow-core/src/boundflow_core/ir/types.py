"""Types of tensors: element types, symbolic dimensions, shapes, and the immutable attributes of an operation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np

from boundflow_core.errors import IRError

__all__ = [
    "Attrs",
    "DType",
    "Dim",
    "Shape",
    "SymDim",
    "TensorType",
    "concrete_dim",
    "concrete_shape",
    "divide",
    "format_shape",
    "size",
]


class DType(str, Enum):
    """Element type of a tensor."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    INT64 = "int64"
    BOOL = "bool"

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.value)

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        return self in (DType.FLOAT32, DType.FLOAT64)

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class SymDim:
    """A dimension known only when a program runs: ``coefficient`` times the product of ``symbols``.

    ``SymDim(1, ("B",))`` is the batch of regions, ``SymDim(2, ("B", "S"))`` twice batch times specification rows.
    Monomials are all that flattening, stacking and splitting need.
    """

    coefficient: int
    symbols: tuple[str, ...]

    @staticmethod
    def of(name: str) -> SymDim:
        return SymDim(1, (name,))

    def __mul__(self, other: Dim) -> SymDim:
        if isinstance(other, int):
            return SymDim(self.coefficient * other, self.symbols)
        return SymDim(self.coefficient * other.coefficient, tuple(sorted(self.symbols + other.symbols)))

    __rmul__ = __mul__

    def __add__(self, other: Dim) -> SymDim:
        if isinstance(other, SymDim) and other.symbols == self.symbols:
            return SymDim(self.coefficient + other.coefficient, self.symbols)
        raise IRError(f"dimensions {self} and {other} have no common symbol to add")

    __radd__ = __add__

    def __str__(self) -> str:
        factors = [str(self.coefficient)] if self.coefficient != 1 else []
        return "*".join([*factors, *self.symbols])


Dim = int | SymDim
Shape = tuple[Dim, ...]


def size(shape: Iterable[Dim]) -> Dim:
    """Number of elements of ``shape``."""
    total: Dim = 1
    for dim in shape:
        total = total * dim
    return total


def divide(total: Dim, part: Dim) -> Dim:
    """``total / part`` where that is exact.

    Raises:
        IRError: the quotient is no whole dimension.
    """
    if isinstance(total, int) and isinstance(part, int):
        if part and total % part == 0:
            return total // part
        raise IRError(f"dimension {total} is not a multiple of {part}")
    top = SymDim(total, ()) if isinstance(total, int) else total
    bottom = SymDim(part, ()) if isinstance(part, int) else part
    symbols = list(top.symbols)
    for symbol in bottom.symbols:
        if symbol not in symbols:
            raise IRError(f"dimension {total} is not a multiple of {part}")
        symbols.remove(symbol)
    coefficient = divide(top.coefficient, bottom.coefficient)
    assert isinstance(coefficient, int)
    return SymDim(coefficient, tuple(symbols)) if symbols else coefficient


def concrete_dim(dim: Dim, env: Mapping[str, int]) -> int:
    """Value of ``dim`` where ``env`` gives each symbol its value."""
    if isinstance(dim, int):
        return dim
    found = dim.coefficient
    for symbol in dim.symbols:
        found *= env[symbol]
    return found


def concrete_shape(shape: Iterable[Dim], env: Mapping[str, int]) -> tuple[int, ...]:
    return tuple([dim if isinstance(dim, int) else concrete_dim(dim, env) for dim in shape])


def format_shape(shape: Iterable[Dim]) -> str:
    return "[" + ", ".join(str(dim) for dim in shape) + "]"


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of a tensor."""

    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}{format_shape(self.shape)}"


class Attrs(Mapping[str, Any]):
    """Immutable, hashable attributes of an operation; lists become tuples.

    Equal only where every value is of equal type and bits: 1, 1.0 and True differ, and so do 0.0 and -0.0, because
    operations of equal attributes are merged.

    Raises:
        IRError: a value is NaN, which compares with nothing and would switch off whatever it limits.
    """

    __slots__ = ("_hash", "_items", "_key")

    def __init__(self, items: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        merged = {**(items or {}), **more}
        self._items = {key: _freeze(merged[key]) for key in sorted(merged)}
        self._key = tuple((key, _identity(value)) for key, value in self._items.items())
        self._hash: int | None = None

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self._key)
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attrs) and self._key == other._key

    def replace(self, **changes: Any) -> Attrs:
        return Attrs(self._items, **changes)

    def __repr__(self) -> str:
        return f"Attrs({self})"

    def __str__(self) -> str:
        return ", ".join(f"{key}={_format(value)}" for key, value in self._items.items())


_PLAIN = frozenset({int, str, bool})


def _freeze(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        raise IRError("an attribute is NaN")
    return value


def _identity(value: Any) -> Any:
    """What tells ``value`` from all others, where == does not."""
    if type(value) is int or type(value) is str:
        return value  # what any other kind of value gives is a pair, or a tuple of these
    if isinstance(value, tuple):
        return tuple(_identity(item) for item in value)
    return type(value), value.hex() if isinstance(value, float) else value


def _format(value: Any) -> str:
    if isinstance(value, tuple):
        return format_shape(value) if all(isinstance(v, (int, SymDim)) for v in value) else str(value)
    return str(value)
