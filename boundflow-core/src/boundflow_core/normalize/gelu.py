"""Recognition of GELU, which networks from before its operator existed write as x (1 + erf(x / sqrt 2)) / 2.

As one operator it is bounded far tighter than as a product of two values that vary together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from boundflow_core.ir.constants import Constant
from boundflow_core.ir.primal import Node
from boundflow_core.ir.primal_builder import Operand, Tensor
from boundflow_core.normalize.rebuild import Rewriter

__all__ = ["gelu_of_erf"]

# The constants come from files in float32, and are multiplied there in float32.
_TOLERANCE = 1e-6


def gelu_of_erf(g: Rewriter, node: Node, xs: Sequence[Operand]) -> Any:
    """A product of x, 1 + erf(x / sqrt 2) and numbers that make up 1/2, in any order and grouping."""
    factors: Sequence[Operand] = xs
    half = 1.0
    if any(isinstance(x, Constant) for x in xs):
        (inner,) = (x for x in xs if isinstance(x, Tensor))
        made = g.producer(inner)
        (number,) = (_number(x) for x in xs if isinstance(x, Constant))
        if made is None or made[0].op != "mul" or number is None:
            return None
        factors, half = made[1], number
    for x, gate in (tuple(factors), tuple(reversed(factors))):
        bare_gate, gate_scale = _without_number(g, gate)
        argument = _erf_argument(g, bare_gate)
        if argument is None:
            continue
        for candidate, scale in ((x, 1.0), _without_number(g, x)):
            same_shape = candidate.shape == tuple(node.type.shape)
            if same_shape and argument == candidate and _close(half * gate_scale * scale, 0.5):
                return g.op("gelu", candidate, approximate="none")
    return None


def _erf_argument(g: Rewriter, gate: Operand) -> Operand | None:
    """x where ``gate`` is 1 + erf(x / sqrt 2)."""
    added = g.producer(gate)
    if added is None or added[0].op != "add" or not _close(_number(added[1][1]), 1.0):
        return None
    erf = g.producer(added[1][0])
    if erf is None or erf[0].op != "erf":
        return None
    x, scale = _without_number(g, erf[1][0])
    return x if _close(scale, math.sqrt(0.5)) else None


def _without_number(g: Rewriter, x: Operand) -> tuple[Operand, float]:
    """``x`` as a tensor times a number."""
    made = g.producer(x)
    if made is not None and made[0].op == "mul":
        number = _number(made[1][1])
        if number is not None and made[1][0].shape == x.shape:
            return made[1][0], number
    return x, 1.0


def _number(x: Operand) -> float | None:
    """The value of a constant whose elements are all the same and will stay so."""
    if not isinstance(x, Constant) or x.is_live:
        return None
    values = x.numpy()
    same = values.size > 0 and bool((values == values.flat[0]).all())
    return float(values.flat[0]) if same else None


def _close(number: float | None, wanted: float) -> bool:
    return number is not None and abs(number - wanted) <= _TOLERANCE * abs(wanted)
