"""What executors that run operation by operation share: a flat list of bound calls over numbered slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boundflow_core.errors import IRError
from boundflow_core.ir.constants import Constant
from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.planner.storage import last_uses

__all__ = ["Kernel", "Step", "StepRunner", "make_runner"]

Kernel = Callable[..., Any]


@dataclass(frozen=True)
class Step:
    """One call: ``slots[output] = call(*slots[inputs])``, after which the slots in ``frees`` are dead."""

    call: Kernel
    inputs: tuple[int, ...]
    output: int
    frees: tuple[int, ...]


@dataclass(frozen=True)
class StepRunner:
    """A program ready to run.

    Attributes:
        slots: initial content: frozen constants and what follows from them alone; None elsewhere.
        inputs: slot and converter of each input.
        live: slot and loader of each constant that may change between runs, read at each run.
    """

    slots: tuple[Any, ...]
    inputs: Mapping[str, tuple[int, Callable[[Any], Any]]]
    live: tuple[tuple[int, Callable[[], Any]], ...]
    steps: tuple[Step, ...]
    outputs: Mapping[str, int]

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        slots = list(self.slots)
        for name, (slot, convert) in self.inputs.items():
            slots[slot] = convert(inputs[name])
        for slot, load in self.live:
            slots[slot] = load()
        for step in self.steps:
            slots[step.output] = step.call(*[slots[i] for i in step.inputs])
            for slot in step.frees:
                slots[slot] = None
        return {name: slots[slot] for name, slot in self.outputs.items()}


def make_runner(
    program: BoundProgram,
    kernel: Callable[[Op], Kernel],
    load: Callable[[Constant, Value], Any],
    convert: Callable[[Value], Callable[[Any], Any]],
) -> StepRunner:
    """A runner for a program of concrete shapes.

    Args:
        kernel: the callable of an operation, from arrays to its one output.
        load: a constant as an array of the value's type.
        convert: how an input is brought to the value's type.
    """
    number = {value: slot for slot, value in enumerate(_values(program))}
    slots: list[Any] = [None] * len(number)
    live = {value: constant for value, constant in program.constants.items() if constant.is_live}
    known: set[Value] = set()
    for value, constant in program.constants.items():
        if value not in live:
            slots[number[value]] = load(constant, value)
            known.add(value)
    last = last_uses(program)
    made = set(program.inputs) | set(live)
    steps = []
    for index, op in enumerate(program.ops):
        call, sources, target = kernel(op), [number[value] for value in op.inputs], _one(op)
        if all(value in known for value in op.inputs):
            slots[number[target]] = call(*[slots[slot] for slot in sources])
            known.add(target)
            continue
        frees = [number[v] for v in dict.fromkeys(op.inputs) if v in made and last[v] == index]
        steps.append(Step(call, tuple(sources), number[target], tuple(frees)))
        made.add(target)
    needed = {slot for step in steps for slot in step.inputs} | {number[v] for v in program.outputs.values()}
    return StepRunner(
        slots=tuple(array if slot in needed else None for slot, array in enumerate(slots)),
        inputs={value.name: (number[value], convert(value)) for value in program.inputs},
        live=tuple((number[value], _loader(load, constant, value)) for value, constant in live.items()),
        steps=tuple(steps),
        outputs={name: number[value] for name, value in program.outputs.items()},
    )


def _loader(load: Callable[[Constant, Value], Any], constant: Constant, value: Value) -> Callable[[], Any]:
    return lambda: load(constant, value)


def _values(program: BoundProgram) -> Sequence[Value]:
    made = [value for op in program.ops for value in op.outputs]
    return [*program.inputs, *program.constants, *made]


def _one(op: Op) -> Value:
    if len(op.outputs) != 1:
        raise IRError(f"{op.name} has {len(op.outputs)} outputs; executors by steps take primitives")
    return op.outputs[0]
