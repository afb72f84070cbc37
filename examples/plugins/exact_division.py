"""A planner pass: program in, program out.

Divisions by a constant power of two become multiplications, which processors do several times as quickly. The result is
the same to the last bit, so that no bound changes; a pass that rounded differently could make bounds wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from boundflow_core.extension import Pass
from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.planner.rewrite import Rewriter, rewrite
from boundflow_core.plugins import hookimpl

BOUNDFLOW_API = (1, 0)


def multiply(b: Rewriter, op: Op, inputs: Sequence[Value]) -> Sequence[Value] | None:
    """What is written instead of ``op``; None copies it."""
    divisor = b.constant_of(inputs[1]) if op.name == "div" else None
    if divisor is None or divisor.is_live:  # a live constant may have another value tomorrow
        return None
    numbers = np.asarray(divisor.numpy(), dtype=np.float64)
    mantissas, exponents = np.frexp(numbers)
    if (np.abs(mantissas) != 0.5).any() or (np.abs(exponents) > 60).any():
        return None
    return (inputs[0] * (1.0 / numbers),)


def run(program: BoundProgram) -> BoundProgram:
    return rewrite(program, multiply)


@hookimpl
def boundflow_register_passes() -> list[Pass]:
    return [Pass("exact-division", "divisions by powers of two become multiplications", rank=50, run=run)]
