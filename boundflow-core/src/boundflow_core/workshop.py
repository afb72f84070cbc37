"""What methods build their programs with, and how a method's programs become one computation of bounds.

A method of one program emits it and is done. A method with decisions in between (which neurons to refine, when to stop)
brings a recipe: it writes several programs in the workshop and, at each call, runs them from plain Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from boundflow_core.errors import OptionError, PluginError
from boundflow_core.extension import (
    BallValues,
    Domain,
    Method,
    MethodContext,
    RegionValues,
    Rule,
    SpecRows,
    expect,
    operators_of,
)
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.ir.types import Dim, DType, Shape, SymDim, TensorType, format_shape, size
from boundflow_core.normalize import legalize
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.runner import Planning, ProgramRunner, RunStats

__all__ = [
    "REGIONS",
    "ROWS",
    "Progress",
    "Recipe",
    "Workshop",
    "check_options",
    "check_results",
    "make_workshop",
    "no_nan",
    "recipe_of",
    "write_program",
]

REGIONS = SymDim.of("B")
ROWS = SymDim.of("S")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Recipe:
    """A computation of bounds, ready for calls.

    Attributes:
        main: the program that gives the results.
        run: ``run(inputs, progress) -> outputs``: arrays ``lower``, ``upper`` [B, *input], for balls of the norm 1 or 2
            ``center`` and ``radius``, and with a specification ``C`` and ``offset`` in; ``lower`` and ``upper``
            out, and under ``lower:NAME`` and ``upper:NAME`` bounds of values inside of the network that it found.
        takes: names of values whose bounds ``lower:NAME`` and ``upper:NAME`` may be handed in.
        others: programs that a call runs besides, whose sizes are those of ``main``.
        latest: which program gave the results of the latest run, where it is not always ``main``.
    """

    main: ProgramRunner
    run: Callable[[Mapping[str, Any], Progress | None], Mapping[str, Any]]
    takes: tuple[str, ...] = ()
    others: tuple[ProgramRunner, ...] = ()
    latest: Callable[[], ProgramRunner] | None = None

    @property
    def plan(self) -> PlanBundle:
        """The plan to show: of all programs' latest runs (or plans, before any run) the one with the highest peak."""
        main = self.main if self.latest is None else self.latest()
        return _highest(runner.plan for runner in (main, *self.others))

    def bind(self, sizes: Mapping[str, int]) -> PlanBundle:
        """The same, planned for these sizes."""
        return _highest(runner.bind(sizes) for runner in (self.main, *self.others))


def _highest(plans: Iterable[PlanBundle]) -> PlanBundle:
    return max(plans, key=lambda plan: plan.storage.peak_bytes)


@dataclass(frozen=True)
class Workshop:
    """Everything that a method's programs are made from.

    Attributes:
        graph: the network, every operator of which has a rule in each domain that the method names.
        rules: rule per domain and operator.
        dtype: element type of the programs.
        spec: form of the specification: None, "shared" or "per region".
        options: the method's options, checked.
        ball: where regions are balls of the norm 1 or 2, which; None: boxes.
        planning: how programs are planned and run; None where they are only written.
        regions: number of regions of the programs' inputs; any, unless a program is for one region alone.
    """

    graph: PrimalGraph
    rules: Mapping[str, Mapping[str, Rule]]
    dtype: DType
    spec: str | None
    options: Mapping[str, Any]
    ball: float | None = None
    planning: Planning | None = None
    stats: RunStats = field(default_factory=RunStats)
    regions: Dim = REGIONS

    def region(self, b: Builder) -> RegionValues:
        """The regions as inputs ``lower`` and ``upper`` [B, *input], and of balls ``center`` and ``radius`` [B]."""
        shape = (self.regions, *self.graph.input_type.shape)
        lower, upper = b.input("lower", shape, group="region"), b.input("upper", shape, group="region")
        if self.ball is None:
            return RegionValues(lower, upper)
        center, radius = b.input("center", shape, group="region"), b.input("radius", (self.regions,), group="region")
        return RegionValues(lower, upper, BallValues(center, radius, self.ball))

    def spec_rows(self, b: Builder) -> SpecRows | None:
        """The specification as inputs ``C`` [1 or B, S, n] and ``offset`` [1 or B, S]; None without one."""
        if self.spec is None:
            return None
        lead = 1 if self.spec == "shared" else self.regions
        outputs = size(self.graph.output_type.shape)
        return SpecRows(
            b.input("C", (lead, ROWS, outputs), group="spec"), b.input("offset", (lead, ROWS), group="spec")
        )

    def context(self, b: Builder) -> MethodContext:
        """The inputs of a program that takes region and specification."""
        return MethodContext(b, self.graph, self.rules, self.region(b), self.spec_rows(b), self.options)

    def write(self, name: str, write: Callable[[Builder], Mapping[str, Value]]) -> BoundProgram:
        """The program that ``write(builder) -> outputs`` writes."""
        b = Builder(self.dtype, f"{name}({self.graph.name})")
        program = b.finish(write(b))
        b.forget()
        return program

    def runner(
        self, name: str, write: Callable[[Builder], Mapping[str, Value]], cuts: Sequence[str] = ("B", "S")
    ) -> ProgramRunner:
        """The same, planned and ready to run; ``cuts``: symbols along which it may run in chunks."""
        assert self.planning is not None, "this workshop only writes programs"
        return ProgramRunner(lambda: self.write(name, write), self.planning, self.stats, cuts)


def check_options(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    """The method's options with defaults filled in.

    Raises:
        OptionError: the method has no option of that name.
    """
    for name in options:
        if name not in method.options:
            known = ", ".join(method.options) or "none"
            raise OptionError(f"method {method.name!r} has no option {name!r}; its options: {known}")
    return {**method.options, **options}


def make_workshop(
    graph: PrimalGraph,
    method: Method,
    domains: Mapping[str, Domain],
    *,
    dtype: DType,
    spec: str | None,
    options: Mapping[str, Any],
    ball: float | None = None,
    planning: Planning | None = None,
    stats: RunStats | None = None,
) -> Workshop:
    """The workshop of ``method`` for ``graph``.

    Raises:
        UnsupportedOpError: an operator of the network has no rule in one of the domains.
    """
    used = [domains[name] for name in method.domains]
    names = " and ".join(repr(domain.name) for domain in used)
    legal = legalize(graph, operators_of(used), f"domain {names}") if used else graph
    rules = {domain.name: domain.rules for domain in used}
    return Workshop(legal, rules, dtype, spec, options, ball, planning, stats or RunStats())


def emit_bounds(workshop: Workshop, method: Method, b: Builder) -> dict[str, Value]:
    """The results of a method of one program; what is undefined (inf - inf) becomes the bound that is always true.

    Raises:
        PluginError: the method gives something else than a lower and an upper bound of the right type.
    """
    assert method.emit is not None, f"method {method.name!r} has several programs"
    lower, upper = _checked(method, method.emit(workshop.context(b)), _bound_type(workshop))
    return {"lower": no_nan(b, lower, -np.inf), "upper": no_nan(b, upper, np.inf)}


def _bound_type(workshop: Workshop) -> TensorType:
    """[B, S] with specification rows, [B, *output] without."""
    rows = workshop.graph.output_type.shape if workshop.spec is None else (ROWS,)
    return TensorType(workshop.dtype, (workshop.regions, *rows))


def _checked(method: Method, emitted: Any, expected: TensorType) -> tuple[Value, Value]:
    """What ``method`` emitted, if it is a pair of values of the type ``expected``."""
    found = tuple(emitted) if isinstance(emitted, (tuple, list)) else ()
    if len(found) == 2 and all(isinstance(one, Value) and one.type == expected for one in found):
        return found
    given = " and ".join(str(one.type) if isinstance(one, Value) else type(one).__name__ for one in found)
    raise PluginError(
        f"{_who(method)} must emit (lower, upper), two values {expected}, not {given or type(emitted).__name__}"
    )


def _who(method: Method) -> str:
    """The method and the module that it is written in, for messages."""
    written = method.emit or method.recipe
    return f"method {method.name!r} (in {getattr(written, '__module__', 'unknown')})"


def check_results(method: Method, results: Mapping[str, Any], shape: Shape) -> None:
    """The bounds that a recipe of ``method`` gave are there, and arrays of this shape.

    Raises:
        PluginError: they are not.
    """
    for side in ("lower", "upper"):
        given = getattr(results.get(side), "shape", None)
        if given is None or tuple(given) != shape:
            found = f"{results.get(side)!r:.80}" if given is None else f"shape {format_shape(given)}"
            raise PluginError(f"{_who(method)} must give {side!r} of shape {format_shape(shape)}, not {found}")


def no_nan(b: Builder, bound: Value, instead: float) -> Value:
    """``bound`` with NaN replaced."""
    return b.where(b.compare(bound, bound, "eq"), bound, instead)


def recipe_of(method: Method, workshop: Workshop) -> Recipe:
    """The method's own recipe, or the one that runs its only program.

    Raises:
        PluginError: the method gives something else.
    """
    if method.recipe is not None:
        return expect(_who(method), method.recipe(workshop), Recipe)
    main = workshop.runner(method.name, lambda b: emit_bounds(workshop, method, b))
    return Recipe(main, lambda inputs, progress: main(inputs, progress))


def write_program(
    graph: PrimalGraph,
    method: Method,
    domains: Mapping[str, Domain],
    *,
    dtype: DType,
    spec: str | None,
    options: Mapping[str, Any],
    ball: float | None = None,
) -> BoundProgram:
    """The program of a method of one program, with inputs and outputs as :class:`Recipe` says; nothing is planned.

    Raises:
        UnsupportedOpError: an operator of the network has no rule in one of the domains.
        PluginError: the method emits something else than a lower and an upper bound of the right type.
    """
    workshop = make_workshop(graph, method, domains, dtype=dtype, spec=spec, options=options, ball=ball)
    return workshop.write(method.name, lambda b: emit_bounds(workshop, method, b))
