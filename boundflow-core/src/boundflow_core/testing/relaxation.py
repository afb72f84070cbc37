"""Relaxations of functions of one number: lines below and above a function on an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, DType, SymDim
from boundflow_core.testing.laws import Gaps, declared, drive

__all__ = ["RELAXATION_LAWS", "check_lines", "check_relaxation"]

Array = NDArray[np.float64]
Function = Callable[[Builder, Value], Value]
# lines(builder, lower, upper) -> lower slope, lower bias, upper slope, upper bias
Lines = Callable[[Builder, Value, Value], Sequence[Value | None]]

RELAXATION_LAWS: Mapping[str, str] = {
    "sound": "the function lies between the lines",
    "finite": "the lines are finite where the function is",
    "points": "the lines on a point go through it",
    "elementwise": "the lines of an interval do not depend on the others",
    "deterministic": "the same interval has the same lines",
    "nan": "bounds that are NaN give no finite line",
    "infinite": "lines on intervals with infinite ends hold",
    "hull": "the lines are at the middle at most so many times as far apart as the convex hull of the graph",
}
ROUNDING = {DType.FLOAT64: 1e-12, DType.FLOAT32: 4e-6}


def check_relaxation(
    function: str | Function,
    lines: Lines,
    *,
    kinks: Iterable[float] = (0.0,),
    within: tuple[float, float] = (-1e6, 1e6),
    exact_at_points: bool = True,
    hull: float | None = None,
    dtypes: Iterable[str | DType] = ("float64", "float32"),
    expected_failures: Mapping[str, str] | None = None,
    examples: int = 100,
    shrink: bool = True,
) -> None:
    """Checks lines below and above a function on drawn intervals: points, tiny and huge ones, ends at kinks.

    Args:
        function: ``function(builder, x) -> value``, or the name of an operator of one operand.
        lines: ``lines(builder, lower, upper) -> (lower slope, lower bias, upper slope, upper bias)`` for intervals [n],
            with ``lower slope x + lower bias <= f(x) <= upper slope x + upper bias``; a bias of None is zero.
        kinks: places of interest: kinks, inflections, poles.
        within: the places where the function is defined.
        exact_at_points: lines on points go through them.
        hull: how many times farther apart than the convex hull of the graph lines may be; None: as far as they like.
        expected_failures: known gaps with their reasons, by the names of :data:`RELAXATION_LAWS`.

    Raises:
        ConformanceError: what does not hold, with the smallest interval found as code to paste.
        ValueError: nothing would be checked, or a gap names no law.
    """
    name = function if isinstance(function, str) else "the function"
    known = {f"{name}:{law}": reason for law, reason in (expected_failures or {}).items()}
    gaps = declared(name, known, RELAXATION_LAWS)
    special, kinds = tuple(kinks), [DType(dtype) for dtype in dtypes]
    if not kinds or examples < 1:
        raise ValueError("nothing to check: no element types, or no examples")
    for number, dtype in enumerate(kinds):
        trial = _Trial(_as_function(function), lines, name, special, within, exact_at_points, hull, dtype, gaps)
        widest = 1e6 if dtype is DType.FLOAT64 else 1e3
        drive(
            lambda found, t=trial: t.check(found),  # type: ignore[misc]
            st.lists(_intervals(special, within, widest), min_size=1, max_size=3),
            examples if number == 0 else max(examples // 3, 3),
            shrink,
            gaps,
        )
        trial.check_odd_ends()
    gaps.expire()


def check_lines(
    function: str | Function,
    lines: Lines,
    intervals: Sequence[tuple[float, float]],
    dtype: str = "float64",
    **keywords: Any,
) -> None:
    """Checks lines on these intervals; keywords ``kinks``, ``within``, ``exact_at_points``, ``hull`` as above."""
    name = function if isinstance(function, str) else "the function"
    options = {"kinks": (0.0,), "within": (-1e6, 1e6), "exact_at_points": True, "hull": None, **keywords}
    trial = _Trial(
        _as_function(function), lines, name, tuple(options["kinks"]), options["within"], options["exact_at_points"],
        options["hull"], DType(dtype), Gaps(name),
    )  # fmt: skip
    trial.check(list(intervals))


def _as_function(function: str | Function) -> Function:
    if not isinstance(function, str):
        return function
    spec = PRIMAL_OPS[function]
    return lambda b, x: spec.emit(b, Attrs({}), 1, x)


@dataclass(frozen=True)
class _Trial:
    """A relaxation in one element type."""

    function: Function
    relaxation: Lines
    name: str
    kinks: tuple[float, ...]
    within: tuple[float, float]
    exact_at_points: bool
    hull: float | None
    dtype: DType
    gaps: Gaps

    def f(self, x: Array) -> Array:
        """The function in float64."""
        b = Builder(DType.FLOAT64)
        program = b.finish({"y": self.function(b, b.input("x", (SymDim.of("N"),)))})
        return np.asarray(evaluate(program, {"x": np.asarray(x, np.float64)})["y"])

    def lines(self, intervals: Sequence[tuple[float, float]]) -> Array:
        """Lower slope and bias, upper slope and bias of n intervals: [4, n]."""
        ends = np.array(intervals, dtype=np.float64).reshape(-1, 2)
        b = Builder(self.dtype)
        count = SymDim.of("N")
        lower, upper = b.input("lower", (count,)), b.input("upper", (count,))
        lines = [b.constant(0.0) if line is None else line for line in self.relaxation(b, lower, upper)]
        found = [b.broadcast(line, (count,)) if line.rank == 0 else line for line in lines]
        kind = self.dtype.numpy
        results = evaluate(
            b.finish({str(place): line for place, line in enumerate(found)}),
            {"lower": ends[:, 0].astype(kind), "upper": ends[:, 1].astype(kind)},
        )
        return np.stack([results[str(place)].astype(np.float64) for place in range(4)])

    def check(self, intervals: Sequence[tuple[float, float]]) -> None:
        if self.dtype is not DType.FLOAT64:
            intervals = [(float(np.float32(low)), float(np.float32(high))) for low, high in intervals]
        found = self.lines(intervals)
        if not np.array_equal(found, self.lines(intervals), equal_nan=True):
            self.fail("deterministic", intervals, "the second call gives other lines")
        for i, (lower, upper) in enumerate(intervals):
            one = self.lines([(lower, upper)])[:, 0]
            if not np.array_equal(one, found[:, i], equal_nan=True):
                self.fail("elementwise", intervals, f"interval {i} alone has the lines {one.tolist()}")
            self.check_interval(lower, upper, one)

    def check_interval(self, lower: float, upper: float, lines: Array) -> None:
        here = [(lower, upper)]
        x = self.places(lower, upper)
        y = self.f(x)
        shown = f"lines {lines.tolist()} on [{lower!r}, {upper!r}]"
        settled = np.isfinite(y).all() and np.abs(y).max() < 1e30  # beyond, float32 overflows
        if settled and not np.isfinite(lines).all():
            self.fail("finite", here, shown)
        for slope, bias, sign in ((lines[0], lines[1], 1.0), (lines[2], lines[3], -1.0)):
            over, place = self.excess(slope, bias, sign, lower, upper, x, y)
            if over > ROUNDING[self.dtype]:
                side = "below" if sign > 0 else "above"
                self.fail(
                    "sound",
                    here,
                    f"the function is not {'above' if sign > 0 else 'below'} the line {side} at {place!r}; {shown}",
                )
        if self.exact_at_points and lower == upper and settled:
            for slope, bias in (lines[:2], lines[2:]):
                scale = 1.0 + abs(y[0]) + abs(slope * lower)
                if not abs(slope * lower + bias - y[0]) <= 8 * ROUNDING[self.dtype] * scale:
                    self.fail("points", here, f"a line misses f = {y[0]!r}; {shown}")
        if self.hull is not None and self.dtype is DType.FLOAT64 and 1e-3 < upper - lower < 50 and np.isfinite(y).all():
            self.check_hull(lower, upper, lines)

    def excess(
        self, slope: float, bias: float, sign: float, lower: float, upper: float, x: Array, y: Array
    ) -> tuple[float, float]:
        """By how much a line crosses the function, relative to the largest number that enters, and where."""
        if np.isnan(slope) or np.isnan(bias) or sign * bias == -math.inf:
            return -math.inf, lower  # claims nothing
        with np.errstate(all="ignore"):
            # Slopes times places: that product is rounded, and so was it in the bias.
            scale = 1.0 + np.abs(y) + abs(bias) + np.abs(slope * x) + abs(slope) * max(abs(lower), abs(upper))
            over = sign * (slope * x + bias - y) / (scale if np.isfinite(bias) else 1.0)
        over = np.where(np.isfinite(y) & ~np.isnan(over), over, -np.inf)
        worst = int(np.argmax(over))
        return float(over[worst]), float(x[worst])

    def check_hull(self, lower: float, upper: float, lines: Array) -> None:
        x = np.unique(np.clip([*np.linspace(lower, upper, 2001), *self.kinks], lower, upper))
        y, middle = self.f(x), 0.5 * (lower + upper)
        if not np.isfinite(y).all():
            return
        ours = (lines[2] - lines[0]) * middle + lines[3] - lines[1]
        best = _hull_height(x, y, middle) + _hull_height(x, -y, middle)
        assert self.hull is not None
        if not ours <= self.hull * best + 1e-4 * (1.0 + best):
            self.fail("hull", [(lower, upper)], f"{ours!r} apart at the middle, the convex hull {best!r}")

    def check_odd_ends(self) -> None:
        """Ends that are NaN or infinite, on what is defined of [-1e8, 1e8]."""
        nan, inf = math.nan, math.inf
        for pair in ((nan, nan), (nan, 1.0), (1.0, nan)):
            lines = self.lines([pair])[:, 0]
            if any(np.isfinite(slope * 0.5 + bias) for slope, bias in (lines[:2], lines[2:])):
                self.fail("nan", [pair], f"lines {lines.tolist()}")
        low, high = self.within
        for pair in ((-inf, 2.0), (-2.0, inf), (-inf, inf), (1.0, inf), (-inf, -1.0)):
            lines = self.lines([pair])[:, 0]
            x = np.concatenate([np.linspace(-30, 30, 301), [-1e8, -1e4, 1e4, 1e8]])
            x = x[(x >= max(pair[0], low)) & (x <= min(pair[1], high))]
            if not len(x):
                continue
            for slope, bias, sign in ((lines[0], lines[1], 1.0), (lines[2], lines[3], -1.0)):
                over, place = self.excess(slope, bias, sign, float(x[0]), float(x[-1]), x, self.f(x))
                if over > 1e3 * ROUNDING[self.dtype]:
                    self.fail("infinite", [pair], f"a line is crossed at {place!r}; lines {lines.tolist()}")

    def places(self, lower: float, upper: float) -> Array:
        """A fine grid, the ends and their neighbours, kinks, and where the function leaves its chord farthest."""
        width = upper - lower
        grid = np.concatenate(
            [
                lower + width * np.linspace(0.0, 1.0, 257),
                lower + width * np.geomspace(1e-9, 1e-2, 20),
                upper - width * np.geomspace(1e-9, 1e-2, 20),
                np.nextafter([lower, upper], [upper, lower]),
                [s for kink in self.kinks for s in (kink, np.nextafter(kink, -9e9), np.nextafter(kink, 9e9))],
            ]
        )
        x = np.unique(np.clip(grid, lower, upper))
        y = self.f(x)
        if len(x) < 3 or not np.isfinite(y).all():
            return x
        rise = y - (y[0] + (y[-1] - y[0]) * (x - lower) / width)
        finer = []
        for best in (int(np.argmax(rise)), int(np.argmin(rise))):
            a, b = x[max(best - 1, 0)], x[min(best + 1, len(x) - 1)]
            finer.append(np.linspace(a, b, 65))
        return np.unique(np.concatenate([x, *finer]))

    def fail(self, law: str, intervals: Sequence[tuple[float, float]], what: str) -> None:
        options = [f"kinks={self.kinks!r}", f"within={self.within!r}", f"exact_at_points={self.exact_at_points}"]
        function = repr(self.name) if self.name in PRIMAL_OPS else "function"
        code = (
            "from math import inf, nan\nfrom boundflow_core.testing import check_lines\n"
            f"check_lines({function}, lines, {list(intervals)!r}, {self.dtype.value!r}, {', '.join(options)}, "
            f"hull={self.hull!r})"
        )
        self.gaps.report(law, lambda: f"lines of {self.name} ({self.dtype}), law {law!r}: {what}\n\n{code}")


@st.composite
def _intervals(draw: Any, kinks: tuple[float, ...], within: tuple[float, float], widest: float) -> tuple[float, float]:
    """Points, tiny, moderate and huge intervals, many of them at places of interest."""
    low, high = within
    places = tuple(kink for kink in kinks if low <= kink <= high) or (low,)
    place = draw(
        st.one_of(
            st.sampled_from(places),
            st.floats(max(low, -8.0), max(min(high, 8.0), low)),
            st.floats(low, high),
            st.sampled_from(places).flatmap(lambda s: st.floats(-1e-3, 1e-3).map(lambda d: s + d)),
        )
    )
    width = draw(
        st.one_of(
            st.just(0.0),
            st.floats(1e-3, 4.0),
            st.floats(1e-3, 20.0),
            st.floats(-12.0, 3.0).map(lambda e: 10.0**e),
            st.floats(0.0, widest),
        )
    )
    share = draw(st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.floats(0.0, 1.0)))
    lower = min(max(place - share * width, low), high)
    return lower, min(max(place + (1.0 - share) * width, lower), high)


def _hull_height(x: Array, y: Array, at: float) -> float:
    """Height at ``at`` of the upper hull of points in the order of x."""
    hull: list[tuple[float, float]] = []
    for point in zip(x.tolist(), y.tolist(), strict=True):
        while len(hull) > 1:
            (ax, ay), (bx, by) = hull[-2:]
            if (by - ay) * (point[0] - ax) > (point[1] - ay) * (bx - ax):
                break
            hull.pop()
        hull.append(point)
    xs, ys = zip(*hull, strict=True)
    return float(np.interp(at, xs, ys))
