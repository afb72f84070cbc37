"""What converters of ATen operators share: the call that they see, refusals, and small readings of arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.constants import Constant, frozen
from boundflow_core.ir.primal_builder import Operand, PrimalBuilder

__all__ = ["Call", "Converter", "Refused", "constant_values", "each", "filled", "operand"]


@dataclass(frozen=True)
class Call:
    """A call of an ATen operator, as its converter sees it besides the arguments.

    Attributes:
        g: writes the graph.
        shape: shape of the (first) result, the literal batch axis included.
    """

    g: PrimalBuilder
    shape: tuple[int, ...]


# converter(call, *args, **kwargs) -> result, or a tuple of them. Arguments are the operator's own, tensors as Operands.
Converter = Callable[..., Any]


class Refused(Exception):
    """A converter cannot express this call; the message says why, and what to do where something can be done."""


def operand(call: Call, x: Any) -> Operand:
    """A number or tensor as an operand of arithmetic on floats."""
    if not isinstance(x, (Constant,)):
        return call.g.scalar(float(x)) if isinstance(x, (bool, int, float)) else x
    if x.type.dtype.is_float:
        return x
    return frozen(x.numpy().astype(np.float64))


def constant_values(x: Any, what: str) -> NDArray[Any]:
    """The values of an operand that must never change: an index, a mask, a condition."""
    if not isinstance(x, Constant):
        raise Refused(f"{what} depends on the network's input")
    if x.is_live:
        raise Refused(
            f"{what} depends on weights; compute it once, outside forward, and keep it as a buffer of bools or integers"
        )
    return x.numpy()


def each(values: int | Sequence[int], count: int) -> list[int]:
    """One number for each of ``count`` axes, given as one for all or one each."""
    numbers = [values] if isinstance(values, int) else list(values)
    return [int(n) for n in (numbers * count if len(numbers) == 1 else numbers)]


def filled(call: Call, value: float) -> Constant:
    """A constant of the result's shape."""
    return frozen(np.full(call.shape, float(value)))
