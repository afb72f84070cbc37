"""Compiled bounds: a method over a network, planned, and ready to be called again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from boundflow_core.arrays import box_arrays, like, spec_arrays
from boundflow_core.assemble import check_options, write_program
from boundflow_core.errors import InputError, OptionError
from boundflow_core.extension import Executor, Method
from boundflow_core.ir.evaluate import bind_symbols
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.program import BoundProgram
from boundflow_core.ir.types import DType, size
from boundflow_core.planner.pipeline import make_plan, run_passes
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.plugins import Registry
from boundflow_core.regions import Region
from boundflow_core.specs import LinearSpec

__all__ = ["Bounds", "CompiledBounds", "RunStats"]

Runner = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Bounds:
    """Guaranteed bounds, arrays of the kind that the region was given in.

    Attributes:
        lower, upper: [B, S] for S specification rows; [B, *output] without a specification. A bound that cannot be
            computed is infinite.
    """

    lower: Any
    upper: Any


@dataclass
class RunStats:
    """What a compiled object has done so far.

    Attributes:
        calls: number of calls.
        compile_seconds: wall-clock time spent on writing programs, planning and preparing.
        lowering: operations per strategy, of the latest plan.
        fallbacks: operations that could not run as written, by reason, of the latest plan.
    """

    calls: int = 0
    compile_seconds: float = 0.0
    lowering: Mapping[str, int] = field(default_factory=dict)
    fallbacks: Mapping[str, int] = field(default_factory=dict)


class CompiledBounds:
    """``run(region, spec=None) -> Bounds``; made by :func:`boundflow_core.compile`.

    Attributes:
        plan: the plan of the latest call (before the first one: of the sizes given when compiling, 1 where open).
        stats: counters.
        executor: name of the executor that runs.
    """

    def __init__(
        self,
        graph: PrimalGraph,
        method: Method,
        registry: Registry,
        executor: Executor,
        *,
        dtype: DType,
        spec_rows: int | None,
        batch: int | None,
        differentiable: bool,
        options: Mapping[str, Any],
    ) -> None:
        self.graph, self.method, self.dtype = graph, method, dtype
        self.stats = RunStats()
        self._registry, self._executor = registry, executor
        self._batch, self._spec_rows = batch, spec_rows
        self._differentiable = differentiable
        self._options = check_options(method, options)
        self._programs: dict[str | None, BoundProgram] = {}
        self._prepared: dict[tuple[str | None, tuple[tuple[str, int], ...]], tuple[PlanBundle, Runner]] = {}
        sizes = {"B": batch or 1, "S": spec_rows or 1}
        self.plan = self._prepare("per region" if spec_rows else None, sizes)[0]

    @property
    def executor(self) -> str:
        return self._executor.name

    def __call__(self, region: Region, spec: LinearSpec | None = None) -> Bounds:
        """Bounds over each region of a batch.

        Args:
            region: a Box or LpBall for B regions, or for one.
            spec: rows to bound; the outputs themselves if absent.

        Raises:
            InputError: shapes or values that do not fit the network or what was compiled for.
        """
        lower, upper = box_arrays(region, self.dtype, self.graph.input_type.shape)
        batch = int(lower.shape[0])
        self._check_sizes(batch, spec)
        inputs = {"lower": lower, "upper": upper}
        kind = None
        if spec is not None:
            outputs = size(self.graph.output_type.shape)
            assert isinstance(outputs, int)
            inputs["C"], inputs["offset"] = spec_arrays(spec, outputs, batch, self.dtype)
            kind = "per region" if inputs["C"].shape[0] == batch else "shared"
        sizes = bind_symbols(self._program(kind), {name: array.shape for name, array in inputs.items()})
        self.plan, runner = self._prepare(kind, sizes)
        results = runner(inputs)
        self.stats.calls += 1
        return Bounds(like(results["lower"], lower), like(results["upper"], lower))

    def _check_sizes(self, batch: int, spec: LinearSpec | None) -> None:
        if self._batch is not None and batch != self._batch:
            raise InputError(f"compiled for batches of {self._batch} regions, but {batch} were given")
        if self._spec_rows is not None and (spec is None or spec.rows != self._spec_rows):
            given = "none" if spec is None else str(spec.rows)
            raise InputError(f"compiled for {self._spec_rows} specification rows, but {given} were given")

    def _program(self, kind: str | None) -> BoundProgram:
        if kind not in self._programs:
            program = write_program(
                self.graph,
                self.method,
                {name: self._registry.domain(name) for name in self.method.domains},
                dtype=self.dtype,
                spec=kind,
                options=self._options,
            )
            self._programs[kind] = run_passes(program, self._registry.passes.values())
        return self._programs[kind]

    def _prepare(self, kind: str | None, sizes: Mapping[str, int]) -> tuple[PlanBundle, Runner]:
        started = time.perf_counter()
        key = (kind, tuple(sorted(sizes.items())))
        if key not in self._prepared:
            program = self._program(kind)
            needed = {symbol: sizes[symbol] for symbol in program.symbols()}
            plan = make_plan(program, needed, self._executor, differentiable=self._differentiable)
            self._prepared[key] = plan, self._executor.prepare(plan)
            self.stats.compile_seconds += time.perf_counter() - started
        plan, runner = self._prepared[key]
        self.stats.lowering, self.stats.fallbacks = plan.lowering.counts, plan.lowering.fallbacks
        return plan, runner


def choose_executor(registry: Registry, name: str, *, differentiable: bool) -> Executor:
    """The executor called ``name``; for "auto" the available one of highest rank.

    Raises:
        UnknownNameError: no executor of that name.
        OptionError: it cannot run here, or not what is asked.
    """
    if name != "auto":
        executor = registry.executor(name)
        if reason := executor.unavailable():
            raise OptionError(f"executor {name!r} cannot run here: {reason}")
        if differentiable and not executor.differentiable:
            raise OptionError(f"executor {name!r} gives no gradients")
        return executor
    fitting = [e for e in registry.executors.values() if e.differentiable or not differentiable]
    available = [e for e in fitting if e.unavailable() is None]
    if not available:
        raise OptionError("no executor that gives gradients can run here: install boundflow-core[torch]")
    return max(available, key=lambda e: e.rank)
