"""The composite `fused`: several elementwise and layout primitives, and perhaps a reduction, as one operation.

Its attribute ``body`` is the sub-program: one entry ``(primitive, operands, attributes)`` after another, where operands
count the composite's inputs first and then the entries before. The last entry is the result. Numbers are entries of
the name "constant".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.program import Composite, Op, Value
from boundflow_core.ir.types import Attrs, DType, TensorType

__all__ = ["CONSTANT", "FUSED", "Step", "steps_of"]

CONSTANT = "constant"


@dataclass(frozen=True)
class Step:
    """An entry of the body of a fused operation, or one of its inputs (``name`` is empty)."""

    name: str
    operands: tuple[int, ...]
    attrs: Attrs
    type: TensorType


def _decompose(b: Builder, inputs: Sequence[Value], attrs: Attrs) -> tuple[Value, ...]:
    values = list(inputs)
    for name, operands, items in attrs["body"]:
        given = dict(items)
        if name == CONSTANT:
            number = given["value"]  # infinities are allowed for numbers only, not for arrays
            values.append(b.constant(number if isinstance(number, float) else np.asarray(number, given["dtype"])))
        else:
            values.append(b.write(PRIMITIVES[name], [values[i] for i in operands], Attrs(given))[0])
    return (values[-1],)


FUSED = Composite("fused", "elementwise and layout primitives, perhaps a reduction last, as one loop nest", _decompose)


def steps_of(op: Op) -> list[Step]:
    """The inputs and entries of a fused operation, with their types; a primitive is a body of one entry."""
    steps = [Step("", (), Attrs(), value.type) for value in op.inputs]
    if op.spec is not FUSED:
        return [*steps, Step(op.name, tuple(range(len(steps))), op.attrs, op.outputs[0].type)]
    body: Sequence[tuple[str, tuple[int, ...], Any]] = op.attrs["body"]
    for name, operands, items in body:
        attrs = Attrs(dict(items))
        if name == CONSTANT:
            kind = TensorType(DType(attrs["dtype"]), ())
        else:
            kind = PRIMITIVES[name].infer([steps[i].type for i in operands], attrs)
        steps.append(Step(name, tuple(operands), attrs, kind))
    return steps
