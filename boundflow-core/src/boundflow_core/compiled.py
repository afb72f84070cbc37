"""Compiled bounds: a method over a network, planned, and ready to be called again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from boundflow_core.arrays import ball_arrays, box_arrays, like, spec_arrays
from boundflow_core.cache import BoundCache
from boundflow_core.errors import InputError, OptionError
from boundflow_core.extension import Executor, Method
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.types import DType, size
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.plugins import Registry
from boundflow_core.regions import Box, LpBall, Region
from boundflow_core.runner import Planning, RunStats
from boundflow_core.specs import LinearSpec
from boundflow_core.workshop import Progress, Recipe, check_options, make_workshop, recipe_of

__all__ = ["Bounds", "CompileOptions", "CompiledBounds", "Progress", "RunStats", "choose_executor"]


@dataclass(frozen=True)
class Bounds:
    """Guaranteed bounds, arrays of the kind that the region was given in.

    Attributes:
        lower, upper: [B, S] for S specification rows; [B, *output] without a specification. A bound that cannot be
            computed is infinite.
        intermediate: bounds [B, *value] of values inside of the network that the method found on its way, by name.
    """

    lower: Any
    upper: Any
    intermediate: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class CompileOptions:
    """What is fixed when bounds are compiled.

    Attributes:
        dtype: element type of the computation.
        spec_rows, batch: sizes of every call; None: any.
        differentiable: keep what gradients need.
        memory_limit: bytes that the planned peak must not exceed; None: no limit.
        cache: where results are kept between calls; None: nowhere.
        reuse: whether values share memory.
        one_task: plan the whole program as one task.
        lowering: the executor's strategy that runs all that it supports; None: the best for each operation.
        outward: whether bounds are moved outwards by all that rounding may have done to them.
        method: options of the method.
    """

    dtype: DType = DType.FLOAT32
    spec_rows: int | None = None
    batch: int | None = None
    differentiable: bool = False
    memory_limit: int | None = None
    cache: BoundCache | None = None
    reuse: bool = True
    one_task: bool = False
    lowering: str | None = None
    outward: bool = False
    method: Mapping[str, Any] = field(default_factory=dict)


class CompiledBounds:
    """``run(region, spec=None) -> Bounds``; made by :func:`boundflow_core.compile`.

    Attributes:
        stats: counters.
    """

    def __init__(
        self, graph: PrimalGraph, method: Method, registry: Registry, executor: Executor, options: CompileOptions
    ) -> None:
        self.graph, self.method, self.options = graph, method, options
        self.stats = RunStats()
        self._registry, self._executor = registry, executor
        if options.outward and method.recipe is not None and not method.outward:
            raise OptionError(f"the bounds of method {method.name!r} cannot be rounded outwards")
        self._method_options = check_options(method, options.method)
        self._planning = Planning(
            executor=executor,
            passes=tuple(registry.passes.values()),
            method=method.name,
            cache=options.cache,
            key_parts=registry.cache_key_parts,
            memory_limit=options.memory_limit,
            differentiable=options.differentiable,
            reuse=options.reuse,
            one_task=options.one_task,
            lowering=options.lowering,
            outward=options.outward,
        )
        self._recipes: dict[tuple[str | None, float | None], Recipe] = {}
        self._lock = threading.RLock()
        outputs = size(graph.output_type.shape)
        assert isinstance(outputs, int)
        self._outputs = outputs
        first = self._recipe("per region" if options.spec_rows else None, None)
        self._first = first.bind({"B": options.batch or 1, "S": options.spec_rows or 1})
        self._latest: Recipe | None = None

    @property
    def plan(self) -> PlanBundle:
        """The plan of the latest call (before the first one: of the sizes given when compiling, 1 where open)."""
        return self._first if self._latest is None else self._latest.plan

    @property
    def executor(self) -> str:
        """Name of the executor that runs."""
        return self._executor.name

    def __call__(
        self,
        region: Region,
        spec: LinearSpec | None = None,
        *,
        intermediate: Mapping[str, tuple[Any, Any]] | None = None,
        progress: Progress | None = None,
    ) -> Bounds:
        """Bounds over each region of a batch.

        Args:
            region: a Box or LpBall for B regions, or for one.
            spec: rows to bound; the outputs themselves if absent.
            intermediate: bounds (lower, upper) [B, *value] that are known of values inside of the network, by name, as
                earlier calls gave them; the method takes these instead of computing them.
            progress: called after each chunk as ``progress(done, in_all)``; a call without a memory limit is one chunk.

        Raises:
            InputError: shapes or values that do not fit the network or what was compiled for.
            MemoryLimitError: not even one row of one region fits into the memory limit.
        """
        lower, upper = box_arrays(region, self.options.dtype, self.graph.input_type.shape)
        batch = int(lower.shape[0])
        self._check_sizes(batch, spec)
        inputs = {"lower": lower, "upper": upper}
        kind = ball = None
        if isinstance(region, LpBall) and region.p != float("inf"):
            ball = region.p
            inputs["center"], inputs["radius"] = ball_arrays(region, self.options.dtype, self.graph.input_type.shape)
        if spec is not None:
            inputs["C"], inputs["offset"] = spec_arrays(spec, self._outputs, batch, self.options.dtype)
            kind = "per region" if inputs["C"].shape[0] == batch else "shared"
        recipe = self._recipe(kind, ball)
        if intermediate:
            for name, pair in intermediate.items():
                inputs.update(self._intermediate(recipe, name, pair, batch))
        results = recipe.run(inputs, progress)
        with self._lock:
            self._latest = recipe
            self.stats.calls += 1
        found = {name: like(array, lower) for name, array in results.items()}
        inside = {
            name[6:]: (array, found[f"upper:{name[6:]}"]) for name, array in found.items() if name.startswith("lower:")
        }
        return Bounds(found["lower"], found["upper"], inside)

    def _intermediate(self, recipe: Recipe, name: str, pair: tuple[Any, Any], batch: int) -> dict[str, Any]:
        """Bounds of the value ``name`` that the caller knows, as inputs of the recipe."""
        if name not in recipe.takes:
            known = ", ".join(recipe.takes) or "none"
            raise OptionError(f"method {self.method.name!r} takes no bounds of {name!r}; it takes those of: {known}")
        shape = self.graph.type_of(name).shape
        lower, upper = box_arrays(Box(*pair), self.options.dtype, shape)
        if lower.shape[0] != batch:
            raise InputError(f"bounds of {name!r} are given for {lower.shape[0]} regions, but the regions are {batch}")
        return {f"lower:{name}": lower, f"upper:{name}": upper}

    def _recipe(self, kind: str | None, ball: float | None) -> Recipe:
        """The method's recipe.

        Args:
            kind: no specification (None), or one that is "shared" or "per region".
            ball: the norm of regions that are balls, 1 or 2; None: boxes.
        """
        if (kind, ball) in self._recipes:
            return self._recipes[kind, ball]
        with self._lock:
            if (kind, ball) not in self._recipes:
                started, before = time.perf_counter(), self.stats.compile_seconds
                workshop = make_workshop(
                    self.graph,
                    self.method,
                    {name: self._registry.domain(name) for name in self.method.domains},
                    dtype=self.options.dtype,
                    spec=kind,
                    options=self._method_options,
                    ball=ball,
                    planning=self._planning,
                    stats=self.stats,
                )
                self._recipes[kind, ball] = recipe_of(self.method, workshop)
                self.stats.compile_seconds = before + time.perf_counter() - started
        return self._recipes[kind, ball]

    def _check_sizes(self, batch: int, spec: LinearSpec | None) -> None:
        options = self.options
        if options.batch is not None and batch != options.batch:
            raise InputError(f"compiled for batches of {options.batch} regions, but {batch} were given")
        if options.spec_rows is not None and (spec is None or spec.rows != options.spec_rows):
            given = "none" if spec is None else str(spec.rows)
            raise InputError(f"compiled for {options.spec_rows} specification rows, but {given} were given")


def choose_executor(registry: Registry, name: str, *, differentiable: bool, outward: bool = False) -> Executor:
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
        if outward and not executor.exact:
            raise OptionError(f"executor {name!r} does not state how exactly it computes, as outward rounding needs")
        return executor
    fitting = [e for e in registry.executors.values() if e.differentiable or not differentiable]
    available = [e for e in fitting if e.unavailable() is None and (e.exact or not outward)]
    if not available:
        raise OptionError("no executor that gives gradients can run here: install boundflow-core[torch]")
    return max(available, key=lambda e: e.rank)
