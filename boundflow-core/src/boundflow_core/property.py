"""What is to be decided about a network: input boxes, and which outputs count as unsafe on each.

The unsafe set is written the way VNN-LIB and the VNN competition write it: a *counterexample* is an input of some box
whose output satisfies every row ``C y + d <= 0`` of one of that box's conjunctions. A property holds when there is
none.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
import numpy.typing as npt

from boundflow_core.errors import InputError, PropertyError

__all__ = ["Case", "LinearConstraints", "Property"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LinearConstraints:
    """A conjunction of linear constraints on the output: all rows ``C y + d <= 0``.

    Without rows (K = 0) it holds for every output.

    Args:
        C: [K, n_out] float64, copied unless it is read-only already (so equal matrices can be shared).
        d: [K] float64.

    Raises:
        PropertyError: shapes that do not fit, or a value that is not finite.
    """

    C: FloatArray
    d: FloatArray

    def __post_init__(self) -> None:
        C, d = _read_only(self.C, 2, "C"), _read_only(self.d, 1, "d")
        if C.shape[0] != d.shape[0]:
            raise PropertyError(f"C has {C.shape[0]} rows, but d has {d.shape[0]} entries")
        object.__setattr__(self, "C", C)
        object.__setattr__(self, "d", d)

    def holds(self, y: FloatArray, tolerance: float = 0.0) -> bool:
        """Whether ``C y + d <= tolerance`` in every row, for one output ``y`` [n_out] float64."""
        return bool(np.all(self.C @ y + self.d <= tolerance))


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One input box, and the outputs that are unsafe on it.

    Args:
        lower, upper: [n_in] float64, finite, lower <= upper; copied unless read-only already.
        unsafe: disjunction: an output is unsafe if one of these holds. Empty: none is. Cases may share the tuple.

    Raises:
        PropertyError: shapes that do not fit, a value that is not finite, or lower > upper (naming the input).
    """

    lower: FloatArray
    upper: FloatArray
    unsafe: tuple[LinearConstraints, ...]

    def __post_init__(self) -> None:
        lower, upper = _read_only(self.lower, 1, "lower"), _read_only(self.upper, 1, "upper")
        if lower.shape != upper.shape:
            raise PropertyError(f"lower has {lower.size} entries, but upper has {upper.size}")
        crossed = lower > upper
        if crossed.any():
            i = int(np.argmax(crossed))
            raise PropertyError(f"input {i}: lower {float(lower[i])!r} > upper {float(upper[i])!r}")
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)
        object.__setattr__(self, "unsafe", tuple(self.unsafe))


@dataclass(frozen=True, slots=True, eq=False)
class Property:
    """A property of a network: a counterexample exists iff some case has one.

    Cases with equal boxes are merged on construction (their disjunctions united, in order), so that the cases are the
    distinct regions.

    Args:
        n_in, n_out: numbers of (flattened) inputs and outputs, at least 1.
        cases: at least one.
        source: where it came from, for messages.

    Raises:
        PropertyError: no case, or sizes that do not fit ``n_in`` and ``n_out``.
    """

    n_in: int
    n_out: int
    cases: tuple[Case, ...]
    source: str

    def __post_init__(self) -> None:
        if self.n_in < 1 or self.n_out < 1:
            raise PropertyError(f"{self.source}: a property needs inputs and outputs, not {self.n_in} and {self.n_out}")
        if not self.cases:
            raise PropertyError(f"{self.source}: a property needs at least one case")
        for case in self.cases:
            if case.lower.size != self.n_in:
                raise PropertyError(f"{self.source}: a box has {case.lower.size} inputs instead of {self.n_in}")
        # By identity: many cases may share one long disjunction.
        for unsafe in {id(case.unsafe): case.unsafe for case in self.cases}.values():
            for constraints in unsafe:
                if constraints.C.shape[1] != self.n_out:
                    raise PropertyError(
                        f"{self.source}: C has {constraints.C.shape[1]} columns instead of {self.n_out} (outputs)"
                    )
        object.__setattr__(self, "cases", _merge_equal_boxes(self.cases))

    def boxes(self) -> tuple[FloatArray, FloatArray]:
        """The input boxes, one region per case: ``(lower, upper)``, both [B, n_in] float64 and read-only."""
        lower = np.stack([case.lower for case in self.cases])
        upper = np.stack([case.upper for case in self.cases])
        lower.flags.writeable = upper.flags.writeable = False
        return lower, upper

    def is_counterexample(self, x: npt.ArrayLike, y: npt.ArrayLike, tolerance: float = 0.0) -> bool:
        """Whether the input ``x`` with the network's output ``y`` shows that the property does not hold.

        Args:
            x, y: n_in and n_out numbers, in any shape. A value that is not finite is never a counterexample.
            tolerance: how far ``x`` may lie outside its box, and each ``C y + d`` above 0 (absolute).

        Raises:
            InputError: another number of values, or a tolerance that is negative or not finite.
        """
        if not (isfinite(tolerance) and tolerance >= 0):
            raise InputError(f"tolerance must be finite and not negative, not {tolerance!r}")
        point = np.asarray(x, dtype=np.float64).reshape(-1)
        output = np.asarray(y, dtype=np.float64).reshape(-1)
        if point.size != self.n_in or output.size != self.n_out:
            raise InputError(
                f"{self.source}: the property is on {self.n_in} inputs and {self.n_out} outputs, "
                f"not {point.size} and {output.size}"
            )
        if not (np.isfinite(point).all() and np.isfinite(output).all()):
            return False
        return any(
            bool(np.all(point >= case.lower - tolerance) and np.all(point <= case.upper + tolerance))
            and any(constraints.holds(output, tolerance) for constraints in case.unsafe)
            for case in self.cases
        )

    def summary(self) -> str:
        """One line: source, sizes, number of boxes and of unsafe conjunctions."""
        disjuncts = sum(len(case.unsafe) for case in self.cases)
        boxes = "1 box" if len(self.cases) == 1 else f"{len(self.cases)} boxes"
        unsafe = "1 unsafe conjunction" if disjuncts == 1 else f"{disjuncts} unsafe conjunctions"
        return f"{self.source}: {self.n_in} inputs, {self.n_out} outputs, {boxes}, {unsafe}"


def _read_only(value: npt.ArrayLike, ndim: int, name: str) -> FloatArray:
    """``value`` as a finite read-only float64 array of ``ndim`` dimensions; shared if it cannot change any more."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PropertyError(f"{name} is not an array of numbers: {error}") from None
    if array.ndim != ndim:
        raise PropertyError(f"{name} must have {ndim} dimension(s), not shape {array.shape}")
    if not np.isfinite(array).all():
        raise PropertyError(f"{name} has a value that is not finite")
    if array.flags.writeable or not (array.base is None or _immutable(array.base)):
        array = array.copy()
        array.flags.writeable = False
    return array


def _immutable(base: object) -> bool:
    return isinstance(base, bytes) or (isinstance(base, np.ndarray) and not base.flags.writeable)


def _merge_equal_boxes(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """Unite the disjunctions of cases with equal boxes, each at the place of its first."""
    groups: dict[tuple[bytes, bytes], list[Case]] = {}
    for case in cases:
        # + 0.0 makes -0.0 and 0.0 one key.
        groups.setdefault(((case.lower + 0.0).tobytes(), (case.upper + 0.0).tobytes()), []).append(case)
    return tuple(group[0] if len(group) == 1 else _united(group) for group in groups.values())


def _united(group: list[Case]) -> Case:
    # A disjunction that several of them share counts once: with many of both the union would grow with their product.
    parts = {id(case.unsafe): case.unsafe for case in group}.values()
    return Case(group[0].lower, group[0].upper, tuple(constraints for part in parts for constraints in part))
