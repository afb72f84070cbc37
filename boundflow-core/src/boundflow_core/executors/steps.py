"""What executors that run operation by operation share: flat lists of bound calls on preallocated buffers.

An executor brings a :class:`Backend`: how it allocates, views, loads, and which kernel runs an operation. From that and
a plan, :class:`StepSession` prepares everything once; a run is then nothing but the calls, one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Protocol

from boundflow_core.errors import IRError
from boundflow_core.ir.constants import Constant
from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.ir.types import concrete_dim, concrete_shape
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.planner.storage import StoragePlan

__all__ = ["Backend", "Kernel", "StepSession"]

Kernel = Callable[..., Any]
Slots = list[Any]
Call = Callable[[], Any]

_NOTHING = nullcontext()


class Backend(Protocol):
    """The array library of an executor. Arrays lie on one device."""

    def allocate(self, count: int) -> Any:
        """One piece of memory of ``count`` bytes, aligned for every element type."""

    def view(
        self, memory: Any, start: int, value: Value, shape: Sequence[int], strides: Sequence[int], offset: int
    ) -> Any:
        """An array of ``value``'s type in ``memory``: bytes from ``start`` on, strides and offset in elements."""

    def load(self, constant: Constant, value: Value) -> Any:
        """A constant as an array of the value's type."""

    def convert(self, array: Any, value: Value) -> Any:
        """A caller's array in the value's type, on the device; may share memory with it."""

    def copy(self, target: Any, source: Any) -> None:
        """Writes ``source`` into ``target``."""

    def clone(self, array: Any) -> Any:
        """A contiguous copy that the caller owns."""

    def kernel(self, op: Op, fixed: Mapping[int, Any]) -> Kernel:
        """``kernel(*inputs, out=None) -> output`` of a primitive, whose inputs at these places are always these arrays.

        It writes into ``out`` where the executor's traits say so, and otherwise never gets one.
        """


class StepSession:
    """A plan ready to run on one backend, holding its memory.

    Not for use by two threads at once.
    """

    def __init__(self, plan: PlanBundle, backend: Backend) -> None:
        self._backend = backend
        self._planned, self._storage = not plan.differentiable, plan.storage
        program = plan.program.bind(plan.sizes)
        # The bound program has values of its own; plan and tasks speak of the symbolic ones.
        values, bound_ops = _values(plan.program), dict(zip(plan.program.ops, program.ops, strict=True))
        self._number = {value: slot for slot, value in enumerate(values)}
        self._brought = {
            entry.op: entry.lowering.kernel
            for entries in plan.lowering.entries.values()
            for entry in entries
            if entry.lowering.kernel is not None
        }
        self._slots: Slots = [None] * len(values)
        self._live = [(self._number[v], c, v) for v, c in plan.program.constants.items() if c.is_live]
        self._inputs = {value.name: (value, self._number[value]) for value in plan.program.inputs}
        self._results = {name: self._number[value] for name, value in plan.program.outputs.items()}
        # Values that kernels allocate themselves, and the calls that make the views of each anew.
        self._own: list[int] = []
        self._views: dict[Value, list[Call]] = {}
        if self._planned:
            self._place(plan)
        fixed = self._load_constants(plan, bound_ops)
        self._fixed = {self._number[value] for value in fixed}
        self._tasks = self._make_tasks(plan, bound_ops, fixed)
        self._runs: dict[tuple[str, ...], tuple[Call, ...]] = {}

    # -- preparation --------------------------------------------------------------------------------------------------

    def _place(self, plan: PlanBundle) -> None:
        """Views of the arena for every value that lies in it."""
        storage, sizes = plan.storage, plan.sizes
        allocate, count = self._backend.allocate, storage.arena_bytes
        self.memory = allocate(count) if plan.shared is None else plan.shared.take(count, allocate)
        for value, index in storage.home.items():
            if not storage.buffers[index].planned:
                self._own.append(self._number[value])
                continue
            seen, shape = storage.views[value], concrete_shape(value.shape, sizes)
            # An empty part may begin behind the end of what it is a part of.
            offset = 0 if 0 in shape else concrete_dim(seen.offset, sizes)
            self._slots[self._number[value]] = self._backend.view(
                self.memory,
                storage.offsets[index],
                value,
                shape,
                concrete_shape(seen.strides, sizes),
                offset,
            )

    def _load_constants(self, plan: PlanBundle, bound_ops: Mapping[Op, Op]) -> set[Value]:
        """Loads frozen constants and computes what follows from them alone; gives all values known from here on."""
        program = plan.program
        known = {value for value, constant in program.constants.items() if not constant.is_live}
        for value in known:
            self._slots[self._number[value]] = self._loaded(plan, value)
        read = set(program.outputs.values())
        for op in program.ops:
            if known.issuperset(op.inputs):
                self._slots[self._target(op)] = self._derived(plan, op, bound_ops)
                known.update(op.outputs)
            else:
                read.update(op.inputs)
        for value in known - read:
            self._slots[self._number[value]] = None  # used only to compute others beforehand
        return known

    def _loaded(self, plan: PlanBundle, value: Value) -> Any:
        constant = plan.program.constants[value]
        if plan.shared is None:
            return self._backend.load(constant, value)
        key = (id(constant), value.type.dtype)
        return plan.shared.frozen(key, constant, lambda: self._backend.load(constant, value))

    def _derived(self, plan: PlanBundle, op: Op, bound_ops: Mapping[Op, Op]) -> Any:
        """The result of an operation on arrays that are known from here on."""
        operands = tuple(self._slots[slot] for slot in self._sources(op))
        # What depends on sizes would be kept for each of them.
        if plan.shared is None or op in self._brought or bound_ops[op].attrs is not op.attrs:
            return self._kernel(op, bound_ops, set())(*operands)
        key = (op.name, bound_ops[op].attrs, op.outputs[0].type.dtype, *map(id, operands))
        return plan.shared.frozen(key, operands, lambda: self._kernel(op, bound_ops, set())(*operands))

    def _make_tasks(
        self, plan: PlanBundle, bound_ops: Mapping[Op, Op], known: set[Value]
    ) -> dict[str, tuple[Call, ...]]:
        # What kernels allocate is let go of after the last use of it and of all its views.
        dead: dict[int, list[int]] = {}
        for buffer in plan.storage.buffers:
            if self._planned and not buffer.planned:
                dead.setdefault(buffer.last_use, []).extend(self._number[value] for value in buffer.alias_group)
        position = {op: index for index, op in enumerate(plan.program.ops)}
        tasks = {}
        for task in plan.graph.topo_sort():
            calls: list[Call] = []
            for op in task.ops:
                if op.outputs[0] in known:
                    continue
                calls.extend(self._calls(plan, op, self._kernel(op, bound_ops, known), known))
                if position[op] in dead:
                    calls.append(_forget(self._slots, dead[position[op]]))
            tasks[task.name] = tuple(calls)
        return tasks

    def _calls(self, plan: PlanBundle, op: Op, kernel: Kernel, known: set[Value]) -> list[Call]:
        out, storage = op.outputs[0], plan.storage
        if op in self._brought:
            return [self._copying(op, kernel, storage)]
        sources, target = self._sources(op), self._target(op)
        if not self._planned:
            return [_allocating(self._slots, kernel, sources, target)]
        base = storage.views[out].base
        if self._is_own(storage, out):
            call = _allocating(self._slots, kernel, sources, target)
            if base is not out:
                self._views.setdefault(base, []).append(call)
            return [call]
        if base is not out:
            return []  # a view of the arena, made beforehand
        lies = [value in known or (value in storage.home and not self._is_own(storage, value)) for value in op.inputs]
        if all(lies):
            return [partial(kernel, *(self._slots[slot] for slot in sources), out=self._slots[target])]
        return [_into(self._slots, kernel, sources, self._slots[target])]

    def _copying(self, op: Op, kernel: Kernel, storage: StoragePlan) -> Call:
        """A call of code that a plugin brings: it may return what it was handed, or another element type."""
        slots, sources, backend = self._slots, self._sources(op), self._backend
        targets = [(value, self._number[value], self._is_own(storage, value)) for value in op.outputs]

        def call() -> None:
            found = kernel(*[slots[slot] for slot in sources])
            results = found if isinstance(found, tuple) else (found,)
            for (value, slot, own), array in zip(targets, results, strict=True):
                if own:
                    slots[slot] = backend.clone(backend.convert(array, value))
                else:
                    backend.copy(slots[slot], backend.convert(array, value))

        return call

    def _is_own(self, storage: StoragePlan, value: Value) -> bool:
        """Whether a kernel allocates ``value``, or what it is a view of."""
        return value in storage.home and not storage.buffers[storage.home[value]].planned

    def _kernel(self, op: Op, bound_ops: Mapping[Op, Op], known: set[Value]) -> Kernel:
        if op in self._brought:
            return self._brought[op](bound_ops[op])
        if len(op.outputs) != 1:
            raise IRError(f"{op.name} has {len(op.outputs)} outputs; executors by steps take primitives")
        fixed = {at: self._slots[self._number[value]] for at, value in enumerate(op.inputs) if value in known}
        return self._backend.kernel(bound_ops[op], fixed)

    def _sources(self, op: Op) -> list[int]:
        return [self._number[value] for value in op.inputs]

    def _target(self, op: Op) -> int:
        return self._number[op.outputs[0]]

    def prepared_kernels(self) -> Mapping[str, int]:
        """What preparing the session took of compiled code, by what became of it; nothing is compiled here."""
        return {}

    # -- running ------------------------------------------------------------------------------------------------------

    def running(self) -> AbstractContextManager[None]:
        """What must hold while the session is used, from :meth:`start` to :meth:`results`."""
        return _NOTHING

    def start(self, inputs: Mapping[str, Any]) -> None:
        """Brings the inputs and the weights that may have changed into place, and lets go of what is left over."""
        for slot in self._own:
            self._slots[slot] = None
        for name, (value, slot) in self._inputs.items():
            array = self._backend.convert(inputs[name], value)
            if self._planned:
                self._backend.copy(self._slots[slot], array)
            else:
                self._slots[slot] = array
        for slot, constant, value in self._live:
            self._slots[slot] = self._backend.load(constant, value)

    def renew(self, inputs: Mapping[str, Any]) -> None:
        """Brings these inputs into place; everything else stays as it is."""
        for name, array in inputs.items():
            value, slot = self._inputs[name]
            self._backend.copy(self._slots[slot], self._backend.convert(array, value))

    def carrier(self, moves: Sequence[tuple[Value, Value]]) -> Call:
        """A call that copies values of a finished run into the places of inputs: pairs (value, input).

        Results may lie where inputs do. Those in their input's own place stay there; those in the place of another
        input are copied away first.
        """
        home, views, slots = self._storage.home, self._storage.views, self._slots

        def lies_at(source: Value, target: Value) -> bool:
            one, other = views[source], views[target]
            same = (one.strides, one.offset, source.type) == (other.strides, other.offset, target.type)
            return home[source] == home[target] and same

        moved = [pair for pair in moves if pair[0] not in home or not lies_at(*pair)]
        written = {home[target] for _, target in moved}
        pairs: list[tuple[Any, Any]] = []
        elsewhere: list[tuple[Any, int]] = []
        for source, target in moved:
            number, place = self._number[source], slots[self._number[target]]
            if source not in home or self._is_own(self._storage, source):
                elsewhere.append((place, number))  # not in the arena, and every run may find it in another place
            elif home[source] in written:
                aside = self._backend.clone(slots[number])
                pairs.insert(0, (aside, slots[number]))
                pairs.append((place, aside))
            else:
                pairs.append((place, slots[number]))
        copies = self._copies(pairs)

        def carry() -> None:
            copies()
            for place, number in elsewhere:
                self._backend.copy(place, slots[number])

        return carry if elsewhere else copies

    def _copies(self, pairs: Sequence[tuple[Any, Any]]) -> Call:
        """A call that copies, one after another: pairs (target, source) of arrays of one type and shape."""
        copy = self._backend.copy

        def copies() -> None:
            for target, source in pairs:
                copy(target, source)

        return copies

    def run_tasks(self, names: tuple[str, ...]) -> None:
        """Runs tasks one after another. Their calls are put into one list when that is first asked for."""
        calls = self._runs.get(names)
        if calls is None:
            calls = self._runs[names] = tuple(call for name in names for call in self._tasks[name])
        for call in calls:
            call()

    def read(self, value: Value) -> Any:
        """A copy of ``value``, after the task that makes it."""
        return self._backend.clone(self._slots[self._number[value]])

    def write(self, value: Value, array: Any) -> None:
        """Puts ``array`` in the place of ``value``, as the task that makes it would have, and its views with it.

        Nobody may write to ``array`` from here on.
        """
        slot = self._number[value]
        if self._slots[slot] is None:
            self._slots[slot] = array
            for call in self._views.get(value, ()):
                call()
        else:
            self._backend.copy(self._slots[slot], array)

    def results(self) -> dict[str, Any]:
        """The outputs, as arrays that the caller owns."""
        if not self._planned:
            own = {
                slot: self._backend.clone(self._slots[slot]) for slot in self._results.values() if slot in self._fixed
            }
            return {name: own.get(slot, self._slots[slot]) for name, slot in self._results.items()}
        return {name: self._backend.clone(self._slots[slot]) for name, slot in self._results.items()}


def _values(program: BoundProgram) -> list[Value]:
    return [*program.inputs, *program.constants, *(value for op in program.ops for value in op.outputs)]


# Where all operands lie in the arena or are frozen, a call is bound to its arrays; these are for the others.


def _into(slots: Slots, kernel: Kernel, sources: Sequence[int], out: Any) -> Call:
    def call() -> None:
        kernel(*[slots[slot] for slot in sources], out=out)

    return call


def _allocating(slots: Slots, kernel: Kernel, sources: Sequence[int], target: int) -> Call:
    def call() -> None:
        slots[target] = kernel(*[slots[slot] for slot in sources])

    return call


def _forget(slots: Slots, dead: Sequence[int]) -> Call:
    def call() -> None:
        for slot in dead:
            slots[slot] = None

    return call
