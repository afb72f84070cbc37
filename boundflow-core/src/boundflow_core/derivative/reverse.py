"""The reverse sweep: writes the gradient of a program's output behind the program itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from boundflow_core.derivative.table import RULES
from boundflow_core.errors import IRError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import BoundProgram, Composite, DerivativeRule, Op, Value
from boundflow_core.planner.rewrite import float_type, rewrite

__all__ = ["gradient_program"]


def gradient_program(
    program: BoundProgram, output: str, wrt: Sequence[str], *, seed: str | None = None, seed_group: str | None = None
) -> BoundProgram:
    """The program that computes what ``program`` does and the gradient of ``sum(output * seed)``.

    By reverse accumulation (Griewank and Walther, Evaluating Derivatives, 2008, chapter 3): each operation passes the
    gradient of its results on to its operands, by its rule in :data:`boundflow_core.derivative.RULES`. Where a function
    has a kink, the rules take torch's subgradients. Weights held by the program count as fixed numbers.

    The gradient takes about twice the arithmetic of the operations between ``wrt`` and ``output``, since a product has
    two operands to pass a gradient on to (once where one of them is fixed); values of the program that it reads are
    shared, not computed again. So all in all the cost is at most about three times that of the program. The exceptions
    are ``max_pool2d``, which takes a few elementwise operations for each place of its window, and functions whose
    derivative is another function (erf: an exponential).

    Args:
        output: name of a float output, of any shape.
        wrt: names of float inputs.
        seed: name of a further input of the output's type, the weights of the sum; None: all ones.
        seed_group: the group of inputs that it belongs to (its own name if not given).

    Returns:
        The program with the inputs (and their groups) and outputs of ``program``, the input ``seed`` if named, and the
        outputs ``grad:<input>``, each of the type of its input. Operations that serve no output are dropped, equal ones
        merged. Composites between ``wrt`` and ``output`` that bring no derivative are written out in primitives.

    Raises:
        IRError: ``output`` or a name of ``wrt`` is unknown or no float, or a new name is taken.
    """
    _check(program, output, wrt, seed)
    program = _written_out(program, output, wrt)
    b = Builder(float_type(program), f"gradient of {program.name}")
    values = _copied(b, program)
    target = program.outputs[output]
    if seed is None:
        start = b.broadcast(b.cast(b.constant(1.0), target.type.dtype), target.shape)
    else:
        start = b.input(seed, target.shape, target.type.dtype, seed_group)
    grads = {target: start}
    active = _active(program, output, wrt)
    for op in reversed(program.ops):
        if any(value in grads for value in op.outputs) and active.intersection(op.inputs):
            with b.origin(op.origin):
                _pull_back(b, op, values, grads, active)
    outputs = {name: values[value] for name, value in program.outputs.items()}
    for value in program.inputs:
        if value.name in wrt:
            zero = b.cast(b.constant(0.0), value.type.dtype)
            grad = grads.get(value)
            outputs[f"grad:{value.name}"] = b.broadcast(zero, value.shape) if grad is None else grad
    gradient = b.finish(outputs)
    b.forget()
    return gradient


def _check(program: BoundProgram, output: str, wrt: Sequence[str], seed: str | None) -> None:
    inputs = {value.name: value for value in program.inputs}
    if unknown := [name for name in wrt if name not in inputs]:
        raise IRError(f"{program.name} has no inputs {unknown}, only {sorted(inputs)}")
    if output not in program.outputs:
        raise IRError(f"{program.name} has no output {output!r}, only {sorted(program.outputs)}")
    for value in (program.outputs[output], *(inputs[name] for name in wrt)):
        if not value.type.dtype.is_float:
            raise IRError(f"{value!r} is no float, so it has no gradient")
    if taken := [f"grad:{name}" for name in wrt if f"grad:{name}" in program.outputs]:
        raise IRError(f"{program.name} has outputs {taken} already")
    if seed in inputs:
        raise IRError(f"{program.name} has an input {seed!r} already")


def _active(program: BoundProgram, output: str, wrt: Collection[str]) -> frozenset[Value]:
    """The float values that depend on ``wrt`` through floats, as far as ``output`` depends on them."""
    reached = {value for value in program.inputs if value.name in wrt}
    for op in program.ops:
        if reached.intersection(op.inputs):
            reached.update(value for value in op.outputs if value.type.dtype.is_float)
    needed = {program.outputs[output]}
    for op in reversed(program.ops):
        if needed.intersection(op.outputs):
            needed.update(op.inputs)
    return frozenset(reached & needed)


def _written_out(program: BoundProgram, output: str, wrt: Sequence[str]) -> BoundProgram:
    """``program`` with those active composites written out that bring no derivative, and those within them."""
    while True:
        active = _active(program, output, wrt)

        def is_opaque(op: Op, active: Collection[Value] = active) -> bool:
            without_rule = isinstance(op.spec, Composite) and op.spec.derivative is None
            return without_rule and any(value in active for value in op.outputs)

        if not any(map(is_opaque, program.ops)):
            return program

        def written(b: Builder, op: Op, inputs: Sequence[Value]) -> Sequence[Value] | None:
            return op.spec.decompose(b, inputs, op.attrs) if isinstance(op.spec, Composite) and is_opaque(op) else None

        program = rewrite(program, written)


def _copied(b: Builder, program: BoundProgram) -> dict[Value, Value]:
    """Writes ``program``; gives the new value for each of its values."""
    values = {
        value: b.input(value.name, value.shape, value.type.dtype, program.groups.get(value.name))
        for value in program.inputs
    }
    for value, constant in program.constants.items():
        values[value] = b.read_constant(constant, value)
    for op in program.ops:
        with b.origin(op.origin):
            outputs = b.copy(op, [values[value] for value in op.inputs])
        values.update(zip(op.outputs, outputs, strict=True))
    return values


def _rule(op: Op) -> DerivativeRule:
    if isinstance(op.spec, Composite):
        assert op.spec.derivative is not None
        return op.spec.derivative
    return RULES[op.name]


def _pull_back(
    b: Builder, op: Op, values: dict[Value, Value], grads: dict[Value, Value], active: Collection[Value]
) -> None:
    """Adds to ``grads`` what the gradients of the operation's results come to at its active operands."""
    inputs, outputs = [values[value] for value in op.inputs], [values[value] for value in op.outputs]
    parts = _rule(op)(b, op, inputs, outputs, [grads.get(value) for value in op.outputs])
    for value, part in zip(op.inputs, parts, strict=True):
        if part is None or value not in active:
            continue
        if part.type != value.type:
            raise IRError(f"the derivative of {op.name} gives {part!r} as gradient of an operand {value.type}")
        grads[value] = b.add(grads[value], part) if value in grads else part
