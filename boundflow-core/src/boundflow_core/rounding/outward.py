"""Bounds that hold in exact arithmetic: a program with the analysis of its own rounding errors written behind it."""

from __future__ import annotations

import math

from boundflow_core.errors import IRError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.ir.types import DType
from boundflow_core.planner.rewrite import Rewriter, begin, decompose
from boundflow_core.rounding.support import Near, up
from boundflow_core.rounding.table import RULES

__all__ = ["outward_program"]


def outward_program(program: BoundProgram) -> BoundProgram:
    """``program`` with each bound that it gives moved outwards by all that rounding may have done to it.

    Outputs ``lower`` and ``lower:NAME`` become smaller, ``upper`` and ``upper:NAME`` larger, or infinite where nothing
    can be said. They then bound what the same program gives in exact real arithmetic on the same inputs and weights.
    Each operation carries an error along (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.3),
    of sums and products for any order of summation, with and without fused multiply-add. Where a comparison could have
    come out otherwise in exact arithmetic, both of what it chooses between are covered.

    Kernels must round as IEEE 754 says, and their functions (exp, tanh...) be exact to eight units in the last place.

    Raises:
        IRError: the program is not in float64, or chooses rows by numbers that depend on rounding.
    """
    program = decompose(program)
    b, values = begin(program)
    near = {old: Near(new) for old, new in values.items()}
    for op in program.ops:
        b.mark(op.origin)
        near[op.outputs[0]] = _carried(b, op, [near[value] for value in op.inputs])
    b.mark("")
    return b.finish({name: _moved(b, name, near[value]) for name, value in program.outputs.items()})


def _carried(b: Rewriter, op: Op, operands: list[Near]) -> Near:
    (kind,) = (value.type for value in op.outputs)
    if kind.dtype is DType.FLOAT32:
        raise IRError(f"rounding is analysed in float64, but {op.name} is in float32")
    (value,) = b.write(op.spec, [x.value for x in operands], op.attrs)
    error = RULES[op.name](b, op.attrs, operands, value)
    return Near(value, None if error is None else b.broadcast(error, value.shape))


def _moved(b: Builder, name: str, found: Near) -> Value:
    """The output ``name``, moved to its side if it is a bound."""
    side = name.partition(":")[0]
    if side not in ("lower", "upper") or found.error is None:
        return found.value
    # The last subtraction is rounded too.
    error = up(b, b.add(found.error, b.mul(b.abs(found.value), 2.0**-52)))
    moved = b.sub(found.value, error) if side == "lower" else b.add(found.value, error)
    return b.where(b.compare(moved, moved, "eq"), moved, -math.inf if side == "lower" else math.inf)
