"""A program planned once and run for any sizes: the building block of every method."""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from boundflow_core.arrays import concatenate, device_of
from boundflow_core.cache import BoundCache, fingerprint
from boundflow_core.errors import InputError, MemoryLimitError
from boundflow_core.extension import Executor, Pass
from boundflow_core.ir.evaluate import bind_symbols
from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.ir.types import SymDim, concrete_shape
from boundflow_core.loop import Loop, PinnedLoop, PlainLoop, Track, check_loop
from boundflow_core.memory import chunk_sizes
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.planner.shared import SharedMemory
from boundflow_core.rounding import outward_program
from boundflow_core.scheduler import KeyParts, RunCounts, Schedule

__all__ = ["Planning", "ProgramRunner", "RunStats"]

# Prepared sizes hold memory; of more than this many, the least recently used are let go.
MAX_PREPARED = 16


@dataclass
class RunStats(RunCounts):
    """What a compiled object has done so far.

    Attributes:
        calls: number of calls.
        chunks: number of program runs, of which a call under a memory limit takes several.
        plans: how often something was planned: once per program, whatever the sizes.
        compile_seconds: wall-clock time spent on writing programs, planning and preparing.
        executor: name of the executor that runs.
        executor_reason: why it: what it and others would take by estimate, where it was not asked for.
        lowering: operations per strategy, of all plans so far.
        fallbacks: operations that could not run as written, by reason, of all plans so far.
        kernels: what preparing runs took of compiled code ("compiled", "loaded" from disk, "hits" in the process...),
            of executors that compile.
    """

    calls: int = 0
    chunks: int = 0
    plans: int = 0
    compile_seconds: float = 0.0
    executor: str = ""
    executor_reason: str = ""
    lowering: dict[str, int] = field(default_factory=dict)
    fallbacks: dict[str, int] = field(default_factory=dict)
    kernels: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Planning:
    """How programs are planned and run.

    Attributes:
        executor: who runs.
        passes: planner passes.
        method: name of the method, for cache keys.
        cache: where results are kept between calls; None: nowhere.
        key_parts: what plugins add to cache keys.
        memory_limit: bytes that the planned peak must not exceed; None: no limit.
        differentiable: keep what gradients need.
        reuse: whether values share memory.
        one_task: plan each program as one task.
        lowering: the executor's strategy that runs all that it supports; None: the best for each operation.
        outward: whether each program's bounds are moved outwards by what rounding may have done to them. Results of one
            program that another one takes as inputs count as exact there.
        shared: memory that all plans lie in which are not for loops; they run in turn. None: each has its own.
    """

    executor: Executor
    passes: tuple[Pass, ...] = ()
    method: str = ""
    cache: BoundCache | None = None
    key_parts: tuple[KeyParts, ...] = ()
    memory_limit: int | None = None
    differentiable: bool = False
    reuse: bool = True
    one_task: bool = False
    lowering: str | None = None
    outward: bool = False
    shared: SharedMemory | None = None


class ProgramRunner:
    """``runner(inputs) -> outputs``: a program, planned, for inputs of any sizes.

    It is written and planned when it is first needed: a method has programs for cases that may never come.

    Args:
        write: writes the program.
        cuts: symbols along which a run may be cut into chunks, see :func:`boundflow_core.memory.chunk_sizes`.
        varying: groups of inputs that change from step to step of a :meth:`loop`.
    """

    def __init__(
        self,
        write: Callable[[], BoundProgram],
        planning: Planning,
        stats: RunStats,
        cuts: Sequence[str] = ("B", "S"),
        varying: Collection[str] = (),
    ) -> None:
        self._varying = frozenset(varying)
        self._writer, self._planning, self._stats, self._cuts = write, planning, stats, tuple(cuts)
        self._written: BoundProgram | None = None  # not planned yet
        self._planned: PlanBundle | None = None
        self._latest: PlanBundle | None = None
        self._schedules: OrderedDict[tuple[Any, ...], Schedule] = OrderedDict()
        self._fingerprint = ""
        self._fitting: dict[tuple[Any, ...], int] = {}
        self._checked: tuple[dict[str, tuple[int, ...]], dict[str, int]] = ({}, {})
        self._looped: tuple[Mapping[str, tuple[int, ...]], Mapping[str, str], dict[str, int]] | None = None
        self._lock = threading.RLock()

    @property
    def _template(self) -> PlanBundle:
        """The plan for any sizes."""
        if self._planned is None:
            with self._lock:
                if self._planned is None:
                    self._planned = self._make_plan()
        return self._planned

    def _make_plan(self) -> PlanBundle:
        planning, stats = self._planning, self._stats
        program, self._written = self.write(), None
        started = time.perf_counter()
        plan = make_plan(
            program,
            planning.executor,
            planning.passes,
            differentiable=planning.differentiable,
            reuse=planning.reuse,
            one_task=planning.one_task,
            varying=self._varying,
            lowering=planning.lowering,
            analysis=outward_program if planning.outward else None,
        )
        for table, counts in ((stats.lowering, plan.lowering.counts), (stats.fallbacks, plan.lowering.fallbacks)):
            for name, count in counts.items():
                table[name] = table.get(name, 0) + count
        stats.plans += 1
        stats.compile_seconds += time.perf_counter() - started
        return plan

    def write(self) -> BoundProgram:
        """The program as the method writes it, before it is planned: whatever is wrong with it shows here.

        Raises:
            BoundFlowError: as the rules that write it say.
        """
        with self._lock:
            if self._written is not None:
                return self._written
            started = time.perf_counter()
            program = self._writer()
            if self._planned is None:
                self._written = program
            self._stats.compile_seconds += time.perf_counter() - started
            return program

    @property
    def program(self) -> BoundProgram:
        """The program as it runs, of symbolic shapes."""
        return self._template.program

    @property
    def plan(self) -> PlanBundle:
        """The plan of the latest run, before the first one of sizes 1."""
        return self._latest if self._latest is not None else self.bind({})

    def bind(self, sizes: Mapping[str, int]) -> PlanBundle:
        """The plan for these sizes; symbols without one are 1."""
        symbols = self._template.program.symbols()
        self._latest = bind_plan(self._template, {symbol: sizes.get(symbol, 1) for symbol in symbols})
        return self._latest

    def chunk(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The sizes of one chunk under the memory limit.

        Raises:
            MemoryLimitError: the smallest chunk does not fit.
        """
        limit = self._planning.memory_limit
        return dict(sizes) if limit is None else chunk_sizes(self._template, sizes, limit, self._cuts)

    def fitting(self, symbol: str, sizes: Mapping[str, int], limit: int) -> int:
        """The largest size of ``symbol``, from 1 to 65536, with which the planned peak fits into ``limit`` bytes."""
        key = (symbol, tuple(sorted(sizes.items())), limit)
        if key not in self._fitting:
            known = {name: sizes.get(name, 1) for name in self._template.program.symbols()}
            try:
                chosen = chunk_sizes(self._template, {**known, symbol: 1 << 16}, limit, (symbol,))
            except MemoryLimitError:
                chosen = {symbol: 1}
            self._fitting[key] = chosen[symbol]
        return self._fitting[key]

    def peak_bytes(self, sizes: Mapping[str, int]) -> int:
        """The planned peak of a run of these sizes."""
        key = ("", tuple(sorted(sizes.items())), 0)
        if key not in self._fitting:
            self._fitting[key] = bind_plan(self._template, sizes).storage.peak_bytes
        return self._fitting[key]

    def __call__(self, inputs: Mapping[str, Any], progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
        """Runs the program, in chunks where there is a memory limit; gives arrays that the caller owns.

        Raises:
            InputError: shapes that do not fit.
            MemoryLimitError: the smallest chunk does not fit.
        """
        program = self._template.program
        sizes = self._sizes(program, inputs)
        device = device_of(next(iter(inputs.values())))
        symbols = []
        if self._planning.memory_limit is not None:
            chunk = self.chunk(sizes)
            symbols = [symbol for symbol in sizes if chunk[symbol] < sizes[symbol]]
        if not symbols:
            whole = self._run(inputs, sizes, device)
            if progress is not None:
                progress(1, 1)
            return whole
        pieces = list(_pieces(symbols, sizes, chunk))
        results = []
        for number, piece in enumerate(pieces, 1):
            part = {value.name: _cut(inputs[value.name], value, piece) for value in program.inputs}
            extents = {**sizes, **{symbol: span.stop - span.start for symbol, span in piece.items()}}
            results.append(self._run(part, extents, device))
            if progress is not None:
                progress(number, len(pieces))
        return {
            name: _joined([r[name] for r in results], value, symbols, pieces) for name, value in program.outputs.items()
        }

    def loop(self, inputs: Mapping[str, Any], carried: Mapping[str, str]) -> Loop:
        """Steps in which most inputs stay the same: what depends on these alone runs once.

        Under a memory limit that a whole run does not fit into, and where gradients are recorded, steps are calls.

        Args:
            inputs: those that stay, of the groups that are not ``varying``, and the first of those that are carried.
            carried: the input that each of these results becomes in the next step.

        Raises:
            InputError: inputs are missing, of wrong shapes, or cannot be carried.
            MemoryLimitError: the smallest chunk does not fit.
        """
        program, planning = self._template.program, self._planning
        sizes = self._loop_sizes(program, inputs, carried)
        # Between steps nobody else may write to the memory of a loop.
        shares = planning.shared is not None and not self._varying
        if shares or planning.differentiable or planning.one_task or self.chunk(sizes) != sizes:
            return PlainLoop(program, self._varying, self, inputs, carried)
        device = device_of(next(iter(inputs.values())))
        with self._lock:  # while the loop lasts, its session is its own
            schedule = self._schedule(sizes, device)
            key = next(key for key in reversed(self._schedules) if self._schedules[key] is schedule)
            del self._schedules[key]
        wanted = tuple(carried.items())
        if wanted not in schedule.tracks:
            schedule.tracks[wanted] = Track(schedule, carried)

        def report(counts: RunCounts) -> None:
            with self._lock:
                self._latest = schedule.plan
                self._stats.chunks += 1
                self._stats.add(counts)

        def release() -> None:
            with self._lock:
                self._schedules.setdefault(key, schedule)

        return PinnedLoop(schedule.tracks[wanted], inputs, report, release)

    def _loop_sizes(
        self, program: BoundProgram, inputs: Mapping[str, Any], carried: Mapping[str, str]
    ) -> dict[str, int]:
        """The sizes of a loop that begins with ``inputs``; the latest shapes are not checked again."""
        shapes = {name: tuple(array.shape) for name, array in inputs.items()}
        looped = self._looped
        if looped is None or (shapes, carried) != looped[:2]:
            check_loop(program, self._varying, inputs, carried)
            some = replace(program, inputs=tuple(v for v in program.inputs if v.name in shapes))
            known = bind_symbols(some, shapes)
            if unknown := set(program.symbols()) - set(known):
                raise InputError(f"what a loop of {program.name} begins with does not tell the sizes {sorted(unknown)}")
            sizes = bind_symbols(program, {v.name: concrete_shape(v.shape, known) for v in program.inputs})
            self._looped = looped = (shapes, dict(carried), sizes)
        return looped[2]

    def _sizes(self, program: BoundProgram, inputs: Mapping[str, Any]) -> dict[str, int]:
        """The sizes that the inputs have; the latest shapes are not checked again."""
        shapes = {name: array.shape for name, array in inputs.items()}
        latest, sizes = self._checked
        if shapes != latest:
            sizes = bind_symbols(program, shapes)
            self._checked = (shapes, sizes)
        return sizes

    def _run(self, inputs: Mapping[str, Any], sizes: Mapping[str, int], device: str) -> dict[str, Any]:
        counts = RunCounts()
        schedule = self._schedule(sizes, device)
        results = schedule.run(inputs, counts)
        with self._lock:
            self._latest = schedule.plan
            self._stats.chunks += 1
            self._stats.add(counts)
        return results

    def _schedule(self, sizes: Mapping[str, int], device: str) -> Schedule:
        key = (device, tuple(sizes.values()))
        with self._lock:
            if key not in self._schedules:
                started = time.perf_counter()
                plan, planning = bind_plan(self._template, sizes), self._planning
                self._make_room(plan)
                cache = None if planning.differentiable else planning.cache
                if cache is not None and not self._fingerprint:
                    self._fingerprint = fingerprint(plan.program)
                if planning.shared is not None and not self._varying:
                    plan = replace(plan, shared=planning.shared.on(planning.executor.name, device))
                session = planning.executor.open(plan, None if device == "cpu" else device)
                for name, count in session.prepared_kernels().items():
                    self._stats.kernels[name] = self._stats.kernels.get(name, 0) + count
                self._schedules[key] = Schedule(
                    plan,
                    session,
                    planning.method,
                    cache,
                    planning.key_parts,
                    device,
                    self._fingerprint,
                )
                self._stats.compile_seconds += time.perf_counter() - started
            self._schedules.move_to_end(key)
            return self._schedules[key]

    def _make_room(self, plan: PlanBundle) -> None:
        """Lets go of what was prepared for other sizes, so that not all of their memory is held at once."""
        limit = self._planning.memory_limit
        while self._schedules:
            held = sum(schedule.plan.storage.peak_bytes for schedule in self._schedules.values())
            if len(self._schedules) < MAX_PREPARED and (limit is None or held + plan.storage.peak_bytes <= limit):
                break
            self._schedules.popitem(last=False)


def _pieces(symbols: Sequence[str], sizes: Mapping[str, int], chunk: Mapping[str, int]) -> Iterator[dict[str, slice]]:
    """All combinations of spans of the symbols that are cut, the last symbol fastest."""
    spans = [[slice(at, min(at + chunk[s], sizes[s])) for at in range(0, sizes[s], chunk[s])] for s in symbols]
    for combination in itertools.product(*spans):
        yield dict(zip(symbols, combination, strict=True))


def _axis(value: Value, symbol: str) -> int | None:
    """The axis of ``value`` that counts ``symbol``."""
    return next((axis for axis, dim in enumerate(value.shape) if dim == SymDim.of(symbol)), None)


def _cut(array: Any, value: Value, piece: Mapping[str, slice]) -> Any:
    index: list[Any] = [slice(None)] * value.rank
    for symbol, span in piece.items():
        if (axis := _axis(value, symbol)) is not None:
            index[axis] = span
    return array[tuple(index)]


def _joined(parts: list[Any], value: Value, symbols: Sequence[str], pieces: Sequence[Mapping[str, slice]]) -> Any:
    """The results of all pieces put together, the innermost symbol first."""
    for symbol in reversed(symbols):
        axis = _axis(value, symbol)
        count = len({piece[symbol].start for piece in pieces})
        groups = [parts[at : at + count] for at in range(0, len(parts), count)]
        parts = [group[0] if axis is None else concatenate(group, axis) for group in groups]
    return parts[0]
