"""What the tests of relaxations share: functions, and lines computed by the reference interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate, evaluate_op
from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.ir.types import Attrs, DType
from boundflow_crown.relax import RELAXATIONS
from boundflow_interval import Interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Subject:
    """A function and the lines that relax it.

    Attributes:
        special: places of interest: kinks, inflections, ends of the domain.
        domain: the least and greatest place that the tests draw.
    """

    op: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    constants: tuple[float, ...] = ()
    special: tuple[float, ...] = (0.0,)
    domain: tuple[float, float] = (-1e6, 1e6)

    @property
    def name(self) -> str:
        return "-".join([self.op, *map(str, self.attrs.values()), *map(str, self.constants)])

    def f(self, x: Array) -> Array:
        """The function in float64, by the reference interpreter."""
        with np.errstate(all="ignore"):
            return np.asarray(
                evaluate_op(PRIMAL_OPS[self.op], Attrs(self.attrs), [x, *map(np.float64, self.constants)])
            )

    def lines(
        self, lower: Any, upper: Any, dtype: DType = DType.FLOAT64, **options: Any
    ) -> tuple[Array, Array, Array, Array]:
        """Lower slope and bias, upper slope and bias of n intervals, all [n]."""
        lower, upper = np.atleast_1d(np.asarray(lower, np.float64)), np.atleast_1d(np.asarray(upper, np.float64))
        b = Builder(dtype)
        x = Interval(b.input("lower", lower.shape), b.input("upper", upper.shape))
        constants = tuple(b.constant(number) for number in self.constants)
        found = RELAXATIONS[self.op](b, x, Attrs(self.attrs), constants, options)
        zero = x.lower * 0.0
        outputs = {
            "lower_slope": found.lower_slope,
            "lower_bias": found.lower_bias if found.lower_bias is not None else zero,
            "upper_slope": found.upper_slope,
            "upper_bias": found.upper_bias if found.upper_bias is not None else zero,
        }
        # Results that are constants have no batch axis.
        outputs = {
            name: b.broadcast(value, lower.shape) if value.rank == 0 else value for name, value in outputs.items()
        }
        results = evaluate(b.finish(outputs), {"lower": lower, "upper": upper})
        return tuple(results[name].astype(np.float64) for name in outputs)  # type: ignore[return-value]


def places(subject: Subject, lower: float, upper: float) -> Array:
    """Places of [lower, upper]: a fine grid, the ends and their neighbours, and special places."""
    grid = np.concatenate(
        [
            lower + (upper - lower) * np.linspace(0.0, 1.0, 513),
            lower + (upper - lower) * np.geomspace(1e-9, 1e-2, 20),
            upper - (upper - lower) * np.geomspace(1e-9, 1e-2, 20),
            np.nextafter([lower, upper], [upper, lower]),
            [
                s
                for special in subject.special
                for s in (special, np.nextafter(special, -9e9), np.nextafter(special, 9e9))
            ],
        ]
    )
    return np.unique(np.clip(grid, lower, upper))


def excess(subject: Subject, lower: float, upper: float, dtype: DType = DType.FLOAT64) -> float:
    """By how much lines cross the function, relative to the largest number that enters; negative or 0: not at all."""
    worst = -np.inf
    low_s, low_b, up_s, up_b = (float(v[0]) for v in subject.lines(lower, upper, dtype))
    x = places(subject, lower, upper)
    y = subject.f(x)
    for slope, bias, sign in ((low_s, low_b, 1.0), (up_s, up_b, -1.0)):
        if np.isnan(slope) or np.isnan(bias) or np.isinf(bias):
            assert np.isnan(bias) or sign * bias < 0, f"a bound that is wrong everywhere: {bias}"
            continue
        # Lines of finite slope times places: that product is rounded, and so was it in the bias.
        scale = 1.0 + np.abs(y) + abs(bias) + np.abs(slope * x) + abs(slope) * max(abs(lower), abs(upper))
        with np.errstate(invalid="ignore"):
            over = sign * (slope * x + bias - y) / scale
        worst = max(worst, float(np.max(over[np.isfinite(y)], initial=-np.inf)))
    return worst


@st.composite
def intervals(draw: Any, subject: Subject, widest: float = 1e6) -> tuple[float, float]:
    """Intervals of the domain: points, tiny, moderate and huge ones, many of them at special places."""
    low, high = subject.domain
    place = draw(
        st.one_of(
            st.floats(low, high),
            st.floats(max(low, -8.0), min(high, 8.0)),
            st.sampled_from([*subject.special, low]),
            st.sampled_from(subject.special).flatmap(lambda s: st.floats(-1e-3, 1e-3).map(lambda d: s + d)),
        )
    )
    width = draw(
        st.one_of(
            st.just(0.0),
            st.floats(1e-3, 20.0),
            st.floats(1e-3, 4.0),
            st.floats(-300.0, 3.0).map(lambda e: 10.0**e),
            st.floats(0.0, widest),
        )
    )
    share = draw(st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.floats(0.0, 1.0)))
    lower = min(max(place - share * width, low), high)
    return lower, min(max(place + (1.0 - share) * width, lower), high)


def ratio_to_best(subject: Subject, lower: float, upper: float) -> tuple[float, float]:
    """Heights of the lines over f at the middle, beside those of the convex hull of the graph, on a grid: (ours, best).

    The hull's height at the middle is what the best line above minus the best line below reaches there.
    """
    x = np.unique(np.clip([*np.linspace(lower, upper, 4001), *subject.special], lower, upper))
    y = subject.f(x)
    middle = 0.5 * (lower + upper)
    low_s, low_b, up_s, up_b = (float(v[0]) for v in subject.lines(lower, upper))
    ours = (up_s - low_s) * middle + up_b - low_b
    best = 0.0
    for values in (y, -y):
        best += _hull_height(x, values, middle)
    return ours, best


def _hull_height(x: Array, y: Array, at: float) -> float:
    """Height at ``at`` of the upper hull of points in the order of x."""
    hull: list[tuple[float, float]] = []
    for point in zip(x.tolist(), y.tolist(), strict=True):
        while len(hull) > 1:
            (ax, ay), (bx, by) = hull[-2:]
            if (by - ay) * (point[0] - ax) <= (point[1] - ay) * (bx - ax):
                hull.pop()
            else:
                break
        hull.append(point)
    xs, ys = zip(*hull, strict=True)
    return float(np.interp(at, xs, ys))
