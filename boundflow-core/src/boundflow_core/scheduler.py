"""Runs a plan: its tasks in topological order, but for those whose results are known from earlier calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
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

KeyParts = Callable[[CacheKey], Sequence[str]]


class Session(Protocol):
    """A plan that an executor has prepared, see :class:`boundflow_core.executors.steps.StepSession`."""

    def running(self) -> AbstractContextManager[None]: ...

    def start(self, inputs: Mapping[str, Any]) -> None: ...

    def run_task(self, name: str) -> None: ...

    def read(self, value: Value) -> Any: ...

    def write(self, value: Value, array: Any) -> None: ...

    def results(self) -> dict[str, Any]: ...


@dataclass
class RunCounts:
    """What the runs of a schedule came to.

    Attributes:
        tasks_run, tasks_skipped: tasks that ran, and those whose results were known.
        cache_hits, cache_misses: look-ups of stages.
    """

    tasks_run: int = 0
    tasks_skipped: int = 0
    cache_hits: int = 0
    cache_misses: int = 0


@dataclass
class Schedule:
    """A plan with the session that runs it.

    Attributes:
        cache: where results are kept; None to run everything always.
        key_parts: further parts of the key, from plugins.
    """

    plan: PlanBundle
    session: Session
    method: str
    cache: BoundCache | None = None
    key_parts: tuple[KeyParts, ...] = ()
    device: str = "cpu"
    _fingerprint: str = field(default="", init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.cache is not None:
            self._fingerprint = fingerprint(self.plan.program)

    def run(self, inputs: Mapping[str, Any], counts: RunCounts) -> dict[str, Any]:
        """The program's results, which the caller owns."""
        with self._lock:
            stages = self.plan.cache.stages
            keys = self._keys(inputs) if self.cache is not None else {}
            known = {stage.name: self._lookup(stage, keys, counts) for stage in stages}
            found = [stage for stage in stages if known[stage.name] is not None]
            counts.tasks_skipped += sum(len(stage.tasks) for stage in found)
            if len(found) == len(stages):
                return self._results(known)
            with self.session.running():
                return self._run(inputs, keys, known, counts)

    def _run(
        self,
        inputs: Mapping[str, Any],
        keys: Mapping[str, CacheKey],
        known: Mapping[str, dict[Value, Any] | None],
        counts: RunCounts,
    ) -> dict[str, Any]:
        """Runs the stages that are not known, between what is."""
        stages = self.plan.cache.stages
        self.session.start(inputs)
        needed = {
            value for stage in stages if known[stage.name] is None for name in stage.tasks
            for value in self.plan.graph[name].inputs
        } | set(self.plan.program.outputs.values())  # fmt: skip
        for stage in stages:
            kept = known[stage.name]
            if kept is None:
                for name in stage.tasks:
                    self.session.run_task(name)
                counts.tasks_run += len(stage.tasks)
                self._store(stage, keys)
            else:
                for value, array in kept.items():
                    if value in needed:
                        self.session.write(value, array)
        return self.session.results()

    def _lookup(
        self, stage: Stage, keys: Mapping[str, CacheKey], counts: RunCounts
    ) -> dict[Value, Any] | None:
        if self.cache is None or not stage.cached:
            return None
        kept: Sequence[Any] | None = self.cache.get(keys[stage.name])
        if kept is None:
            counts.cache_misses += 1
            return None
        counts.cache_hits += 1
        return dict(zip(stage.keeps, kept, strict=True))

    def _store(self, stage: Stage, keys: Mapping[str, CacheKey]) -> None:
        if self.cache is not None and stage.cached:
            arrays = [self.session.read(value) for value in stage.keeps]
            self.cache.put(keys[stage.name], arrays, sum(int(array.nbytes) for array in arrays))

    def _results(self, known: Mapping[str, dict[Value, Any] | None]) -> dict[str, Any]:
        """All stages are known: copies of the results, so that callers may write to theirs."""
        values: dict[Value, Any] = {}
        for kept in known.values():
            values.update(kept or {})
        outputs = self.plan.program.outputs
        return {name: values[v].clone() if hasattr(values[v], "clone") else values[v].copy() for name, v in outputs.items()}

    def _keys(self, inputs: Mapping[str, Any]) -> dict[str, CacheKey]:
        members: dict[str, dict[str, Any]] = {}
        for name, array in inputs.items():
            members.setdefault(self.plan.program.groups.get(name, name), {})[name] = array
        digests = {group: digest(arrays) for group, arrays in members.items()}
        digests[WEIGHTS] = self._weights()
        keys = {}
        for stage in self.plan.cache.stages:
            if not stage.cached:
                continue
            parts: dict[str, str] = {}
            for name in sorted(stage.depends):
                field_name = name if name in _KEY_FIELDS else "split"
                parts[field_name] = parts.get(field_name, "") + f"{name}:{digests[name]};"
            kinds = ",".join(f"{value.type.dtype}" for value in stage.keeps)
            key = CacheKey(
                program=self._fingerprint,
                stage=stage.name,
                method=self.method,
                layout=f"{kinds};{self.plan.executor};{self.device}",
                **parts,
            )
            extra = tuple(part for source in self.key_parts for part in source(key))
            keys[stage.name] = CacheKey(**{**vars(key), "extra": extra}) if extra else key
        return keys

    def _weights(self) -> str:
        """Digest of the weights as they are now: writes that no version counter saw are seen too."""
        live = [constant for constant in self.plan.program.constants.values() if constant.is_live]
        return digest({str(number): as_numpy(constant.data) for number, constant in enumerate(live)})
