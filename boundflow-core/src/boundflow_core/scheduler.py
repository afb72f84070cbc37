"""Runs a plan: its tasks in topological order, but for those whose results are known from earlier calls."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from boundflow_core.cache import BoundCache, CacheKey, digest, fingerprint
from boundflow_core.ir.constants import as_numpy
from boundflow_core.ir.program import Value
from boundflow_core.planner.cacheplan import Stage
from boundflow_core.planner.partition import WEIGHTS
from boundflow_core.planner.plan import PlanBundle

__all__ = ["RunCounts", "Schedule", "Session"]

# Groups of inputs that have a field of their own in the key; all others count as split state.
_KEY_FIELDS = ("region", "spec", WEIGHTS)

_log = logging.getLogger(__name__)

KeyParts = Callable[[CacheKey], Iterable[str]]
Kept = Mapping[Value, Any]


class Session(Protocol):
    """A plan that an executor has prepared, see :class:`boundflow_core.executors.steps.StepSession`."""

    def prepared_kernels(self) -> Mapping[str, int]: ...

    def running(self) -> AbstractContextManager[None]: ...

    def start(self, inputs: Mapping[str, Any]) -> None: ...

    def renew(self, inputs: Mapping[str, Any]) -> None: ...

    def carrier(self, moves: Sequence[tuple[Value, Value]]) -> Callable[[], None]: ...

    def run_tasks(self, names: tuple[str, ...]) -> None: ...

    def read(self, value: Value) -> Any: ...

    def write(self, value: Value, array: Any) -> None: ...

    def results(self) -> dict[str, Any]: ...


@dataclass
class RunCounts:
    """What the runs of a schedule came to.

    Attributes:
        tasks_run, tasks_skipped: tasks that ran, and those whose results were known or that nobody needed.
        cache_hits, cache_misses: look-ups of stages. What only a stage that is known would read is not looked up.
    """

    tasks_run: int = 0
    tasks_skipped: int = 0
    cache_hits: int = 0
    cache_misses: int = 0

    def add(self, other: RunCounts) -> None:
        """Adds the counts of ``other`` to these."""
        self.tasks_run += other.tasks_run
        self.tasks_skipped += other.tasks_skipped
        self.cache_hits += other.cache_hits
        self.cache_misses += other.cache_misses


@dataclass
class Schedule:
    """A plan with the session that runs it. May be used by many threads, which take turns.

    Attributes:
        cache: where results are kept; None to run everything always.
        key_parts: further parts of the key, from plugins.
        fingerprint: of the program, where it is known already.
        tracks: what loops prepare once (see :class:`boundflow_core.loop.Track`), by what they carry.
    """

    plan: PlanBundle
    session: Session
    method: str
    cache: BoundCache | None = None
    key_parts: tuple[KeyParts, ...] = ()
    device: str = "cpu"
    fingerprint: str = ""
    _bases: tuple[tuple[Stage, CacheKey], ...] = field(default=(), init=False, repr=False)
    tracks: dict[tuple[tuple[str, str], ...], Any] = field(default_factory=dict, init=False, repr=False)
    _tasks: tuple[str, ...] = field(default=(), init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.plan.shared is not None:
            self._lock = self.plan.shared.lock
        self._tasks = tuple(name for stage in self.plan.cache.stages for name in stage.tasks)
        if self.cache is not None:
            program = self.fingerprint or fingerprint(self.plan.program)
            self._bases = tuple((stage, self._base_key(stage, program)) for stage in self.plan.cache.stages)

    def run(self, inputs: Mapping[str, Any], counts: RunCounts) -> dict[str, Any]:
        """The program's results, which the caller owns."""
        if self.cache is None:
            with self._lock, self.session.running():
                return self._run_all(inputs, counts)
        keys = self._keys(inputs)
        if keys is None:
            with self._lock, self.session.running():
                return self._run_all(inputs, counts)
        known = self._known(self.cache, keys, counts)
        tasks = sum(len(stage.tasks) for stage in self.plan.cache.stages if stage.name in known.missing)
        counts.tasks_run += tasks
        counts.tasks_skipped += sum(len(stage.tasks) for stage in self.plan.cache.stages) - tasks
        if all(value in known.values for value in self.plan.program.outputs.values()):
            return {name: _copy(known.values[value]) for name, value in self.plan.program.outputs.items()}
        with self._lock, self.session.running():
            return self._run_missing(inputs, self.cache, keys, known)

    def _run_all(self, inputs: Mapping[str, Any], counts: RunCounts) -> dict[str, Any]:
        self.session.start(inputs)
        self.run_tasks(self._tasks)
        counts.tasks_run += len(self._tasks)
        return self.session.results()

    def run_tasks(self, names: tuple[str, ...]) -> None:
        """Runs tasks, whole stages of them, in a session that has begun."""
        self.session.run_tasks(names)

    def _run_missing(
        self, inputs: Mapping[str, Any], cache: BoundCache, keys: Mapping[str, CacheKey], known: _Known
    ) -> dict[str, Any]:
        """Runs the stages that are needed and not known, with what is known put in its place when its turn comes."""
        self.session.start(inputs)
        for stage in self.plan.cache.stages:
            if stage.name in known.missing:
                self.run_tasks(stage.tasks)
                if stage.cached:
                    arrays = [self.session.read(value) for value in stage.keeps]
                    cache.put(keys[stage.name], arrays, sum(int(array.nbytes) for array in arrays))
            else:
                for value in stage.keeps:
                    if value in known.values and self.plan.storage.views[value].base is value:
                        self.session.write(value, known.values[value])
        return {
            name: _copy(known.values[value]) if value in known.values else self.session.read(value)
            for name, value in self.plan.program.outputs.items()
        }

    def _known(self, cache: BoundCache, keys: Mapping[str, CacheKey], counts: RunCounts) -> _Known:
        """Looks up what the results need, from the last stage backwards."""
        known = _Known()
        needed: set[str] = set()
        results = set(self.plan.program.outputs.values())
        for stage in reversed(self.plan.cache.stages):
            if stage.name not in needed and not results.intersection(stage.keeps):
                continue
            kept: Sequence[Any] | None = cache.get(keys[stage.name]) if stage.cached else None
            if kept is not None:
                counts.cache_hits += 1
                known.values.update(zip(stage.keeps, kept, strict=True))
                continue
            counts.cache_misses += stage.cached
            known.missing.add(stage.name)
            needed.update(stage.sources)
        return known

    # -- keys ---------------------------------------------------------------------------------------------------------

    def _base_key(self, stage: Stage, program: str) -> CacheKey:
        """The part of a stage's key that is the same for all calls."""
        sizes = ",".join(f"{symbol}={self.plan.sizes[symbol]}" for symbol in stage.symbols)
        kinds = ",".join(f"{value.type.dtype}" for value in stage.keeps)
        layout = f"{kinds};{sizes};{self.plan.executor};{self.plan.lowering.asked or ''};{self.device}"
        return CacheKey(program=program, stage=stage.name, method=self.method, layout=layout)

    def _keys(self, inputs: Mapping[str, Any]) -> dict[str, CacheKey] | None:
        """Key by stage; None where a plugin could not say what it adds."""
        members: dict[str, dict[str, Any]] = {}
        for name, array in inputs.items():
            members.setdefault(self.plan.program.groups.get(name, name), {})[name] = array
        digests = {group: digest(arrays) for group, arrays in members.items()}
        digests[WEIGHTS] = digests.get(WEIGHTS, "") + self._weights()
        keys = {}
        for stage, base in self._bases:
            if not stage.cached:
                continue
            parts: dict[str, str] = {}
            for name in sorted(stage.depends):
                field_name = name if name in _KEY_FIELDS else "split"
                parts[field_name] = parts.get(field_name, "") + f"{name}:{digests[name]};"
            key = replace(base, **parts)  # type: ignore[arg-type]
            if self.key_parts:
                try:
                    key = replace(key, extra=tuple(str(part) for source in self.key_parts for part in source(key)))
                except Exception:
                    _log.exception("a plugin's part of a key raised; this call is computed without the cache")
                    return None
            keys[stage.name] = key
        return keys

    def _weights(self) -> str:
        """Digest of the weights as they are now: writes that no version counter saw are seen too."""
        live = [constant for constant in self.plan.program.constants.values() if constant.is_live]
        return digest({str(number): as_numpy(constant.data) for number, constant in enumerate(live)})


@dataclass
class _Known:
    """What a call found in the cache: kept values, and names of the stages that have to run."""

    values: dict[Value, Any] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)


def _copy(array: Any) -> Any:
    """A copy of a kept array, so that callers may write to theirs."""
    return array.clone() if hasattr(array, "clone") else array.copy()
