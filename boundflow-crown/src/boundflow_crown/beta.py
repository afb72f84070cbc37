"""Beta-CROWN: lower bounds of specification rows on subproblems of a search, slopes and multipliers optimised together.

Whatever slopes and multipliers are handed in, bounds hold; :meth:`BetaCrown.bounds` of an ``exact`` one holds in exact
arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.arrays import box_arrays
from boundflow_core.compiled import choose_executor
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.types import DType, concrete_shape
from boundflow_core.plugins import registry
from boundflow_core.regions import Box
from boundflow_core.runner import Planning, ProgramRunner, RunStats
from boundflow_core.splits import SplitState
from boundflow_core.workshop import check_options, make_workshop
from boundflow_crown.ascent import Settings
from boundflow_crown.beta_programs import beta_programs
from boundflow_crown.slopes import EMPTY, SLOPES

__all__ = ["BetaCrown", "Optimised", "Subproblems"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Subproblems:
    """A batch of subproblems: a box, rows, and assumptions about neurons, each.

    Attributes:
        lower, upper: [B, *input].
        C, offset: [B, S, n_out] and [B, S].
        bounds: bounds (lower, upper) [B or 1, *value] of values inside of the network, without assumptions, by name.
        split: the assumptions.
        unit: what multipliers are multiplied with, [B] or a number > 0, by the value's name; 1 where missing.
        slopes, multipliers: [B, S, *value] by the value's name; empty: those of crown, and zeros. Multipliers of values
            that are split at points are positive where they hold the lower end, negative where they hold the upper one.
    """

    lower: Array
    upper: Array
    C: Array
    offset: Array
    bounds: Mapping[str, tuple[Array, Array]]
    split: SplitState
    unit: Mapping[str, Array | float]
    slopes: Mapping[str, Array]
    multipliers: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.lower)


@dataclass(frozen=True, eq=False)
class Optimised:
    """The best bounds ``lower`` [B, S] of all steps, and the slopes and multipliers that gave them; slopes are 0 for
    values without any to choose."""

    lower: Array
    slopes: Mapping[str, Array]
    multipliers: Mapping[str, Array]


# Steps over which it is measured how quickly bounds rise.
WINDOW = 5


class _Rise:
    """How the bounds of a batch have risen in the latest steps, which may have to make good for a first one too far."""

    def __init__(self, size: int) -> None:
        self._met = [np.full(size, -np.inf)]

    def __getitem__(self, index: Array) -> _Rise:
        kept = _Rise(0)
        kept._met = [met[index] for met in self._met]
        return kept

    def note(self, bound: Array) -> None:
        """Takes note of the bounds [B] that a step has met."""
        self._met = [*self._met[-WINDOW:], bound]

    def reaches(self, goal: float, steps: int) -> Array:
        """Which [B] would come above ``goal`` in ``steps`` more if they rose as in the latest ones."""
        now, before = self._met[-1], self._met[0]
        with np.errstate(invalid="ignore"):
            return np.asarray(now + (now - before) * (steps / (len(self._met) - 1)) > goal)


class BetaCrown:
    """Bounds of subproblems of one network.

    Args:
        executor: name of who runs it; "auto": the fastest that can run here.
        exact: float64, and :meth:`bounds` moved outwards by all that rounding may have done.

    Attributes:
        graph: the network in operators that have rules, whose names bounds go by.
        values: shapes of the values that can be split, by name, in the order of the network.
        sloped: names of those whose slopes can be chosen.
        curves: names of those that are split at points, the operands of sigmoid, tanh, erf and gelu; all others are
            split at zero.
        needed: names of the values whose bounds must be handed in.

    Raises:
        UnsupportedOpError: an operator of the network has no rule.
        OptionError: the executor cannot run here, or not exactly.
    """

    def __init__(
        self, graph: PrimalGraph, executor: str = "auto", *, exact: bool = False, stats: RunStats | None = None
    ) -> None:
        plugins = registry()
        method = plugins.method("crown")
        self.dtype = DType.FLOAT64 if exact else DType.FLOAT32
        self.exact, self.executor, self.stats = exact, executor, stats or RunStats()
        planning = Planning(
            choose_executor(plugins, executor, differentiable=False, outward=exact),
            tuple(plugins.passes.values()),
            "beta-crown",
            outward=exact,
        )
        workshop = make_workshop(
            graph,
            method,
            {name: plugins.domain(name) for name in method.domains},
            dtype=self.dtype,
            spec="per region",
            options=check_options(method, {"side": "lower"}),
            planning=planning,
            stats=self.stats,
        )
        programs = beta_programs(workshop)
        self.graph = workshop.graph
        self.needed = programs.names
        self.values = {name: concrete_shape(workshop.graph.type_of(name).shape, {}) for name in programs.values}
        self.sloped, self.curves = frozenset(programs.sloped), frozenset(programs.curves)
        self._start = workshop.runner("beta start", programs.start, cuts=("B",))
        self._bounds = workshop.runner("beta-crown", programs.bounds, cuts=("B",))
        self._rows = workshop.runner("beta rows", programs.rows, cuts=("B",))
        plain = replace(planning, outward=False)
        self._step = ProgramRunner(programs.step, plain, self.stats, cuts=("B",), varying=(SLOPES,))
        self._slant = ProgramRunner(programs.slant, plain, self.stats, cuts=("B",))

    def bounds(self, problems: Subproblems) -> Array:
        """Lower bounds [B, S] for the slopes and multipliers given; infinite on subproblems that are empty."""
        found = self._bounds(self._inputs(self._bounds, problems))
        return self._emptied(problems, np.asarray(found["lower"]))

    def linear(self, problems: Subproblems) -> tuple[Array, Array]:
        """Coefficients [B, *input] and constants [B], float64 and up to rounding, of the linear function of the input
        whose least value on the box is the lower bound of the only row, S = 1, of each subproblem."""
        given = self._inputs(self._slant, problems)
        found = self._slant(given)
        A = np.asarray(found["grad:lower"], dtype=np.float64) + found["grad:upper"]
        least = (np.maximum(A, 0) * given["lower"] + np.minimum(A, 0) * given["upper"]).reshape(len(A), -1).sum(axis=1)
        return A, np.asarray(found["least"])[:, 0] - least

    def undecided(self, count: int) -> SplitState:
        """``count`` subproblems that assume nothing."""
        return SplitState.undecided(self.values, count, self.curves)

    def rows(self, problems: Subproblems) -> tuple[Array, dict[str, Array]]:
        """The same, and the rows [B, S, *value] that arrive at the activations of the values that can be split."""
        lower, rows, _ = self.loosest(problems)
        return lower, rows

    def loosest(self, problems: Subproblems) -> tuple[Array, dict[str, Array], dict[str, tuple[Array, Array]]]:
        """What :meth:`rows` gives, and how far the lines above and below ``curves`` are from them, [B, *value] each."""
        found = self._rows(self._inputs(self._rows, problems))
        lower = self._emptied(problems, np.asarray(found["lower"]))
        rows = {name: np.asarray(found[f"rows:{name}"]) for name in self.values}
        gaps = {n: (np.asarray(found[f"above:{n}"]), np.asarray(found[f"below:{n}"])) for n in self.curves}
        return lower, rows, gaps

    def optimised(self, problems: Subproblems, settings: Settings, *, beta_rate: float, patience: int = 0) -> Optimised:
        """The best of ``settings.iterations`` steps; subproblems with a row above ``settings.stop`` stay as they are.

        Args:
            beta_rate: the size of a step of the multipliers, as ``settings.rate`` is that of slopes.
            patience: further steps for subproblems that would come above ``settings.stop`` in these if they went on to
                rise as in the latest ones.
        """
        given = self._inputs(self._step, problems)
        best = np.full(problems.offset.shape, -np.inf, dtype=self.dtype.numpy)
        state: dict[str, Array] = {"best": best}
        for kind, names in (("alpha", self.sloped), ("beta", frozenset(self.values))):
            for name in self.values:
                if name not in names:
                    continue
                value = given.pop(f"{kind}:{name}")
                state |= {f"{kind}:{name}": value, f"best {kind}:{name}": value}
                state[f"{kind} first:{name}"] = np.zeros_like(value)
                state[f"{kind} second:{name}"] = np.full_like(value, EMPTY)
        final = {name: np.array(array) for name, array in state.items() if name.startswith("best")}
        places = np.arange(len(problems))
        live = ~problems.split.empty(problems.bounds)
        carried = {name: name for name in state}
        number, last = 0, settings.iterations + (patience if settings.stop is not None else 0)
        rise = _Rise(len(problems))
        while number < last and live.any():
            with self._step.loop({**given, **state}, carried) as loop:
                smaller = False
                while number < last and live.any() and not smaller:
                    scalars = settings.scalars(number)
                    rates = {"beta rate": scalars["rate"] * beta_rate / settings.rate}
                    rates |= {"alpha rate": scalars["rate"]} if self.sloped else {}
                    step = {name: self._number(value) for name, value in {**rates, "tiny": scalars["tiny"]}.items()}
                    now = np.asarray(loop.step(step)["least"])
                    number += 1
                    if settings.stop is not None:
                        rise.note(now.max(axis=1))
                        live &= ~(now > settings.stop).any(axis=1)
                        if number >= settings.iterations:
                            live &= rise.reaches(settings.stop, last - number)
                        size = 1 << max(int(live.sum()) - 1, 0).bit_length()
                        smaller = 2 * size <= len(live) and number + 1 < last
                state = {name: np.asarray(array) for name, array in loop.state().items()}
            for name, array in final.items():
                array[places] = state[name]
            if smaller and live.any():
                keep = np.concatenate([np.flatnonzero(live), np.flatnonzero(~live)])[:size]
                state = {name: array[keep] for name, array in state.items()}
                given = {name: array[keep] for name, array in given.items()}
                places, live, rise = places[keep], live[keep], rise[keep]
        return Optimised(
            self._emptied(problems, final["best"]),
            {
                name: final[f"best alpha:{name}"] if name in self.sloped else np.zeros_like(final[f"best beta:{name}"])
                for name in self.values
            },
            {name: final[f"best beta:{name}"] for name in self.values},
        )

    def start(self, problems: Subproblems) -> dict[str, Array]:
        """The slopes that crown takes, [B, S, *value] by the value's name."""
        if not self.sloped:
            return {}
        given = self._inputs(self._start, problems, free=False)
        found = self._start(given)
        rows = problems.offset.shape[1]
        return {name: np.repeat(np.asarray(found[f"alpha:{name}"])[:, None], rows, axis=1) for name in self.sloped}

    # -- inputs -------------------------------------------------------------------------------------------------------

    def _number(self, value: float) -> Array:
        return np.asarray(value, dtype=self.dtype.numpy)

    def _inputs(self, runner: ProgramRunner, problems: Subproblems, *, free: bool = True) -> dict[str, Array]:
        """What ``runner`` takes; regions and bounds rounded outwards."""
        kind, count = self.dtype.numpy, len(problems)
        lower, upper = box_arrays(Box(problems.lower, problems.upper), self.dtype, problems.lower.shape[1:])
        given = {
            "lower": lower,
            "upper": upper,
            "C": problems.C.astype(kind),
            "offset": problems.offset.astype(kind),
        }
        for name in self.needed:
            low, high = problems.bounds[name]
            if low.dtype != kind:
                low, high = box_arrays(Box(low, high), self.dtype, low.shape[1:])
            pair = problems.split.clip(name, low, high)
            given[f"lower:{name}"], given[f"upper:{name}"] = (np.broadcast_to(x, (count, *x.shape[1:])) for x in pair)
        slopes = problems.slopes or (self.start(problems) if free else {})
        for name, shape in self.values.items():
            if not free:
                continue
            unit = np.broadcast_to(np.asarray(problems.unit.get(name, 1.0), dtype=kind), (count,))
            sign = self._signs(name, problems.split, (given[f"lower:{name}"], given[f"upper:{name}"]))
            given[f"push:{name}"] = sign * -unit.reshape(-1, *(1 for _ in shape))
            if name in self.sloped:
                given[f"alpha:{name}"] = slopes[name].astype(kind, copy=False)
            full = (count, problems.offset.shape[1], *shape)
            held = problems.multipliers.get(name)
            given[f"beta:{name}"] = np.zeros(full, kind) if held is None else held.astype(kind, copy=False)
        taken = {value.name for value in runner.program.inputs}
        return {name: array for name, array in given.items() if name in taken}

    def _signs(self, name: str, split: SplitState, bounds: tuple[Array, Array]) -> Array:
        """On which side of zero neurons are; of those that are split at points 1, if they are split and their bounds,
        as narrowed by that, finite."""
        if name not in self.curves:
            return split.signs[name]
        held = np.isfinite(split.ends[name][0]) | np.isfinite(split.ends[name][1])
        return held & np.isfinite(bounds[0]) & np.isfinite(bounds[1])

    def _emptied(self, problems: Subproblems, lower: Array) -> Array:
        return np.where(problems.split.empty(problems.bounds)[:, None], np.inf, lower)
