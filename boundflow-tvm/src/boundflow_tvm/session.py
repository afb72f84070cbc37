"""Executor ``tvm``: runs of compiled kernels on the planned arena, with products of large matrices by BLAS between."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from boundflow_core.executors.reference import NumpyBackend
from boundflow_core.executors.steps import Call, StepSession
from boundflow_core.ir.constants import Constant, as_numpy
from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.planner.cost import known_values
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.planner.storage import ALIGNMENT, MemoryTraits
from boundflow_tvm import blas
from boundflow_tvm.backend import prepared
from boundflow_tvm.cache import KERNELS, KernelCounts, cache_folder
from boundflow_tvm.kernels import kernel_of
from boundflow_tvm.strategies import WRITES
from boundflow_tvm.templates import Input, Kernel, Output, Packed, Scratch
from boundflow_tvm.unit import COPIES, ENTRY, Launch, Unit

__all__ = ["TRAITS", "TvmSession", "open_session", "unit_of"]

Array = NDArray[Any]

# Every kernel writes into the arena, reads arrays in order only (what moves data is part of kernels), and never onto
# an operand.
TRAITS = MemoryTraits(into=WRITES, strided=False, inplace=False)


def open_session(plan: PlanBundle, device: Any = None) -> TvmSession:
    """``plan`` ready to run; arrays of any kind on the CPU come in, NumPy arrays go out."""
    with np.errstate(all="ignore"):
        return TvmSession(plan)


@dataclass
class _Prepared:
    """What all sessions of one program share: its unit, and arrays of weights laid out for the kernels."""

    unit: Unit
    weights: dict[Value, Array] = field(default_factory=dict)
    packed: dict[tuple[Any, ...], Array] = field(default_factory=dict)


_PREPARED: WeakKeyDictionary[BoundProgram, _Prepared] = WeakKeyDictionary()
_LOCK = threading.Lock()


class TvmSession(StepSession):
    """A plan with its compiled kernels and its memory. Not for use by two threads at once."""

    def __init__(self, plan: PlanBundle) -> None:
        self.counts = KernelCounts()
        self._scratch: dict[tuple[str, str, int], Array] = {}
        self._kept: list[Any] = []
        super().__init__(plan, _Backend())

    def prepared_kernels(self) -> Mapping[str, int]:
        return asdict(self.counts)

    def _load_constants(self, plan: PlanBundle, bound_ops: Mapping[Op, Op]) -> set[Value]:
        known = super()._load_constants(plan, bound_ops)
        for slot, constant, value in self._live:
            # Kernels know addresses: weights that may change are copied to the same place for each run.
            self._slots[slot] = aligned(np.asarray(self._backend.load(constant, value)))
        return known

    def _make_tasks(
        self, plan: PlanBundle, bound_ops: Mapping[Op, Op], known: set[Value]
    ) -> dict[str, tuple[Call, ...]]:
        runs = _Runs(plan, known)
        with _LOCK:
            shared = _PREPARED.get(plan.program)
            if shared is None:
                shared = _PREPARED[plan.program] = _Prepared(runs.unit)
        folder = cache_folder()
        make = partial(shared.unit.compile, partial(KERNELS.part, folder=folder))
        functions = KERNELS.get(shared.unit.key, make, self.counts, folder)
        entry = self._entry = functions(ENTRY)
        numbers = self._numbers = aligned(np.array([plan.sizes[s] for s in shared.unit.symbols] or [0], dtype=np.int64))
        tasks: dict[str, tuple[Call, ...]] = {}
        for name, items in runs.tasks.items():
            calls: list[Call] = []
            for item in items:
                if isinstance(item, Op):
                    calls.append(blas.product(bound_ops[item], *(self._array(shared, v) for v in self._operands(item))))
                    continue
                addresses = self._addresses(shared, runs.operands[item])
                arguments = (prepared(addresses), prepared(numbers))
                self._kept += [addresses, numbers]
                calls.append(partial(entry, *arguments, item))
            tasks[name] = tuple(calls)
        return tasks

    def _operands(self, op: Op) -> tuple[Value, ...]:
        return (*op.inputs, *op.outputs)

    def _addresses(self, shared: _Prepared, operands: Sequence[_Slot]) -> Array:
        found = []
        for slot in operands:
            array = self._operand(shared, slot)
            self._kept.append(array)
            found.append(array.ctypes.data)
        return aligned(np.array(found or [0], dtype=np.int64))

    def _operand(self, shared: _Prepared, slot: _Slot) -> Array:
        if isinstance(slot, Value):
            return self._array(shared, slot)
        kernel, number, values = slot
        operand = kernel.operands[number]
        if isinstance(operand, Scratch):
            key = (kernel.name, kernel.key, number)
            if key not in self._scratch:
                self._scratch[key] = aligned(np.zeros(operand.shape, operand.dtype))
            return self._scratch[key]
        assert isinstance(operand, Packed)
        identity = (operand.name, values)
        with _LOCK:
            if identity not in shared.packed:
                arrays = [np.asarray(self._slots[self._number[value]]) for value in values]
                shared.packed[identity] = aligned(np.asarray(operand.pack(*arrays)))
            return shared.packed[identity]

    def _array(self, shared: _Prepared, value: Value) -> Array:
        """Where ``value`` lies; weights are laid in order and aligned, once for all sizes where these do not matter."""
        array = np.asarray(self._slots[self._number[value]])
        if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0:
            return array
        if any(not isinstance(dim, int) for dim in value.shape):
            return aligned(array)
        with _LOCK:
            return shared.weights.setdefault(value, aligned(array))

    def start(self, inputs: Mapping[str, Any]) -> None:
        slots = self._slots
        for name, (_, slot) in self._inputs.items():
            slots[slot][...] = as_numpy(inputs[name])
        for slot, constant, value in self._live:
            slots[slot][...] = self._backend.load(constant, value)

    def renew(self, inputs: Mapping[str, Any]) -> None:
        for name, array in inputs.items():
            self._slots[self._inputs[name][1]][...] = as_numpy(array)

    def _copies(self, pairs: Sequence[tuple[Any, Any]]) -> Call:
        if any(not array.flags.c_contiguous for pair in pairs for array in pair):
            return super()._copies(pairs)
        table = [number for to, source in pairs for number in (to.ctypes.data, source.ctypes.data, to.nbytes)]
        self._kept.append(pairs)
        addresses = prepared(aligned(np.array(table, dtype=np.int64)))
        return partial(self._entry, addresses, prepared(self._numbers), COPIES)


class _Backend(NumpyBackend):
    def load(self, constant: Constant, value: Value) -> Any:
        return np.asarray(constant.numpy(), dtype=value.type.dtype.numpy)


def unit_of(plan: PlanBundle) -> Unit:
    """What would be compiled for ``plan``."""
    return _Runs(plan, known_values(plan.program)).unit


_Slot = Value | tuple[Kernel, int, tuple[Value, ...]]


class _Runs:
    """The operations of a plan in the order of its tasks, as runs of launches and single library calls.

    Attributes:
        unit: all runs.
        operands: per run, what its table of addresses holds.
        tasks: per task, numbers of runs and operations that a library runs.
    """

    def __init__(self, plan: PlanBundle, known: set[Value]) -> None:
        strategy = {entry.op: entry.lowering.strategy for part in plan.lowering.entries.values() for entry in part}
        self.operands: list[list[_Slot]] = []
        self.tasks: dict[str, list[int | Op]] = {}
        launches: list[list[Launch]] = []
        for task in plan.graph.topo_sort():
            items: list[int | Op] = []
            for op in task.ops:
                if op.outputs[0] in known or self._is_view(plan, op):
                    continue
                if strategy.get(op) == blas.NAME:
                    items.append(op)
                    continue
                if not items or isinstance(items[-1], Op):
                    items.append(len(launches))
                    launches.append([])
                    self.operands.append([])
                launches[-1].append(self._launch(op, known, self.operands[-1]))
            self.tasks[task.name] = items
        self.unit = Unit(tuple(map(tuple, launches)), plan.program.symbols())

    def _is_view(self, plan: PlanBundle, op: Op) -> bool:
        (first, *_), views = op.outputs, plan.storage.views
        return views[first].base is not first

    def _launch(self, op: Op, known: set[Value], operands: list[_Slot]) -> Launch:
        kernel = kernel_of(op, [value in known for value in op.inputs])
        assert kernel is not None, f"{op.name} has no kernel"
        slots, shapes = [], []
        for number, operand in enumerate(kernel.operands):
            slot: _Slot
            if isinstance(operand, Input):
                slot = op.inputs[operand.number]
            elif isinstance(operand, Output):
                slot = op.outputs[operand.number]
            elif isinstance(operand, Packed):
                slot = (kernel, number, tuple(op.inputs[i] for i in operand.inputs))
            else:
                slot = (kernel, number, ())
            if slot not in operands:
                operands.append(slot)
            slots.append(operands.index(slot))
            shapes.append(slot.shape if isinstance(slot, Value) else ())
        return Launch(kernel, tuple(slots), tuple(shapes))


def aligned(array: Array) -> Array:
    """``array`` in order, at an address that compiled code may rely on; itself if it lies so.

    Not an empty one: NumPy may give it strides of 0, which compiled code takes for another order.
    """
    if array.size and array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0 and array.flags.writeable:
        return array
    memory = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
