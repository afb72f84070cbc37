"""Runs plans that are lowered to Relax: a function per task, whose results are copied into the arena."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from boundflow_core.executors.reference import NumpyBackend
from boundflow_core.executors.steps import Call, StepSession
from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.planner.plan import PlanBundle
from boundflow_tvm.backend import prepared
from boundflow_tvm.backend_relax import Machine, compile_functions
from boundflow_tvm.cache import KernelCounts
from boundflow_tvm.relax.regions import Region, regions_of, write_region
from boundflow_tvm.session import aligned

__all__ = ["RelaxSession"]

_COMPILED: WeakKeyDictionary[BoundProgram, Any] = WeakKeyDictionary()
_LOCK = threading.Lock()


class RelaxSession(StepSession):
    """A plan with its functions in a virtual machine. Not for use by two threads at once.

    The machine has memory of its own for what lies between the results of a task, beside the planned arena. Code is
    kept as long as the program, in this process.
    """

    def __init__(self, plan: PlanBundle) -> None:
        self.counts = KernelCounts()
        with np.errstate(all="ignore"):
            super().__init__(plan, NumpyBackend())

    def prepared_kernels(self) -> Mapping[str, int]:
        return asdict(self.counts)

    def _make_tasks(
        self, plan: PlanBundle, bound_ops: Mapping[Op, Op], known: set[Value]
    ) -> dict[str, tuple[Call, ...]]:
        regions, symbols = regions_of(plan, known), plan.program.symbols()
        machine = Machine(self._code(plan.program, regions, symbols)) if regions else None
        tasks: dict[str, tuple[Call, ...]] = {task.name: () for task in plan.graph.topo_sort()}
        sizes = Machine.sizes([plan.sizes[symbol] for symbol in symbols])
        for number, (name, region) in enumerate(regions.items()):
            assert machine is not None
            tasks[name] = (self._call(region, machine.function(f"task_{number}"), sizes),)
        return tasks

    def _code(self, program: BoundProgram, regions: Mapping[str, Region], symbols: tuple[str, ...]) -> Any:
        with _LOCK:
            if program not in _COMPILED:
                self.counts.compiled += 1

                def write(r: Any, builder: Any) -> None:
                    for number, region in enumerate(regions.values()):
                        write_region(r, builder, f"task_{number}", region, symbols)

                _COMPILED[program] = compile_functions(write)
            else:
                self.counts.hits += 1
            return _COMPILED[program]

    def _call(self, region: Region, function: Any, sizes: Any) -> Call:
        live = {slot for slot, _, _ in self._live}
        slots = [self._number[value] for value in region.parameters]
        fixed = {slot: self._tensor(slot) for slot in slots if slot not in live}
        targets = [np.asarray(self._slots[self._number[value]]) for value in region.outputs]

        def call() -> None:
            results = function(*(fixed[s] if s in fixed else self._tensor(s) for s in slots), sizes)
            for target, result in zip(targets, results, strict=True):
                np.copyto(target, np.from_dlpack(result))

        return call

    def _tensor(self, slot: int) -> Any:
        """What lies in a slot, where compiled code may read it: weights are copied, if they must be."""
        return prepared(aligned(np.asarray(self._slots[slot])))

    @contextmanager
    def running(self) -> Iterator[None]:
        with np.errstate(all="ignore"):
            yield
