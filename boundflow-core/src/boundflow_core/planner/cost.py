"""What operations come to, and what plans take by estimate: for choices, not for predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.ir.types import concrete_shape
from boundflow_core.planner.plan import PlanBundle

__all__ = ["Cost", "Rates", "arithmetic", "count", "known_values", "moved", "running_ops", "step_seconds"]

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Cost:
    """Seconds by estimate.

    Attributes:
        prepare: before the first run: imports, and compiling or loading what is not there yet.
        run: each run.
    """

    prepare: float
    run: float

    def total(self, calls: int) -> float:
        return self.prepare + calls * self.run


@dataclass(frozen=True)
class Rates:
    """How fast an executor that runs operation by operation is, on one thread of a present machine.

    Attributes:
        call: seconds that every operation takes, however small.
        bytes: read and written a second.
        arithmetic: operations on numbers a second, by primitive; what is not named moves bytes.
        elements: of the result a second, for functions whose arithmetic counts (exp, tanh...).
    """

    call: float
    bytes: float
    arithmetic: Mapping[str, float] = field(default_factory=dict)
    elements: Mapping[str, float] = field(default_factory=dict)


def count(value: Value, sizes: Sizes) -> int:
    """Number of elements."""
    return prod(concrete_shape(value.shape, sizes))


def moved(op: Op, sizes: Sizes) -> int:
    """Bytes of the operands and results."""
    return sum(count(v, sizes) * v.type.dtype.itemsize for v in (*op.inputs, *op.outputs))


def arithmetic(op: Op, sizes: Sizes) -> float:
    """Operations on numbers: two for each term of a product, else one for each element of the larger side."""
    rule = _ARITHMETIC.get(op.name)
    if rule is not None:
        return rule(op, sizes)
    return float(max(count(v, sizes) for v in (*op.inputs, *op.outputs)))


def _matmul(op: Op, sizes: Sizes) -> float:
    depth = concrete_shape(op.inputs[0].shape, sizes)[-2 if op.attrs["transpose_a"] else -1]
    return 2.0 * count(op.outputs[0], sizes) * depth


def _convolution(op: Op, sizes: Sizes) -> float:
    """Every position of the side that the window moves over takes a kernel of each of its channels."""
    side = op.outputs[0] if op.name == "conv2d" else op.inputs[1 if op.name == "conv2d_weight_grad" else 0]
    weight = concrete_shape((op.outputs[0] if op.name == "conv2d_weight_grad" else op.inputs[1]).shape, sizes)
    return 2.0 * count(side, sizes) * prod(weight[1:])


_ARITHMETIC: Mapping[str, Callable[[Op, Sizes], float]] = {
    "matmul": _matmul,
    "conv2d": _convolution,
    "conv2d_input_grad": _convolution,
    "conv2d_weight_grad": _convolution,
}


def known_values(program: BoundProgram) -> set[Value]:
    """Values that are there before any run: weights that are frozen, and what follows from them alone."""
    known = {value for value, constant in program.constants.items() if not constant.is_live}
    for op in program.ops:
        if known.issuperset(op.inputs):
            known.update(op.outputs)
    return known


def running_ops(plan: PlanBundle) -> list[Op]:
    """The operations that a run executes: neither those computed beforehand nor views of memory."""
    known, views = known_values(plan.program), plan.storage.views
    return [op for op in plan.program.ops if op.outputs[0] not in known and views[op.outputs[0]].base is op.outputs[0]]


def step_seconds(plan: PlanBundle, rates: Rates) -> float:
    """What a run of ``plan``, bound to sizes, takes at ``rates``."""
    total = 0.0
    for op in running_ops(plan):
        seconds = moved(op, plan.sizes) / rates.bytes
        if op.name in rates.arithmetic:
            seconds = max(seconds, arithmetic(op, plan.sizes) / rates.arithmetic[op.name])
        if op.name in rates.elements:
            seconds += count(op.outputs[0], plan.sizes) / rates.elements[op.name]
        total += rates.call + seconds
    return total
