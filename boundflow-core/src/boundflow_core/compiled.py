"""Compiled bounds: a method over a network, planned, and ready to be called again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from boundflow_core.arrays import ball_arrays, box_arrays, device_of, like, spec_arrays
from boundflow_core.cache import BoundCache
from boundflow_core.errors import InputError, OptionError
from boundflow_core.extension import Executor, Method
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.types import DType, size
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.planner.shared import SharedMemory
from boundflow_core.plugins import Registry
from boundflow_core.regions import Box, LpBall, Region
from boundflow_core.runner import Planning, RunStats
from boundflow_core.selection import Candidates, candidates, choose
from boundflow_core.specs import LinearSpec
from boundflow_core.workshop import Progress, Recipe, check_options, check_results, make_workshop, recipe_of

__all__ = ["Bounds", "CompileOptions", "CompiledBounds", "Progress", "RunStats", "choose_executor"]


SIDES = ("lower", "upper")


@dataclass(frozen=True)
class Bounds:
    """Guaranteed bounds, arrays of the kind that the region was given in.

    Attributes:
        lower, upper: [B, S] for S specification rows; [B, *output] without a specification. A bound that cannot be
            computed is infinite.
        intermediate: bounds [B, *value] of values inside of the network that the method found on its way, by name.
        linear: (A, b) of linear functions A x + b of the input between which the rows lie, by side, "lower" and
            "upper", where the method was asked for them: [B, S, *input] and [B, S], or [B, *output, *input] and
            [B, *output].
    """

    lower: Any
    upper: Any
    intermediate: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    linear: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


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
        share_memory: whether calls of different sizes, and the programs of a call, use one piece of memory in turn.
        calls: how many calls to expect, where an executor is to be chosen.
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
    share_memory: bool = False
    calls: int = 1
    method: Mapping[str, Any] = field(default_factory=dict)


class CompiledBounds:
    """``run(region, spec=None) -> Bounds``; made by :func:`boundflow_core.compile`.

    Attributes:
        stats: counters.
    """

    def __init__(
        self,
        graph: PrimalGraph,
        method: Method,
        registry: Registry,
        executor: Executor | Candidates,
        options: CompileOptions,
    ) -> None:
        self.graph, self.method, self.options = graph, method, options
        self.stats = RunStats()
        self._registry = registry
        self._found = Candidates((executor,), "asked for") if isinstance(executor, Executor) else executor
        if options.outward and method.recipe is not None and not method.outward:
            raise OptionError(f"the bounds of method {method.name!r} cannot be rounded outwards")
        self._method_options = check_options(method, options.method)
        self._planning = Planning(
            executor=self._found.executors[0],
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
            shared=SharedMemory() if options.share_memory else None,
        )
        self._recipes: dict[tuple[str | None, float | None, bool], Recipe] = {}
        self._lock = threading.RLock()
        outputs = size(graph.output_type.shape)
        assert isinstance(outputs, int)
        self._outputs = outputs
        self._sizes = {"B": options.batch or 1, "S": options.spec_rows or 1}
        self._first = self._recipe("per region" if options.spec_rows else None, None, "cpu", self._sizes)
        if options.batch is None and options.spec_rows is None:
            self._first.main.write()  # with a specification, or regions that are balls, calls need another plan
        else:
            self._first.bind(self._sizes)
        self._latest: Recipe | None = None

    @property
    def plan(self) -> PlanBundle:
        """The plan of the latest call (before the first one: of the sizes given when compiling, 1 where open)."""
        return self._first.bind(self._sizes) if self._latest is None else self._latest.plan

    @property
    def executor(self) -> str:
        """Name of the executor that runs."""
        return self.stats.executor

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
            PluginError: the method gives something else than bounds of the right shape.
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
        rows = 1 if spec is None else spec.rows
        recipe = self._recipe(kind, ball, device_of(lower), {"B": batch, "S": rows})
        if intermediate:
            for name, pair in intermediate.items():
                inputs.update(self._intermediate(recipe, name, pair, batch))
        results = recipe.run(inputs, progress)
        check_results(self.method, results, (batch, *(self.graph.output_type.shape if spec is None else (rows,))))
        with self._lock:
            self._latest = recipe
            self.stats.calls += 1
        found = {name: like(array, lower) for name, array in results.items()}
        inside = {
            name[6:]: (array, found[f"upper:{name[6:]}"]) for name, array in found.items() if name.startswith("lower:")
        }
        linear = {side: (found[f"A:{side}"], found[f"b:{side}"]) for side in SIDES if f"A:{side}" in found}
        return Bounds(found["lower"], found["upper"], inside, linear)

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

    def _recipe(self, kind: str | None, ball: float | None, device: str, sizes: Mapping[str, int]) -> Recipe:
        """The method's recipe, on the executor that is best for it at these sizes.

        Args:
            kind: no specification (None), or one that is "shared" or "per region".
            ball: the norm of regions that are balls, 1 or 2; None: boxes.
            device: where the arrays lie; executors are compared on the CPU.
        """
        on_cpu = device == "cpu"
        if (kind, ball, on_cpu) in self._recipes:
            return self._recipes[kind, ball, on_cpu]
        with self._lock:
            if (kind, ball, on_cpu) not in self._recipes:
                started, before = time.perf_counter(), self.stats.compile_seconds
                found = self._found if on_cpu else self._found.first(f"has the highest rank, for arrays on {device}")
                self._recipes[kind, ball, on_cpu] = self._best_recipe(found, kind, ball, sizes)
                self.stats.compile_seconds = before + time.perf_counter() - started
        return self._recipes[kind, ball, on_cpu]

    def _best_recipe(self, found: Candidates, kind: str | None, ball: float | None, sizes: Mapping[str, int]) -> Recipe:
        made: dict[str, Recipe] = {}
        counted: dict[str, dict[str, Any]] = {}
        before = deepcopy(vars(self.stats))

        def plan_on(executor: Executor) -> PlanBundle:
            made[executor.name] = self._make_recipe(executor, kind, ball)
            plan = made[executor.name].bind(sizes)
            counted[executor.name] = dict(vars(self.stats))
            vars(self.stats).update(deepcopy(before))  # plans that nothing runs do not count
            return plan

        choice = choose(found, plan_on, self.options.calls)
        name = choice.executor.name
        if name in made:
            vars(self.stats).update(counted[name])
        self.stats.executor, self.stats.executor_reason = name, choice.reason
        return made[name] if name in made else self._make_recipe(choice.executor, kind, ball)

    def _make_recipe(self, executor: Executor, kind: str | None, ball: float | None) -> Recipe:
        workshop = make_workshop(
            self.graph,
            self.method,
            {name: self._registry.domain(name) for name in self.method.domains},
            dtype=self.options.dtype,
            spec=kind,
            options=self._method_options,
            ball=ball,
            planning=replace(self._planning, executor=executor),
            stats=self.stats,
        )
        return recipe_of(self.method, workshop)

    def _check_sizes(self, batch: int, spec: LinearSpec | None) -> None:
        options = self.options
        if options.batch is not None and batch != options.batch:
            raise InputError(f"compiled for batches of {options.batch} regions, but {batch} were given")
        if options.spec_rows is not None and (spec is None or spec.rows != options.spec_rows):
            given = "none" if spec is None else str(spec.rows)
            raise InputError(f"compiled for {options.spec_rows} specification rows, but {given} were given")


def choose_executor(registry: Registry, name: str, *, differentiable: bool, outward: bool = False) -> Executor:
    """The executor called ``name``; for "auto" the available one of highest rank, whatever it is to run.

    Raises:
        UnknownNameError: no executor of that name.
        OptionError: it cannot run here, or not what is asked.
    """
    return candidates(registry, name, differentiable=differentiable, outward=outward).executors[0]
