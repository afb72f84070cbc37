"""What executors that run operation by operation share: flat lists of bound calls on preallocated buffers.

An executor brings a :class:`Backend`: how it allocates, views, loads, and which kernel runs an operation. From that and a
plan, :class:`StepSession` prepares everything once; a run is then nothing but the calls, one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from boundflow_core.errors import IRError
from boundflow_core.ir.constants import Constant
from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.ir.types import concrete_dim, concrete_shape
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.planner.storage import last_uses

__all__ = ["Backend", "Kernel", "StepSession"]

Kernel = Callable[..., Any]
Slots = list[Any]
Call = Callable[[Slots], None]


class Backend(Protocol):
    """The array library of an executor. Arrays lie on one device."""

    def allocate(self, count: int) -> Any:
        """One piece of memory of ``count`` bytes, aligned for every element type."""

    def view(
        self, memory: Any, start: int, value: Value, shape: Sequence[int], strides: Sequence[int], offset: int
    ) -> Any:
        """An array of ``value``'s element type in ``memory``: bytes from ``start`` on, strides and offset in elements."""

    def load(self, constant: Constant, value: Value) -> Any:
        """A constant as an array of the value's type."""

    def convert(self, array: Any, value: Value) -> Any:
        """A caller's array in the value's type, on the device; may share memory with it."""

    def copy(self, target: Any, source: Any) -> None:
        """Writes ``source`` into ``target``."""

    def clone(self, array: Any) -> Any:
        """A contiguous copy that the caller owns."""

    def kernel(self, op: Op) -> Kernel:
        """``kernel(*inputs, out=None) -> output`` of a primitive; it writes into ``out`` where the executor's traits say
        so, and otherwise never gets one."""


@dataclass(frozen=True)
class _Steps:
    """The calls of one task."""

    calls: tuple[Call, ...]


class StepSession:
    """A plan ready to run on one backend, holding its memory.

    Not for use by two threads at once.
    """

    def __init__(self, plan: PlanBundle, backend: Backend) -> None:
        self._backend = backend
        self.program: BoundProgram = plan.program.bind(plan.sizes)
        # The bound program has values of its own; plan and tasks speak of the symbolic ones.
        pairs = list(zip(_values(plan.program), _values(self.program), strict=True))
        self._concrete: dict[Value, Value] = dict(pairs)
        self._number = {value: slot for slot, (value, _) in enumerate(pairs)}
        self._slots: Slots = [None] * len(pairs)
        self._live: list[tuple[int, Constant, Value]] = []
        self._place(plan)
        known = self._load_constants(plan.program)
        self._tasks = self._make_tasks(plan, known)
        self._results = {name: self._number[value] for name, value in plan.program.outputs.items()}
        self._inputs = [(value, self._number[value]) for value in plan.program.inputs]
        self._planned = not plan.differentiable

    # -- preparation --------------------------------------------------------------------------------------------------

    def _place(self, plan: PlanBundle) -> None:
        """Views of the arena for every value that lies in it."""
        if plan.differentiable:
            return
        storage, sizes = plan.storage, plan.sizes
        self.memory = self._backend.allocate(storage.arena_bytes)
        offsets = storage.offsets
        for value, index in storage.home.items():
            if offsets[index] < 0:
                continue
            seen = storage.views[value]
            self._slots[self._number[value]] = self._backend.view(
                self.memory,
                offsets[index],
                value,
                concrete_shape(value.shape, sizes),
                concrete_shape(seen.strides, sizes),
                concrete_dim(seen.offset, sizes),
            )

    def _load_constants(self, program: BoundProgram) -> set[Value]:
        """Loads frozen constants; gives the values known from here on."""
        known: set[Value] = set()
        for value, constant in program.constants.items():
            if constant.is_live:
                self._live.append((self._number[value], constant, value))
            else:
                self._slots[self._number[value]] = self._backend.load(constant, value)
                known.add(value)
        return known

    def _make_tasks(self, plan: PlanBundle, known: set[Value]) -> dict[str, _Steps]:
        bound_ops = dict(zip(plan.program.ops, self.program.ops, strict=True))
        last = last_uses(plan.program)
        position = {op: index for index, op in enumerate(plan.program.ops)}
        tasks = {}
        read: set[Value] = set(plan.program.outputs.values())
        for task in plan.graph.topo_sort():
            calls: list[Call] = []
            for op in task.ops:
                if len(op.outputs) != 1:
                    raise IRError(f"{op.name} has {len(op.outputs)} outputs; executors by steps take primitives")
                kernel = self._backend.kernel(bound_ops[op])
                sources = [self._number[value] for value in op.inputs]
                target = self._number[op.outputs[0]]
                if all(value in known for value in op.inputs):
                    self._slots[target] = kernel(*[self._slots[slot] for slot in sources])
                    known.add(op.outputs[0])
                    continue
                read.update(op.inputs)
                calls.extend(self._calls(plan, op, kernel, sources, target))
                if not plan.differentiable:
                    calls.extend(self._frees(plan, op, known, last, position[op]))
            tasks[task.name] = _Steps(tuple(calls))
        for value in known - read:
            self._slots[self._number[value]] = None  # used only to compute others beforehand
        return tasks

    def _calls(self, plan: PlanBundle, op: Op, kernel: Kernel, sources: list[int], target: int) -> list[Call]:
        out = op.outputs[0]
        if plan.differentiable:
            return [_allocating(kernel, sources, target)]
        view = plan.storage.views[out]
        buffer = plan.storage.buffers[plan.storage.home[out]]
        if view.base is not out:
            # A view of planned memory was made beforehand; one of a kernel's own result is made when that is there.
            return [] if buffer.planned else [_allocating(kernel, sources, target)]
        return [_into(kernel, sources, target) if buffer.planned else _allocating(kernel, sources, target)]

    def _frees(self, plan: PlanBundle, op: Op, known: set[Value], last: Mapping[Value, int], index: int) -> list[Call]:
        """Lets go of memory that kernels allocated themselves, after its last use."""
        dead = [
            self._number[value]
            for value in dict.fromkeys((*op.inputs, *op.outputs))
            if value not in known
            and value in plan.storage.home
            and not plan.storage.buffers[plan.storage.home[value]].planned
            and last.get(value, index) == index
        ]
        return [_forget(tuple(dead))] if dead else []

    # -- running ------------------------------------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[None]:
        """What must hold while the session is used, from :meth:`start` to :meth:`results`."""
        yield

    def start(self, inputs: Mapping[str, Any]) -> None:
        """Brings the inputs and the weights that may have changed into place."""
        for value, slot in self._inputs:
            array = self._backend.convert(inputs[value.name], value)
            if self._planned:
                self._backend.copy(self._slots[slot], array)
            else:
                self._slots[slot] = array
        for slot, constant, value in self._live:
            self._slots[slot] = self._backend.load(constant, value)

    def run_task(self, name: str) -> None:
        slots = self._slots
        for call in self._tasks[name].calls:
            call(slots)

    def read(self, value: Value) -> Any:
        """A copy of ``value``, after the task that makes it."""
        return self._backend.clone(self._slots[self._number[value]])

    def write(self, value: Value, array: Any) -> None:
        """Puts ``array`` in the place of ``value``, as the task that makes it would have."""
        slot = self._number[value]
        if self._slots[slot] is None:
            self._slots[slot] = array
        else:
            self._backend.copy(self._slots[slot], array)

    def results(self) -> dict[str, Any]:
        """The outputs, as arrays that the caller owns."""
        if not self._planned:
            return {name: self._slots[slot] for name, slot in self._results.items()}
        return {name: self._backend.clone(self._slots[slot]) for name, slot in self._results.items()}


def _values(program: BoundProgram) -> list[Value]:
    return [*program.inputs, *program.constants, *(value for op in program.ops for value in op.outputs)]


# The common arities are spelled out: a call with its arguments in place costs a fraction of one that unpacks a list.


def _into(kernel: Kernel, sources: Sequence[int], target: int) -> Call:
    if len(sources) == 1:
        (a,) = sources

        def call_1(slots: Slots) -> None:
            kernel(slots[a], out=slots[target])

        return call_1
    if len(sources) == 2:
        a, b = sources

        def call_2(slots: Slots) -> None:
            kernel(slots[a], slots[b], out=slots[target])

        return call_2

    def call_n(slots: Slots) -> None:
        kernel(*[slots[slot] for slot in sources], out=slots[target])

    return call_n


def _allocating(kernel: Kernel, sources: Sequence[int], target: int) -> Call:
    def call(slots: Slots) -> None:
        slots[target] = kernel(*[slots[slot] for slot in sources])

    return call


def _forget(dead: tuple[int, ...]) -> Call:
    def call(slots: Slots) -> None:
        for slot in dead:
            slots[slot] = None

    return call
