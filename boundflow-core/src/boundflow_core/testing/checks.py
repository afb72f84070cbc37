"""What must hold of the bounds of one case. Needs NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.forward import forward_values
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.testing.case import OpCase
from boundflow_core.testing.subject import Subject

__all__ = ["Expectations", "check_case"]

Array = NDArray[Any]
Bounds = tuple[Array, Array]

# Rounding that is let pass: this many units in the last place of the largest number in sight. Bounds are computed
# without directed rounding, and the networks of the kit sum fewer terms than this.
ULPS = 256


@dataclass(frozen=True)
class Expectations:
    """What a method promises besides soundness.

    Attributes:
        monotone: a region within another has bounds within the other's (not so where a heuristic picks relaxations).
        exact_at_points: the bounds of a single point are its image.
        finite: bounds are finite where the operator's range is bounded.
    """

    monotone: bool = True
    exact_at_points: bool = True
    finite: bool = True


def check_case(case: OpCase, subject: Subject, expect: Expectations = Expectations()) -> None:
    """Runs all checks on one case.

    Raises:
        AssertionError: says what does not hold, where, and how to build the case.
    """
    compiled = subject.compiled(case.graph, None)

    def bounds(lower: Array, upper: Array) -> Bounds:
        return subject.run(compiled, {"lower": lower, "upper": upper})

    box = bounds(case.lower, case.upper)
    points = sample(case)
    outputs = case.outputs(points)
    tolerance = tolerance_of(case, subject.dtype, points, box)
    check = _Check(case, subject, tolerance)

    check.order(box, "bounds")
    if expect.finite and case.finite and subject.dtype is DType.FLOAT64:
        check.that(np.isfinite(box[0]) & np.isfinite(box[1]), "bounds are not finite", box)
    check.contains(box, outputs, "a point of the region")
    check.contains(box, case.outputs(search(case, points, outputs, box)), "a point found by search")

    alone = [bounds(case.lower[i : i + 1], case.upper[i : i + 1]) for i in range(len(case.lower))]
    check.equal(box, _stack(alone), "bounds of a region alone differ from those in a batch")
    if expect.monotone:
        inner = bounds(case.inner_lower, case.inner_upper)
        check.order(inner, "bounds of a smaller region")
        check.within(inner, box, "a smaller region has wider bounds")
    for number in (0, points.shape[1] // 2):
        image = outputs[:, number]
        point = bounds(points[:, number], points[:, number])
        check.order(point, "bounds of a point")
        check.contains(point, image[:, None], "the point itself")
        if expect.exact_at_points:
            settled = np.isfinite(image)
            exact = tuple(np.where(settled, image, bound) for bound in point)
            check.equal(point, (exact[0], exact[1]), "bounds of a point are not its image")

    shared = case.rows.shape[0] == 1
    rows = {"lower": case.lower, "upper": case.upper, "C": case.rows, "offset": case.offset}
    on_rows = subject.run(subject.compiled(case.graph, "shared" if shared else "per region"), rows)
    if np.isfinite(outputs).all():
        widened = _Check(case, subject, tolerance * max(1.0, float(np.abs(case.rows).sum(axis=2).max())))
        widened.order(on_rows, "bounds of specification rows")
        widened.contains(on_rows, case.on_rows(outputs), "specification rows at a point of the region")


@dataclass(frozen=True)
class _Check:
    case: OpCase
    subject: Subject
    tolerance: float

    def that(self, holds: Array, what: str, shown: Sequence[Array]) -> None:
        if holds.all():
            return
        place = tuple(int(i) for i in np.argwhere(~holds)[0])
        values = ", ".join(repr(float(array[place])) for array in shown)
        raise AssertionError(
            f"{self.subject.method.name} on {self.case.op} ({self.subject.dtype}): {what}\n"
            f"at {place} of [region, output]: {values} (tolerance {self.tolerance:.3g})\n"
            f"{self.case.graph}\n\n{self.case!r}"
        )

    def order(self, bounds: Bounds, what: str) -> None:
        self.that(bounds[0] <= bounds[1], f"{what}: lower exceeds upper (lower, upper)", bounds)

    def contains(self, bounds: Bounds, outputs: Array, what: str) -> None:
        """``outputs`` [B, K, n] lie within the bounds; a NaN among them does not."""
        lower, upper = self.claims(bounds)
        least, greatest = outputs.min(axis=1), outputs.max(axis=1)
        message = f"{what} lies %s (bound, output)"
        self.that(least >= lower - self.tolerance, message % "below the lower bound", (lower, least))
        self.that(greatest <= upper + self.tolerance, message % "above the upper bound", (upper, greatest))

    def within(self, inner: Bounds, outer: Bounds, what: str) -> None:
        (a, b), (lower, upper) = self.claims(inner), self.claims(outer)
        message = f"{what} (smaller's, larger's)"
        self.that(a >= lower - self.tolerance, message, (a, lower))
        self.that(b <= upper + self.tolerance, message, (b, upper))

    def equal(self, one: Bounds, other: Bounds, what: str) -> None:
        for a, b in zip(one, other, strict=True):
            with np.errstate(invalid="ignore"):
                close = (np.abs(a - b) <= self.tolerance) | (a == b)
            if self.subject.dtype is not DType.FLOAT64:  # overflow, in one of two orders of summing
                close |= ~np.isfinite(a) | ~np.isfinite(b)
            self.that(close, f"{what} (one, other)", (a, b))

    def claims(self, bounds: Bounds) -> Bounds:
        """A bound that overflowed in float32 claims nothing."""
        if self.subject.dtype is DType.FLOAT64:
            return bounds
        lower, upper = bounds
        return np.where(np.isfinite(lower), lower, -np.inf), np.where(np.isfinite(upper), upper, np.inf)


def _stack(alone: Sequence[Bounds]) -> Bounds:
    return np.concatenate([b[0] for b in alone]), np.concatenate([b[1] for b in alone])


def sample(case: OpCase, count: int = 24) -> Array:
    """Points [B, K, *input] of the regions: the two extreme corners, random corners, random points and the middle."""
    rng = np.random.default_rng(case.lower.size + 1000 * len(case.lower))
    lower, upper = case.lower[:, None], case.upper[:, None]
    shape = (lower.shape[0], count, *lower.shape[2:])
    share = np.where(
        rng.random((shape[0], count, *[1] * (lower.ndim - 2))) < 0.5, rng.random(shape).round(), rng.random(shape)
    )
    share[:, 0], share[:, 1], share[:, 2] = 0.0, 1.0, 0.5
    return _clamped(lower + share * (upper - lower), lower, upper)


def _clamped(points: Array, lower: Array, upper: Array) -> Array:
    return np.minimum(np.maximum(points, lower), upper)


def search(case: OpCase, points: Array, outputs: Array, bounds: Bounds, rounds: int = 3) -> Array:
    """Points that a coordinate search, started at the best of ``points``, drives against the tightest looking bounds.

    For each side the output with the least distance from the points to its bound; each round tries for every coordinate
    (at most 16) both ends of its range and two steps, and keeps the best change of each region.
    """
    rng = np.random.default_rng(points.size)
    regions = np.arange(len(points))
    lower, upper = case.lower.reshape(len(regions), -1), case.upper.reshape(len(regions), -1)
    found = []
    for sign, bound in ((1.0, bounds[1]), (-1.0, bounds[0])):
        with np.errstate(invalid="ignore"):
            gap = (sign * (bound - sign * (sign * outputs).max(axis=1))).min(axis=0)
        target = int(np.argmin(np.where(np.isnan(gap), np.inf, gap)))
        best = (sign * outputs[:, :, target]).argmax(axis=1)
        current = points[regions, best].reshape(len(regions), -1)
        for _ in range(rounds):
            coordinates = rng.permutation(current.shape[1])[:16]
            step = 0.2 * rng.random((len(regions), len(coordinates))) * (upper - lower)[:, coordinates]
            tries = np.repeat(current[:, None], 4 * len(coordinates) + 1, axis=1)
            for i, axis in enumerate(coordinates):
                here = current[:, axis]
                tries[:, 4 * i, axis], tries[:, 4 * i + 1, axis] = lower[:, axis], upper[:, axis]
                tries[:, 4 * i + 2, axis], tries[:, 4 * i + 3, axis] = here - step[:, i], here + step[:, i]
            tries = _clamped(tries, lower[:, None], upper[:, None])
            values = sign * case.outputs(tries.reshape(*tries.shape[:2], *case.lower.shape[1:]))[:, :, target]
            current = tries[regions, values.argmax(axis=1)]
        found.append(current.reshape(len(regions), 1, *case.lower.shape[1:]))
    return np.concatenate(found, axis=1)


def tolerance_of(case: OpCase, dtype: DType, points: Array, bounds: Bounds) -> float:
    """Rounding to let pass: ULPS times the largest value on the way times the largest weight."""
    builder = Builder(DType.FLOAT64)
    x = builder.input("x", (SymDim.of("B"), *case.graph.input_type.shape))
    values = forward_values(builder, case.graph, x)
    seen = evaluate(builder.finish(dict(values)), {"x": points.reshape(-1, *points.shape[2:])})
    scale = max([1.0, *(_largest(array) for array in (*seen.values(), *bounds))])
    weights = [c.numpy() for c in case.graph.constants.values() if c.type.dtype.is_float]
    return ULPS * float(np.finfo(dtype.numpy).eps) * scale * max([1.0, *(_largest(array) for array in weights)])


def _largest(array: Array) -> float:
    magnitudes = np.abs(array[np.isfinite(array)])
    return float(magnitudes.max()) if magnitudes.size else 0.0
