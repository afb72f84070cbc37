"""Conjunctions and disjunctions of constraints while a VNN-LIB file is read, and the cases they amount to.

A formula is kept as a disjunction of *cubes*. A cube is a conjunction: bounds on some inputs and rows on the outputs,
both in compact form, because a file may hold tens of thousands of them. An ``and`` that is being read is a
:class:`Conj`; the ``or`` formulas inside it wait as lists of cubes and are multiplied out only when it ends. At the top
level they are not multiplied out if one is on inputs and the other on outputs: the cases then share one disjunction of
outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from boundflow_core.property import Case, LinearConstraints

__all__ = ["MAX_DISJUNCTS", "MAX_NUMBERS", "Conj", "Cube", "Interned", "Terms", "TooLarge", "Unbounded", "cases"]

MAX_DISJUNCTS = 1_000_000
MAX_NUMBERS = 1 << 28  # 2 GiB of float64

Terms: TypeAlias = tuple[tuple[int, float], ...]
"""The variable part of an output row: (output, coefficient), ascending. One object per distinct value (interned)."""

Rows: TypeAlias = tuple[tuple[Terms, float], ...]
"""Output rows: terms + constant <= 0."""

FloatArray = npt.NDArray[np.float64]


class Bounds(NamedTuple):
    """Bounds on some inputs: int64 indices and float64 values, as bytes (compact, and usable as a key)."""

    lower_at: bytes
    lower: bytes
    upper_at: bytes
    upper: bytes


class Cube(NamedTuple):
    bounds: Bounds
    rows: Rows


NO_BOUNDS = Bounds(b"", b"", b"", b"")


class TooLarge(Exception):
    """Multiplying out would exceed MAX_DISJUNCTS or MAX_NUMBERS."""


@dataclass(frozen=True, slots=True)
class Interned:
    """One object per distinct value: disjuncts that restate a box, or compare the same outputs, share theirs."""

    terms: dict[Terms, Terms] = field(default_factory=dict)
    indices: dict[bytes, bytes] = field(default_factory=dict)


class Conj:
    """A conjunction that is being read: the tightest bounds so far, output rows, and the disjunctions inside."""

    __slots__ = ("alternatives", "interned", "lower", "rows", "upper")

    def __init__(self, interned: Interned) -> None:
        self.interned = interned
        self.lower: dict[int, float] = {}
        self.upper: dict[int, float] = {}
        self.rows: list[tuple[Terms, float]] = []
        self.alternatives: list[list[Cube]] = []

    def add_upper(self, i: int, value: float) -> None:
        if value < self.upper.get(i, np.inf):
            self.upper[i] = value

    def add_lower(self, i: int, value: float) -> None:
        if value > self.lower.get(i, -np.inf):
            self.lower[i] = value

    def add_row(self, terms: Terms, constant: float) -> None:
        """Terms + constant <= 0."""
        self.rows.append((self.interned.terms.setdefault(terms, terms), constant))

    def add_cubes(self, cubes: list[Cube]) -> None:
        """And one of these."""
        if len(cubes) != 1:
            self.alternatives.append(cubes)
            return
        self._tighten(cubes[0].bounds)
        self.rows.extend(cubes[0].rows)

    def cubes(self) -> list[Cube]:
        """Multiplied out, in file order, without the cubes whose bounds contradict each other.

        Raises:
            TooLarge: more than MAX_DISJUNCTS.
        """
        cube = self.cube()
        product = [] if cube is None else [cube]
        for alternative in self.alternatives:
            product = _multiply(product, alternative, self.interned)
        return product

    def cube(self) -> Cube | None:
        """The bounds and rows without the alternatives; None if the bounds contradict each other."""
        lower, upper = self.lower, self.upper
        for i, value in lower.items():
            if value > upper.get(i, np.inf):
                return None
        bounds = Bounds(*self._pack(lower), *self._pack(upper)) if lower or upper else NO_BOUNDS
        return Cube(bounds, tuple(self.rows))

    def _tighten(self, bounds: Bounds) -> None:
        for i, value in zip(_indices(bounds.lower_at), _values(bounds.lower), strict=True):
            self.add_lower(int(i), float(value))
        for i, value in zip(_indices(bounds.upper_at), _values(bounds.upper), strict=True):
            self.add_upper(int(i), float(value))

    def _pack(self, bounds: dict[int, float]) -> tuple[bytes, bytes]:
        at = np.fromiter(bounds.keys(), np.int64, len(bounds)).tobytes()
        return self.interned.indices.setdefault(at, at), np.fromiter(bounds.values(), np.float64, len(bounds)).tobytes()


def cases(top: Conj, n_in: int, n_out: int) -> list[Case]:
    """The cases of a whole file, whose asserts are ``top``; none if no input satisfies the input constraints.

    Raises:
        TooLarge: more than MAX_DISJUNCTS, or arrays of more than MAX_NUMBERS numbers.
        Unbounded: an input without a bound, in a box that is not empty.
    """
    boxes = [Cube(NO_BOUNDS, ())]
    outputs = [Cube(NO_BOUNDS, tuple(top.rows))]
    for alternative in top.alternatives:
        if alternative and all(cube.bounds is NO_BOUNDS for cube in alternative):
            outputs = _multiply(outputs, alternative, top.interned)
        else:
            boxes = _multiply(boxes, alternative, top.interned)

    if len(outputs) > 1 and len(outputs) * sum(bool(box.rows) for box in boxes) > MAX_DISJUNCTS:
        raise TooLarge
    constraints = _ConstraintTable(n_out)
    shared = tuple(constraints.get(output.rows) for output in outputs)
    unsafe_of: dict[Bounds, list[tuple[LinearConstraints, ...]]] = {}
    for bounds, rows in boxes:
        unsafe = tuple(constraints.get(output.rows + rows) for output in outputs) if rows else shared
        parts = unsafe_of.setdefault(bounds, [])
        if not (parts and unsafe is shared and any(part is shared for part in parts)):
            parts.append(unsafe)

    if len(unsafe_of) * n_in * 2 > MAX_NUMBERS:
        raise TooLarge
    base_lower, base_upper = _box(top, n_in)
    found = []
    for bounds, parts in unsafe_of.items():
        lower, upper = base_lower.copy(), base_upper.copy()
        at = _indices(bounds.lower_at)
        lower[at] = np.maximum(lower[at], _values(bounds.lower))
        at = _indices(bounds.upper_at)
        upper[at] = np.minimum(upper[at], _values(bounds.upper))
        if (lower > upper).any():
            continue
        _check_bounded(lower, upper)
        lower.flags.writeable = upper.flags.writeable = False
        found.append(Case(lower, upper, parts[0] if len(parts) == 1 else tuple(c for part in parts for c in part)))
    return found


class Unbounded(Exception):
    """Input ``index`` lacks its bound ``side`` (lower or upper)."""

    def __init__(self, index: int, side: str) -> None:
        self.index, self.side = index, side
        super().__init__(f"input {index} has no {side} bound")


class _ConstraintTable:
    """Dense constraints of output rows; conjunctions with the same variable parts share one C."""

    def __init__(self, n_out: int) -> None:
        self.n_out, self.numbers = n_out, 0
        self.matrices: dict[tuple[Terms, ...], FloatArray] = {}

    def get(self, rows: Rows) -> LinearConstraints:
        key = tuple(terms for terms, _ in rows)
        C = self.matrices.get(key)
        if C is None:
            self.numbers += len(rows) * self.n_out
            if self.numbers > MAX_NUMBERS:
                raise TooLarge
            C = np.zeros((len(rows), self.n_out))
            for k, terms in enumerate(key):
                for i, coefficient in terms:
                    C[k, i] = coefficient
            C.flags.writeable = False
            self.matrices[key] = C
        d = np.array([constant for _, constant in rows], dtype=np.float64)
        d.flags.writeable = False
        return LinearConstraints(C, d)


def _multiply(left: list[Cube], right: list[Cube], interned: Interned) -> list[Cube]:
    if min(len(left), len(right)) > 1 and len(left) * len(right) > MAX_DISJUNCTS:
        raise TooLarge
    if left == [(NO_BOUNDS, ())]:
        return right
    numbers, product = 0, []
    for a in left:
        for b in right:
            if a.bounds is NO_BOUNDS or b.bounds is NO_BOUNDS:
                product.append(Cube(a.bounds if b.bounds is NO_BOUNDS else b.bounds, a.rows + b.rows))
                continue
            both = Conj(interned)
            both.add_cubes([a])
            both.add_cubes([b])
            cube = both.cube()
            if cube is not None:
                product.append(cube)
                numbers += len(both.lower) + len(both.upper)
                if numbers > MAX_NUMBERS:
                    raise TooLarge
    return product


def _box(top: Conj, n_in: int) -> tuple[FloatArray, FloatArray]:
    lower, upper = np.full(n_in, -np.inf), np.full(n_in, np.inf)
    lower[list(top.lower)] = list(top.lower.values())
    upper[list(top.upper)] = list(top.upper.values())
    return lower, upper


def _check_bounded(lower: FloatArray, upper: FloatArray) -> None:
    for values, side in ((lower, "lower"), (upper, "upper")):
        free = np.isinf(values)
        if free.any():
            raise Unbounded(int(np.argmax(free)), side)


def _indices(data: bytes) -> npt.NDArray[np.int64]:
    return np.frombuffer(data, np.int64)


def _values(data: bytes) -> FloatArray:
    return np.frombuffer(data, np.float64)
