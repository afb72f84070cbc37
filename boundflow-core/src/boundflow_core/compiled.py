"""Compiled bounds: a method over a network, planned, and ready to be called again and again."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from boundflow_core.arrays import box_arrays, concatenate, device_of, like, spec_arrays
from boundflow_core.assemble import check_options, write_program
from boundflow_core.cache import BoundCache, fingerprint
from boundflow_core.errors import InputError, OptionError
from boundflow_core.extension import Executor, Method
from boundflow_core.ir.evaluate import bind_symbols
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.types import DType, size
from boundflow_core.memory import chunk_count, chunk_sizes, chunks
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.plugins import Registry
from boundflow_core.regions import Region
from boundflow_core.scheduler import RunCounts, Schedule
from boundflow_core.specs import LinearSpec

__all__ = ["Bounds", "CompileOptions", "CompiledBounds", "Progress", "RunStats", "choose_executor"]

Progress = Callable[[int, int], None]

# Prepared sizes hold memory; of more than this many, the least recently used are let go.
MAX_PREPARED = 8


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
class RunStats(RunCounts):
    """What a compiled object has done so far.

    Attributes:
        calls: number of calls.
        chunks: number of pieces that calls were cut into.
        plans: how often something was planned: once per form of the specification, whatever the sizes.
        compile_seconds: wall-clock time spent on writing programs, planning and preparing.
        lowering: operations per strategy, of the latest plan.
        fallbacks: operations that could not run as written, by reason, of the latest plan.
    """

    calls: int = 0
    chunks: int = 0
    plans: int = 0
    compile_seconds: float = 0.0
    lowering: Mapping[str, int] = field(default_factory=dict)
    fallbacks: Mapping[str, int] = field(default_factory=dict)


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
    method: Mapping[str, Any] = field(default_factory=dict)


class CompiledBounds:
    """``run(region, spec=None) -> Bounds``; made by :func:`boundflow_core.compile`.

    Attributes:
        plan: the plan of the latest call (before the first one: of the sizes given when compiling, 1 where open).
        stats: counters.
    """

    def __init__(
        self, graph: PrimalGraph, method: Method, registry: Registry, executor: Executor, options: CompileOptions
    ) -> None:
        self.graph, self.method, self.options = graph, method, options
        self.stats = RunStats()
        self._registry, self._executor = registry, executor
        self._method_options = check_options(method, options.method)
        self._plans: dict[str | None, PlanBundle] = {}
        self._fingerprints: dict[str | None, str] = {}
        self._schedules: OrderedDict[tuple[Any, ...], Schedule] = OrderedDict()
        self._lock = threading.RLock()
        kind = "per region" if options.spec_rows else None
        self.plan = bind_plan(self._template(kind), {"B": options.batch or 1, "S": options.spec_rows or 1})
        self._describe()

    @property
    def executor(self) -> str:
        """Name of the executor that runs."""
        return self._executor.name

    def __call__(self, region: Region, spec: LinearSpec | None = None, *, progress: Progress | None = None) -> Bounds:
        """Bounds over each region of a batch.

        Args:
            region: a Box or LpBall for B regions, or for one.
            spec: rows to bound; the outputs themselves if absent.
            progress: called after each chunk as ``progress(done, in_all)``; a call without a memory limit is one chunk.

        Raises:
            InputError: shapes or values that do not fit the network or what was compiled for.
            MemoryLimitError: not even one row of one region fits into the memory limit.
        """
        lower, upper = box_arrays(region, self.options.dtype, self.graph.input_type.shape)
        batch = int(lower.shape[0])
        self._check_sizes(batch, spec)
        inputs = {"lower": lower, "upper": upper}
        kind = None
        if spec is not None:
            outputs = size(self.graph.output_type.shape)
            assert isinstance(outputs, int)
            inputs["C"], inputs["offset"] = spec_arrays(spec, outputs, batch, self.options.dtype)
            kind = "per region" if inputs["C"].shape[0] == batch else "shared"
        template = self._template(kind)
        sizes = bind_symbols(template.program, {name: array.shape for name, array in inputs.items()})
        chunk = sizes
        if self.options.memory_limit is not None:
            chunk = chunk_sizes(template, sizes, self.options.memory_limit)
        if (self.plan.program, self.plan.sizes) != (template.program, chunk):
            self.plan = bind_plan(template, chunk)
            self._describe()
        device = device_of(lower)
        done, in_all = 0, chunk_count(sizes, chunk)
        columns: list[list[dict[str, Any]]] = []
        for rows in chunks(template.program, inputs, sizes, chunk):
            columns.append([])
            for part in rows:
                columns[-1].append(self._run(kind, part, sizes if in_all == 1 else None, device))
                done += 1
                if progress is not None:
                    progress(done, in_all)
        with self._lock:
            self.stats.calls += 1
        lower_out, upper_out = (
            concatenate([concatenate([part[side] for part in rows], 1) for rows in columns], 0)
            for side in ("lower", "upper")
        )
        return Bounds(like(lower_out, lower), like(upper_out, lower))

    def _run(
        self, kind: str | None, inputs: Mapping[str, Any], sizes: Mapping[str, int] | None, device: str
    ) -> dict[str, Any]:
        if sizes is None:  # those of a chunk
            sizes = bind_symbols(self._plans[kind].program, {name: array.shape for name, array in inputs.items()})
        counts = RunCounts()
        results = self._schedule(kind, sizes, device).run(inputs, counts)
        with self._lock:
            self.stats.chunks += 1
            self.stats.add(counts)
        return results

    def _schedule(self, kind: str | None, sizes: Mapping[str, int], device: str) -> Schedule:
        key = (kind, device, tuple(sorted(sizes.items())))
        with self._lock:
            if key not in self._schedules:
                started = time.perf_counter()
                plan = bind_plan(self._plans[kind], sizes)
                self._make_room(plan)
                cache = None if self.options.differentiable else self.options.cache
                if cache is not None and kind not in self._fingerprints:
                    self._fingerprints[kind] = fingerprint(plan.program)
                self._schedules[key] = Schedule(
                    plan,
                    self._executor.open(plan, None if device == "cpu" else device),
                    self.method.name,
                    cache,
                    self._registry.cache_key_parts,
                    device,
                    self._fingerprints.get(kind, ""),
                )
                self.stats.compile_seconds += time.perf_counter() - started
            self._schedules.move_to_end(key)
            return self._schedules[key]

    def _make_room(self, plan: PlanBundle) -> None:
        """Lets go of what was prepared for other sizes, so that not all of their memory is held at once."""
        limit = self.options.memory_limit
        while self._schedules:
            held = sum(schedule.plan.storage.peak_bytes for schedule in self._schedules.values())
            if len(self._schedules) < MAX_PREPARED and (limit is None or held + plan.storage.peak_bytes <= limit):
                break
            self._schedules.popitem(last=False)

    def _template(self, kind: str | None) -> PlanBundle:
        """The plan for any sizes, with no specification (None) or one that is "shared" or "per region"."""
        with self._lock:
            if kind not in self._plans:
                started = time.perf_counter()
                program = write_program(
                    self.graph,
                    self.method,
                    {name: self._registry.domain(name) for name in self.method.domains},
                    dtype=self.options.dtype,
                    spec=kind,
                    options=self._method_options,
                )
                self._plans[kind] = make_plan(
                    program,
                    self._executor,
                    self._registry.passes.values(),
                    differentiable=self.options.differentiable,
                    reuse=self.options.reuse,
                    one_task=self.options.one_task,
                )
                self.stats.plans += 1
                self.stats.compile_seconds += time.perf_counter() - started
            return self._plans[kind]

    def _describe(self) -> None:
        self.stats.lowering = self.plan.lowering.counts
        self.stats.fallbacks = self.plan.lowering.fallbacks

    def _check_sizes(self, batch: int, spec: LinearSpec | None) -> None:
        options = self.options
        if options.batch is not None and batch != options.batch:
            raise InputError(f"compiled for batches of {options.batch} regions, but {batch} were given")
        if options.spec_rows is not None and (spec is None or spec.rows != options.spec_rows):
            given = "none" if spec is None else str(spec.rows)
            raise InputError(f"compiled for {options.spec_rows} specification rows, but {given} were given")


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
