"""Which code runs an operation: a template's if one takes it, else generated code, which every primitive has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.program import Op, Primitive
from boundflow_core.ir.types import SymDim
from boundflow_tvm import templates
from boundflow_tvm.fused import FUSED, steps_of
from boundflow_tvm.templates import Input, Kernel, Operand, Output, Packed

__all__ = ["Generated", "generated", "kernel_of", "template_of"]


@dataclass(frozen=True)
class Generated(Kernel):
    """Generated code: a function of one pointer per operand, and of the values of ``symbols``."""

    symbols: tuple[str, ...] = ()


def template_of(op: Op, known: Sequence[bool]) -> Kernel | None:
    """The kernel of the first template that takes ``op``."""
    for template in templates.CLAIMS.get(op.name, ()):
        kernel = template(op, known)
        if kernel is not None:
            return kernel
    return None


def generated(op: Op, known: Sequence[bool] = ()) -> Kernel | None:
    """Generated code for a primitive or a fused operation; None for other composites."""
    if op.spec is not FUSED and not isinstance(op.spec, Primitive):
        return None
    values = (*op.inputs, *op.outputs)
    symbols = sorted({s for v in values for dim in v.shape if isinstance(dim, SymDim) for s in dim.symbols})
    types = ", ".join(str(value.type) for value in values)
    build = _BUILDERS.get(op.name, _nest)
    operands: list[Operand] = [*(Input(i) for i in range(len(op.inputs))), *(Output(i) for i in range(len(op.outputs)))]
    name = op.name
    if op.name == "matmul" and op.attrs["transpose_b"] and list(known[1:2]) == [True]:
        name, build = "matmul_turned", _from("matmul", "matmul", turned=True)
        operands[1] = Packed((1,), _turned, "turned")
    return Generated(
        name=name,
        key=f"{op.name}({types}) {{{op.attrs}}}",
        build=lambda: build(op, symbols),
        operands=tuple(operands),
        symbols=tuple(symbols),
    )


def _turned(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array.swapaxes(-1, -2))


def kernel_of(op: Op, known: Sequence[bool]) -> Kernel | None:
    return template_of(op, known) or generated(op, known)


def _nest(op: Op, symbols: Sequence[str]) -> Any:
    from boundflow_tvm.backend import tir
    from boundflow_tvm.codegen.loops import nest_function
    from boundflow_tvm.codegen.scalar import loop_nest

    types = [value.type for value in (*op.inputs, *op.outputs)]
    return nest_function(tir(), types, symbols, loop_nest(steps_of(op)))


def _from(module: str, name: str, **options: Any) -> Callable[[Op, Sequence[str]], Any]:
    def build(op: Op, symbols: Sequence[str]) -> Any:
        from importlib import import_module

        from boundflow_tvm.backend import tir

        return getattr(import_module(f"boundflow_tvm.codegen.{module}"), name)(tir(), op, symbols, **options)

    return build


_BUILDERS: Mapping[str, Callable[[Op, Sequence[str]], Any]] = {
    "matmul": _from("matmul", "matmul"),
    "conv2d": _from("windows", "conv2d"),
    "conv2d_input_grad": _from("windows", "conv2d_input_grad"),
    "conv2d_weight_grad": _from("windows", "conv2d_weight_grad"),
    "max_pool2d": _from("windows", "max_pool2d"),
    "scatter_rows": _from("rows", "scatter_rows"),
    "scatter_add_rows": _from("rows", "scatter_rows"),
    "running_count": _from("rows", "running_count"),
    "first_reaching": _from("rows", "first_reaching"),
}
