"""What must hold of the bounds of one case. Needs NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.extension import Domain, Executor, Method
from boundflow_core.ir.types import DType
from boundflow_core.testing.case import OpCase, as_code
from boundflow_core.testing.gradients import derivative_gap, derivatives_of, undefined_gradient
from boundflow_core.testing.laws import Gaps
from boundflow_core.testing.points import balls, magnitudes, sample, search, tolerance_of
from boundflow_core.testing.subject import Subject, make_subject

__all__ = ["LAWS", "Expectations", "check_case", "check_laws"]

Array = NDArray[Any]
Bounds = tuple[Array, Array]

LAWS: Mapping[str, str] = {
    "order": "no lower bound exceeds its upper bound",
    "finite": "bounds are finite where the operator's range is bounded",
    "sound": "the network's values at points of the region lie within the bounds",
    "batch": "the bounds of a region do not depend on the others of its batch",
    "monotone": "a region within another has bounds within the other's",
    "points": "the bounds of a single point are its image",
    "rows": "the values of specification rows at points of the region lie within the rows' bounds",
    "balls": "the network's values at points of balls of the norms 1 and 2 lie within their bounds",
    "deterministic": "the same call gives the same bounds, bit for bit",
    "executors": "every executor gives the bounds of the reference interpreter",
    "derivative": "the gradient of the bounds is their difference quotient, and a number at points and kinks, too",
}
"""What is checked, by the names that ``expected_failures`` uses."""


@dataclass(frozen=True)
class Expectations:
    """What a method promises besides soundness.

    Attributes:
        monotone: a region within another has bounds within the other's (not so where a heuristic picks relaxations).
        exact_at_points: the bounds of a single point are its image.
        finite: bounds are finite where the operator's range is bounded.
        differentiable: gradients of the bounds are derivatives (checked of methods of one program).
    """

    monotone: bool = True
    exact_at_points: bool = True
    finite: bool = True
    differentiable: bool = True


def check_case(
    case: OpCase,
    method: str | Method,
    domains: Iterable[Domain] | None = None,
    *,
    executor: str | Executor | None = None,
    dtype: str | DType = "float64",
    expect: Expectations = Expectations(),
    options: Mapping[str, Any] | None = None,
) -> None:
    """Checks all laws on one case; arguments as of :func:`boundflow_core.testing.check_op_rule`.

    Raises:
        ConformanceError: says what does not hold, where, and how to build the case.
    """
    subject = make_subject(method, domains, executor=executor, dtype=dtype, options=options)
    check_laws(case, subject, expect, Gaps(case.op))


def check_laws(case: OpCase, subject: Subject, expect: Expectations, gaps: Gaps) -> None:
    """Checks all laws on one case, letting known gaps pass."""
    trial = _Trial(case, subject, expect, gaps)
    trial.check_runs()
    trial.check_region()
    trial.check_batch()
    if expect.monotone:
        trial.check_monotone()
    trial.check_points()
    trial.check_rows()
    if subject.executor is None and case.rows.shape[0] == 1:  # in the others a region's rows alone
        trial.check_ball()
    if expect.differentiable and subject.interpreted and subject.dtype is DType.FLOAT64:
        trial.check_derivative()


@dataclass(frozen=True)
class _Trial:
    """A case under one subject, with what several laws need."""

    case: OpCase
    subject: Subject
    expect: Expectations
    gaps: Gaps

    @cached_property
    def _run(self) -> Callable[[Mapping[str, Array]], Mapping[str, Any]]:
        return self.subject.compiled(self.case.graph, None)

    def bounds(self, lower: Array, upper: Array) -> Bounds:
        return self.subject.run(self._run, {"lower": lower, "upper": upper})

    @cached_property
    def box(self) -> Bounds:
        return self.bounds(self.case.lower, self.case.upper)

    @cached_property
    def points(self) -> Array:
        return sample(self.case)

    @cached_property
    def outputs(self) -> Array:
        return self.case.outputs(self.points)

    @cached_property
    def largest(self) -> tuple[float, float]:
        return magnitudes(self.case, self.points)

    @cached_property
    def rounding(self) -> float:
        """How far values may lie beyond bounds."""
        return tolerance_of(self.subject.dtype, self.largest)

    @cached_property
    def tolerance(self) -> float:
        """How far bounds may lie apart that should be the same."""
        return tolerance_of(self.subject.dtype, self.largest, *self.box)

    def bounded(self, bounds: Bounds, what: str) -> None:
        """Bounds are finite where they should be."""
        if self.expect.finite and self.case.finite and (self.exact or self.largest[0] < 1e6):  # float32 may overflow
            self.that("finite", np.isfinite(bounds[0]) & np.isfinite(bounds[1]), f"{what} are not finite", bounds)

    @property
    def exact(self) -> bool:
        """Whether nothing overflows that should not."""
        return self.subject.dtype is DType.FLOAT64

    # -- laws ---------------------------------------------------------------------------------------------------------

    def check_region(self) -> None:
        case, box = self.case, self.box
        self.order(box, "bounds")
        self.bounded(box, "bounds")
        self.contains("sound", box, self.outputs, "a point of the region")
        found = case.outputs(search(case, self.points, self.outputs, box))
        self.contains("sound", box, found, "a point found by search")

    def check_batch(self) -> None:
        case = self.case
        alone = [self.bounds(case.lower[i : i + 1], case.upper[i : i + 1]) for i in range(len(case.lower))]
        stacked = np.concatenate([b[0] for b in alone]), np.concatenate([b[1] for b in alone])
        self.equal("batch", self.box, stacked, "bounds of a region alone differ from those in a batch")

    def check_monotone(self) -> None:
        inner = self.bounds(self.case.inner_lower, self.case.inner_upper)
        self.order(inner, "bounds of a smaller region")
        self.within("monotone", inner, self.box, "a smaller region has wider bounds")

    def check_points(self) -> None:
        for number in (0, self.points.shape[1] // 2):
            image = self.outputs[:, number]
            point = self.bounds(self.points[:, number], self.points[:, number])
            self.order(point, "bounds of a point")
            self.contains("sound", point, image[:, None], "the point itself")
            if self.expect.exact_at_points:
                settled = np.isfinite(image)
                exact = tuple(np.where(settled, image, bound) for bound in point)
                self.equal("points", point, (exact[0], exact[1]), "bounds of a point are not its image")

    def check_rows(self) -> None:
        case = self.case
        run = self.subject.compiled(case.graph, "shared" if case.rows.shape[0] == 1 else "per region")

        def on_rows(regions: slice) -> Bounds:
            inputs = {"lower": case.lower, "upper": case.upper, "C": case.rows, "offset": case.offset}
            return self.subject.run(run, {name: array[regions] for name, array in inputs.items()})

        if not np.isfinite(self.outputs).all():
            return
        together = on_rows(slice(None))
        more = max(1.0, float(np.abs(case.rows).sum(axis=2).max()))
        self.order(together, "bounds of specification rows", self.tolerance * more)
        self.bounded(together, "bounds of specification rows")
        values = case.on_rows(self.outputs)
        self.contains("rows", together, values, "specification rows at a point of the region", self.rounding * more)
        if self.subject.executor is None and case.rows.shape[0] > 1:  # in the others a ball is looked at
            one = together[0][:1], together[1][:1]
            what = "bounds of a region's rows alone differ from those in a batch"
            self.equal("batch", one, on_rows(slice(1)), what, more)

    def check_ball(self) -> None:
        """Of the norm 1 where there is one specification row, of the norm 2 where there are two."""
        case, norm = self.case, float(self.case.rows.shape[1])
        inputs, points = balls(case, norm)
        run = self.subject.compiled(case.graph, None, norm)
        bounds = self.subject.run(run, inputs)
        self.order(bounds, f"bounds of a ball of norm {norm:g}")
        self.contains("balls", bounds, case.outputs(points), f"a point of a ball of norm {norm:g}")

    def check_runs(self) -> None:
        again = self.bounds(self.case.lower, self.case.upper)
        same = [np.array_equal(a, b, equal_nan=True) for a, b in zip(self.box, again, strict=True)]
        self.that("deterministic", np.array([same]), "the same call gives other bounds", (np.array([same]),))
        if self.subject.executor is None:
            return
        interpreted = replace(self.subject, executor=None)
        want = interpreted.run(
            interpreted.compiled(self.case.graph, None), {"lower": self.case.lower, "upper": self.case.upper}
        )
        what = f"bounds of the executor {self.subject.executor.name} differ from the reference's"
        self.equal("executors", self.box, want, what)

    def check_derivative(self) -> None:
        """Quotients away from the case's own region, whose ends lie on a grid, and so at kinks; numbers there, too."""
        derivatives = derivatives_of(self.subject.program(self.case.graph, None))
        gap = derivative_gap(derivatives, self.case.lower, self.case.upper)
        if gap is not None:
            self.fail("derivative", f"{gap[0]} (gradient, difference quotient)\n{gap[1]!r}, {gap[2]!r}")
        if unsettled := undefined_gradient(derivatives, self.case.lower, self.case.upper):
            self.fail("derivative", unsettled)

    # -- what laws say ------------------------------------------------------------------------------------------------

    def fail(self, law: str, what: str) -> None:
        case, subject = self.case, self.subject
        self.gaps.report(
            law,
            lambda: (
                f"{subject.method.name} on {case.op} ({subject.dtype}"
                f"{', ' + subject.executor.name if subject.executor else ''}), law {law!r}: {what}\n"
                f"{case.graph}\n\n{as_code(case, self._call())}"
            ),
        )

    def _call(self) -> str:
        promises = "" if self.expect == Expectations() else f", expect={self.expect!r}"
        return f"check_case(case, {self.subject.arguments()}{promises})"

    def that(self, law: str, holds: Array, what: str, shown: Sequence[Array], tolerance: float | None = None) -> None:
        if holds.all():
            return
        place = tuple(int(i) for i in np.argwhere(~holds)[0])
        values = ", ".join(repr(float(array[place])) for array in shown)
        let_pass = self.tolerance if tolerance is None else tolerance
        self.fail(law, f"{what}\nat {place} of [region, output]: {values} (tolerance {let_pass:.3g})")

    def order(self, bounds: Bounds, what: str, tolerance: float | None = None) -> None:
        self.that("order", bounds[0] <= bounds[1], f"{what}: lower exceeds upper (lower, upper)", bounds, tolerance)

    def contains(self, law: str, bounds: Bounds, outputs: Array, what: str, tolerance: float | None = None) -> None:
        """``outputs`` [B, K, n] lie within the bounds; a NaN among them does not."""
        allowed = self.rounding if tolerance is None else tolerance
        lower, upper = self.claims(bounds)
        least, greatest = outputs.min(axis=1), outputs.max(axis=1)
        message = f"{what} lies %s (bound, output)"
        self.that(law, least >= lower - allowed, message % "below the lower bound", (lower, least), allowed)
        self.that(law, greatest <= upper + allowed, message % "above the upper bound", (upper, greatest), allowed)

    def within(self, law: str, inner: Bounds, outer: Bounds, what: str) -> None:
        (a, b), (lower, upper) = self.claims(inner), self.claims(outer)
        message = f"{what} (smaller's, larger's)"
        self.that(law, a >= lower - self.tolerance, message, (a, lower))
        self.that(law, b <= upper + self.tolerance, message, (b, upper))

    def equal(self, law: str, one: Bounds, other: Bounds, what: str, more: float = 1.0) -> None:
        """The same but for ``more`` times the tolerance."""
        for a, b in zip(one, other, strict=True):
            with np.errstate(invalid="ignore"):
                close = (np.abs(a - b) <= more * self.tolerance) | (a == b)
            if not self.exact:  # overflow, in one of two orders of summing
                close |= ~np.isfinite(a) | ~np.isfinite(b)
            self.that(law, close, f"{what} (one, other)", (a, b))

    def claims(self, bounds: Bounds) -> Bounds:
        """A bound that overflowed in float32 claims nothing."""
        if self.exact:
            return bounds
        lower, upper = bounds
        return np.where(np.isfinite(lower), lower, -np.inf), np.where(np.isfinite(upper), upper, np.inf)
