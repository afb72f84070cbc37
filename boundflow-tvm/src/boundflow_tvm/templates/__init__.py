"""Hand-written kernels for the operations that bounds spend their time in, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping

from boundflow_tvm.templates.convolutions import conv2d, interval_conv2d
from boundflow_tvm.templates.interface import Input, Kernel, Operand, Output, Packed, Scratch, Template
from boundflow_tvm.templates.intervalmatmul import interval_matmul
from boundflow_tvm.templates.rows import row_program

__all__ = ["CLAIMS", "Input", "Kernel", "Operand", "Output", "Packed", "Scratch", "Template"]

CLAIMS: Mapping[str, tuple[Template, ...]] = {
    "conv2d": (conv2d,),
    "interval_conv2d": (interval_conv2d,),
    "interval_matmul": (interval_matmul,),
    "row_program": (row_program,),
}
"""Templates by the name of the operation that they may take, best first."""
