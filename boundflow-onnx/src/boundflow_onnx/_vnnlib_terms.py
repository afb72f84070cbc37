"""Linear terms of a VNN-LIB file: arithmetic on them, and what a comparison of two of them adds to a conjunction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from boundflow_onnx._vnnlib_dnf import Conj
from boundflow_onnx._vnnlib_tokens import ErrorAt

__all__ = ["ARITHMETIC", "Linear", "compare"]


@dataclass(slots=True)
class Linear:
    """A linear term: variable code -> coefficient, and a constant. Input i has code i, output i has code ~i."""

    coefficients: dict[int, float]
    constant: float


def compare(target: Conj, op: str, left: Linear, right: Linear, offset: int) -> None:
    """Add ``left op right`` to ``target``.

    Raises:
        ErrorAt: (at ``offset``) inputs and outputs together, several inputs, or a number too large for float64.
    """
    if op[0] != ">":
        _at_most_zero(target, _minus(left, right), offset)
    if op[0] != "<":
        _at_most_zero(target, _minus(right, left), offset)


def _at_most_zero(target: Conj, linear: Linear, offset: int) -> None:
    """Add ``linear <= 0``."""
    terms = sorted((code, c) for code, c in linear.coefficients.items() if c != 0.0)
    constant = linear.constant + 0.0
    if not (isfinite(constant) and all(isfinite(c) for _, c in terms)):
        raise ErrorAt(offset, "a constant is too large for float64")
    if not terms:
        if constant > 0:  # False: a row that no output satisfies.
            target.add_row((), constant)
        return
    if terms[0][0] < 0 <= terms[-1][0]:
        raise ErrorAt(offset, "a constraint on inputs and outputs together is not supported")
    if terms[0][0] < 0:
        target.add_row(tuple((~code, c) for code, c in reversed(terms)), constant)
        return
    if len(terms) > 1:
        raise ErrorAt(offset, "a constraint on several inputs is not supported: the inputs must form a box")
    code, c = terms[0]
    bound = 0.0 - constant / c
    if not isfinite(bound):
        raise ErrorAt(offset, f"the bound on X_{code} is too large for float64")
    if c > 0:
        target.add_upper(code, bound)
    else:
        target.add_lower(code, bound)


def _minus(a: Linear, b: Linear) -> Linear:
    """``a - b``, leaving both as they are."""
    result = Linear(dict(a.coefficients), a.constant)
    _add_into(result, b, -1.0)
    return result


def _scaled(a: Linear, factor: float) -> Linear:
    return Linear({code: factor * c for code, c in a.coefficients.items()}, factor * a.constant)


def _add_into(total: Linear, operand: Linear, factor: float) -> None:
    for code, c in operand.coefficients.items():
        total.coefficients[code] = total.coefficients.get(code, 0.0) + factor * c
    total.constant += factor * operand.constant


# The rules below own their operands and may change them.


def _sum(operands: list[Linear], offset: int) -> Linear:
    # Into the largest operand, so that deeply nested sums stay linear.
    total = max(operands, key=lambda operand: len(operand.coefficients))
    for operand in operands:
        if operand is not total:
            _add_into(total, operand, 1.0)
    return total


def _difference(operands: list[Linear], offset: int) -> Linear:
    if len(operands) == 1:
        return _scaled(operands[0], -1.0)
    for operand in operands[1:]:
        _add_into(operands[0], operand, -1.0)
    return operands[0]


def _product(operands: list[Linear], offset: int) -> Linear:
    result = operands[0]
    for operand in operands[1:]:
        if result.coefficients and operand.coefficients:
            raise ErrorAt(offset, "the product of two variables is not linear")
        result = _scaled(result, operand.constant) if result.coefficients else _scaled(operand, result.constant)
    return result


def _quotient(operands: list[Linear], offset: int) -> Linear:
    result = operands[0]
    for operand in operands[1:]:
        divisor = operand.constant
        if operand.coefficients:
            raise ErrorAt(offset, "division by a variable is not linear")
        if divisor == 0.0:
            raise ErrorAt(offset, "division by zero")
        result = Linear({code: c / divisor for code, c in result.coefficients.items()}, result.constant / divisor)
    return result


ARITHMETIC: dict[str, tuple[int, Callable[[list[Linear], int], Linear]]] = {
    "+": (1, _sum),
    "-": (1, _difference),
    "*": (2, _product),
    "/": (2, _quotient),
}
"""operator -> (fewest operands, rule). A rule takes the operands and the offset for its errors."""
