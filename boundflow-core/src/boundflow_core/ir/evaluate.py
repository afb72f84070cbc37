"""Reference semantics: a plain NumPy interpreter of programs. Every executor is tested against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.errors import InputError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import BoundProgram, Composite, Op, Value
from boundflow_core.ir.types import Attrs, DType, SymDim, concrete_shape, format_shape

if TYPE_CHECKING:
    from boundflow_core.ir.primal_ops import PrimalOp

__all__ = ["bind_symbols", "call_op", "evaluate", "evaluate_op", "evaluator"]

Array = NDArray[Any]


def bind_symbols(program: BoundProgram, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Values of the program's symbols, read off the shapes of its inputs.

    Raises:
        InputError: an input is missing or unknown, has a wrong shape, or two inputs disagree.
    """
    expected = {value.name for value in program.inputs}
    if set(shapes) != expected:
        raise InputError(f"{program.name} takes the inputs {sorted(expected)}, not {sorted(shapes)}")
    env: dict[str, int] = {}
    for value in program.inputs:
        for dim, actual in zip(value.shape, shapes[value.name], strict=False):
            if isinstance(dim, SymDim) and dim.coefficient == 1 and len(dim.symbols) == 1:
                env.setdefault(dim.symbols[0], actual)
    for value in program.inputs:
        shape = tuple(shapes[value.name])
        if len(shape) != value.rank or concrete_shape(value.shape, env) != shape:
            raise InputError(
                f"input {value.name!r} of {program.name} must have shape {format_shape(value.shape)}, "
                f"not {format_shape(shape)}" + (f" (with {env})" if env else "")
            )
    return env


def evaluate(program: BoundProgram, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Runs ``program`` primitive by primitive.

    Args:
        inputs: arrays by name; floats are cast to the types that the program declares.

    Raises:
        InputError: see :func:`bind_symbols`.
    """
    return evaluator(program)(inputs)


def evaluator(program: BoundProgram) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """:func:`evaluate` for many inputs of one program, which is bound once for all that have the same sizes."""
    known: dict[tuple[int, ...], BoundProgram] = {}

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        env = bind_symbols(program, {name: np.shape(array) for name, array in inputs.items()})
        sizes = tuple(env.values())  # in the order of the program's inputs
        if sizes not in known:
            known[sizes] = program.bind(env)
        return _evaluated(known[sizes], inputs)

    return run


def _evaluated(bound: BoundProgram, inputs: Mapping[str, Array]) -> dict[str, Array]:
    values: dict[Value, Array] = {}
    for value in bound.inputs:
        values[value] = np.asarray(inputs[value.name], dtype=value.type.dtype.numpy)
    for value, constant in bound.constants.items():
        values[value] = np.asarray(constant.numpy(), dtype=value.type.dtype.numpy)
    for op in bound.ops:
        results = call_op(op, [values[value] for value in op.inputs])
        values.update(zip(op.outputs, results, strict=True))
    return {name: values[value] for name, value in bound.outputs.items()}


def call_op(op: Op, arrays: Sequence[Array]) -> Sequence[Array]:
    """The results of one operation of a program that is bound to sizes; of a composite those of its decomposition."""
    if not isinstance(op.spec, Composite):
        with np.errstate(all="ignore"):
            return [op.spec.reference(arrays, op.attrs)]
    parts = decomposition(op)
    results = evaluate(parts, {f"x{i}": array for i, array in enumerate(arrays)})
    return [results[f"y{i}"] for i in range(len(op.outputs))]


def decomposition(op: Op) -> BoundProgram:
    """The program that a composite stands for, with inputs ``x0``... and outputs ``y0``..."""
    assert isinstance(op.spec, Composite)
    floats = [value.type.dtype for value in op.inputs if value.type.dtype.is_float]
    builder = Builder(floats[0] if floats else DType.FLOAT64, op.name)
    inputs = [builder.input(f"x{i}", value.shape, value.type.dtype) for i, value in enumerate(op.inputs)]
    outputs = op.spec.decompose(builder, inputs, op.attrs)
    return builder.finish({f"y{i}": value for i, value in enumerate(outputs)})


def evaluate_op(op: PrimalOp, attrs: Attrs, arrays: Sequence[Array]) -> Array:
    """One primal operator on plain arrays without a batch axis: layout keeps the dtype, arithmetic is in float64."""
    keep = op.name in ("reshape", "permute", "expand", "slice", "concat", "gather")
    builder = Builder(DType.FLOAT64, op.name)
    values = []
    for number, array in enumerate(arrays):
        if np.issubdtype(array.dtype, np.floating):
            dtype = DType(str(array.dtype)) if keep else DType.FLOAT64
        else:
            dtype = DType.BOOL if array.dtype == bool else DType.INT64
        values.append(builder.input(f"x{number}", array.shape, dtype))
    program = builder.finish({"y": op.emit(builder, attrs, 0, *values)})
    return evaluate(program, {f"x{number}": array for number, array in enumerate(arrays)})["y"]
