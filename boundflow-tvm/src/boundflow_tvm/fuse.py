"""The pass that makes one operation of several: what is computed element by element is never stored in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boundflow_core.errors import IRError
from boundflow_core.ir.program import BoundProgram, Op, Primitive, Value
from boundflow_core.ir.types import Attrs, Dim, divide, size
from boundflow_core.planner.partition import dependencies
from boundflow_core.planner.rewrite import Rewriter, begin
from boundflow_tvm.fused import CONSTANT, FUSED

__all__ = ["COSTS", "fuse"]

# Operations of one element, in additions: what may be computed again where it is read twice.
COSTS: Mapping[str, int] = {
    **dict.fromkeys(("exp", "log", "log1p", "tanh", "sin", "cos", "sigmoid", "erf", "pow"), 30),
    **dict.fromkeys(("div", "sqrt"), 4),
    **dict.fromkeys(("reshape", "permute", "broadcast", "slice", "row_numbers"), 0),
    **dict.fromkeys(("pad", "concat", "gather_rows"), 2),
}
MOVES = frozenset({"reshape", "permute", "broadcast", "slice", "pad", "concat", "gather_rows", "row_numbers"})
REDUCTIONS = frozenset({"reduce_sum", "reduce_max", "reduce_min"})

REPEATED = 3  # what an element may cost that several operations compute for themselves
STEPS = 48  # of a body, so that it stays within the registers
INPUTS = 12


@dataclass(frozen=True)
class _Body:
    """What computes one value from stored ones: the operations inside, in order, and the values that they read."""

    ops: tuple[Op, ...]
    reads: frozenset[Value]
    cost: int


def fuse(program: BoundProgram) -> BoundProgram:
    """``program`` with chains and small graphs of elementwise, layout and gathering primitives as operations `fused`.

    A value is computed where it is read, instead of stored, if all its readers can take it in, and if that repeats no
    work that counts: it has one reader, or costs next to nothing, and no reader is larger than it is.
    """
    bodies = _bodies(program)
    b, values = begin(program)
    for op in program.ops:
        with b.origin(op.origin):
            if op.outputs[0] not in bodies:
                outputs: Sequence[Value] = b.copy(op, [values[v] for v in op.inputs])
            elif bodies[op.outputs[0]] is None:
                continue
            else:
                outputs = _written(b, program, bodies[op.outputs[0]], values)  # type: ignore[arg-type]
        values.update(zip(op.outputs, outputs, strict=True))
    return b.finish({name: values[value] for name, value in program.outputs.items()})


def _bodies(program: BoundProgram) -> dict[Value, _Body | None]:
    """The body of each value that a fused operation computes; None for those that are computed inside of others.

    Values that stay as they are, by operations of their own, are not in it.
    """
    depends = dependencies(program)
    readers: dict[Value, list[Op]] = {}
    for op in program.ops:
        for value in dict.fromkeys(op.inputs):
            readers.setdefault(value, []).append(op)
    results = set(program.outputs.values())
    inside: dict[Value, _Body] = {}
    found: dict[Value, _Body | None] = {}
    for op in program.ops:
        if not _fusible(op) or not depends[op.outputs[0]]:
            continue
        out = op.outputs[0]
        body = _joined(op, inside)
        if len(body.ops) > STEPS or len(body.reads) > INPUTS:
            for value in op.inputs:  # too much in one: what was to be inside is stored after all
                if value in inside:
                    found[value] = inside.pop(value)
            body = _joined(op, inside)
        if op.name not in REDUCTIONS and out not in results and _taken_in(out, body, readers.get(out, ()), depends):
            inside[out] = body
            found[out] = None
        elif op.name != "reshape" or len(body.ops) > 1:
            found[out] = body
    return found


def _fusible(op: Op) -> bool:
    if not isinstance(op.spec, Primitive):
        return False
    return op.spec.kind == "elementwise" or op.name in MOVES or op.name in REDUCTIONS


def _joined(op: Op, inside: Mapping[Value, _Body]) -> _Body:
    ops: dict[Op, None] = {}
    reads: set[Value] = set()
    for value in op.inputs:
        if value in inside:
            ops.update(dict.fromkeys(inside[value].ops))
            reads |= inside[value].reads
        else:
            reads.add(value)
    ops[op] = None
    return _Body(tuple(ops), frozenset(reads), sum(COSTS.get(one.name, 1) for one in ops))


def _taken_in(value: Value, body: _Body, readers: Sequence[Op], depends: Mapping[Value, frozenset[str]]) -> bool:
    cheap = body.cost <= 1
    if len(readers) > 1 and body.cost > REPEATED:
        return False
    count = size(value.shape)
    for op in readers:
        if not _fusible(op):
            return False
        if cheap:
            continue
        out = op.outputs[0]
        larger = op.name not in REDUCTIONS and not _at_most(size(out.shape), count)
        if larger or depends[out] != depends[value] or op.name == "gather_rows" or op.inputs.count(value) > 1:
            return False
    return True


def _at_most(count: Dim, limit: Dim) -> bool:
    if isinstance(count, int) and isinstance(limit, int):
        return count <= limit
    try:
        return divide(limit, count) != 0
    except IRError:
        return False


def _written(b: Rewriter, program: BoundProgram, body: _Body, values: Mapping[Value, Value]) -> Sequence[Value]:
    """The operation of ``body``; a primitive alone that stands for itself stays a primitive."""
    constants = {value: number for value in body.reads if (number := _number(program, value)) is not None}
    order = list(dict.fromkeys(v for op in body.ops for v in op.inputs if v in body.reads and v not in constants))
    if not order or (len(body.ops) == 1 and not constants):
        (op,) = body.ops[-1:]
        if len(body.ops) == 1:
            return b.copy(op, [values[v] for v in op.inputs])
        order = [next(iter(constants))]
        del constants[order[0]]
    place = {value: number for number, value in enumerate(order)}
    entries: list[tuple[str, tuple[int, ...], tuple[tuple[str, Any], ...]]] = []
    for value, number in sorted(constants.items(), key=lambda item: item[0].id):
        place[value] = len(order) + len(entries)
        entries.append((CONSTANT, (), (("dtype", str(value.type.dtype)), ("value", number))))
    for op in body.ops:
        place[op.outputs[0]] = len(order) + len(entries)
        entries.append((op.name, tuple(place[v] for v in op.inputs), tuple(op.attrs.items())))
    return b.write(FUSED, [values[v] for v in order], Attrs(body=tuple(entries)))


def _number(program: BoundProgram, value: Value) -> float | int | bool | None:
    """What ``value`` is if it is a number that never changes."""
    constant = program.constants.get(value)
    if constant is None or constant.is_live or value.shape:
        return None
    number = constant.numpy().astype(value.type.dtype.numpy).item()
    return number if number == number else None
