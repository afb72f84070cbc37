"""The template of row programs."""

from __future__ import annotations

from collections.abc import Sequence

from boundflow_core.ir.program import Op
from boundflow_tvm.templates.interface import Kernel
from boundflow_tvm.templates.machine import machine
from boundflow_tvm.templates.rowkernel import build_rows
from boundflow_tvm.templates.rowlayout import multiplications, row_operands
from boundflow_tvm.templates.rowsteps import Adjoint, ChannelBias, Linear, RowProgram, VectorBias

__all__ = ["row_program"]

VERSION = 2


def row_program(op: Op, known: Sequence[bool]) -> Kernel | None:
    """Any row program in floating point with weights known beforehand."""
    program: RowProgram = op.attrs["program"]
    dtype = str(op.inputs[0].type.dtype)
    weights = [step.weight for step in program.steps if isinstance(step, (Adjoint, Linear))]
    biases = [step.bias for step in program.steps if isinstance(step, (ChannelBias, VectorBias))]
    if not all(known[number] for number in (*weights, *biases)):
        return None
    found = machine()
    return Kernel(
        name="row_program",
        key=f"{VERSION} {found.name} {dtype} {program}",
        build=lambda: build_rows(program, dtype, found),
        operands=row_operands(program, dtype, found),
        flops=2.0 * multiplications(program) * (2 if program.mirrored else 1),
    )
