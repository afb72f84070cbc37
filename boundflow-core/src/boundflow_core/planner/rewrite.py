"""The engine of program passes: writes a program anew, where a rule may write something else for an operation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import BoundProgram, Composite, Op, Value
from boundflow_core.ir.types import DType

__all__ = ["OpRewrite", "decompose", "inline", "rewrite"]

OpRewrite = Callable[[Builder, Op, Sequence[Value]], "Sequence[Value] | None"]


def float_type(program: BoundProgram) -> DType:
    """Element type of the program's floats."""
    values = [*program.inputs, *program.constants, *(value for op in program.ops for value in op.outputs)]
    return next((value.type.dtype for value in values if value.type.dtype.is_float), DType.FLOAT64)


def rewrite(program: BoundProgram, rule: OpRewrite) -> BoundProgram:
    """``program`` with each operation replaced by what ``rule(builder, op, new_inputs)`` gives; None copies it.

    Common subexpressions are merged and operations that no output needs are dropped.
    """
    b = Builder(float_type(program), program.name)
    values: dict[Value, Value] = {
        value: b.input(value.name, value.shape, value.type.dtype, program.groups.get(value.name))
        for value in program.inputs
    }
    for value, constant in program.constants.items():
        values[value] = b.read_constant(constant, value)
    for op in program.ops:
        inputs = [values[value] for value in op.inputs]
        with b.origin(op.origin):
            outputs = rule(b, op, inputs)
            if outputs is None:
                outputs = b.emit(op.spec, *inputs, **op.attrs)
        values.update(zip(op.outputs, outputs, strict=True))
    return b.finish({name: values[value] for name, value in program.outputs.items()})


def inline(b: Builder, program: BoundProgram, inputs: Mapping[str, Value]) -> dict[str, Value]:
    """Writes ``program`` into ``b`` on these inputs, by name; gives its results by name."""
    values = {value: inputs[value.name] for value in program.inputs}
    for value, constant in program.constants.items():
        values[value] = b.read_constant(constant, value)
    for op in program.ops:
        with b.origin(op.origin):
            outputs = b.emit(op.spec, *(values[value] for value in op.inputs), **op.attrs)
        values.update(zip(op.outputs, outputs, strict=True))
    return {name: values[value] for name, value in program.outputs.items()}


def decompose(program: BoundProgram, keep: Collection[str] = ()) -> BoundProgram:
    """``program`` with all composites written out in primitives, but for those named in ``keep``."""

    def written(b: Builder, op: Op, inputs: Sequence[Value]) -> Sequence[Value] | None:
        if isinstance(op.spec, Composite) and op.name not in keep:
            return op.spec.decompose(b, inputs, op.attrs)
        return None

    while any(isinstance(op.spec, Composite) and op.name not in keep for op in program.ops):
        program = rewrite(program, written)
    return program
