"""VNN-LIB 2.0: the syntax tree of the package ``vnnlib``, made into the conjunctions of 1.0 files."""

from __future__ import annotations

import json
from importlib.util import find_spec
from math import isinf, prod
from typing import Any

import numpy as np

from boundflow_core.errors import PropertyError
from boundflow_core.property import Property
from boundflow_onnx._vnnlib_dnf import Conj, Cube, Interned, TooLarge, Unbounded, cases
from boundflow_onnx._vnnlib_terms import ARITHMETIC, Linear, compare
from boundflow_onnx._vnnlib_tokens import ErrorAt

__all__ = ["read_query"]

# Comparisons of the tree, as the closed ones that stand for them. What is not equal is, in closed form, anything.
_RELATIONS = {
    "LessEqual": "<=",
    "LessThan": "<=",
    "GreaterEqual": ">=",
    "GreaterThan": ">=",
    "Equal": "=",
    "NotEqual": None,
}
_TERMS = {"Plus": "+", "Multiply": "*"}


def read_query(path: str, text: str) -> Property:
    """The property that the text of a VNN-LIB 2.0 file states.

    Args:
        path: of the file, for messages.

    Raises:
        PropertyError: ``file:line: what is wrong``; or the package ``vnnlib`` is not installed.
    """
    if find_spec("vnnlib") is None:
        raise PropertyError(
            f"{path}: VNN-LIB 2.0 is read by the package vnnlib, which is not installed: "
            "pip install 'boundflow-onnx[vnnlib2]'"
        )
    import vnnlib

    try:
        return _Reader(path).read(vnnlib.parse_query_string(text))
    except vnnlib.VNNLibException as error:
        raise PropertyError(f"{path}{_told(str(error))}") from None
    except ErrorAt as error:
        where = f":{error.offset}" if error.offset else ""
        raise PropertyError(f"{path}{where}: {error.message}") from None
    except RecursionError:
        raise PropertyError(f"{path}: formulas are nested too deeply") from None


class _Reader:
    """One query; lines take the place of offsets."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.interned = Interned()
        self.line = 0  # of the latest variable or number
        self._given = ""  # the name of the input

    def read(self, query: Any) -> Property:
        network = self._only(query.networks, "networks")
        given = self._only(network.inputs, "inputs of the network")
        wanted = self._only(network.outputs, "outputs of the network")
        if len(network.hidden):
            raise PropertyError(f"{self.path}: constraints on values inside of the network are not supported")
        inputs, outputs = prod(given.shape), prod(wanted.shape)
        self._given = given.name
        top = Conj(self.interned)
        for assertion in query.assertions:
            self._conjoin(top, assertion.expr)
        try:
            found = cases(top, inputs, outputs)
        except TooLarge:
            raise PropertyError(f"{self.path}: multiplied out, this has too many disjuncts") from None
        except Unbounded as error:
            raise PropertyError(
                f"{self.path}: {given.name}, element {error.index}, has no {error.side} bound"
            ) from None
        if not found:
            raise PropertyError(f"{self.path}: empty input region: some lower > upper in each disjunct")
        return Property(inputs, outputs, tuple(found), self.path)

    def _only(self, found: Any, what: str) -> Any:
        if len(found) != 1:
            raise PropertyError(f"{self.path}: {len(found)} {what}, where one is supported")
        return found[0]

    # -- formulas -----------------------------------------------------------------------------------------------------

    def _conjoin(self, target: Conj, formula: Any) -> None:
        """``formula`` too."""
        kind = type(formula).__name__
        if kind == "And":
            for part in formula.args:
                self._conjoin(target, part)
        elif kind == "Or":
            cubes: list[Cube] = []
            for part in formula.args:
                self._either(cubes, part)
            target.add_cubes(cubes)
        elif kind in _RELATIONS:
            left, right = self._term(formula.lhs), self._term(formula.rhs)
            relation = _RELATIONS[kind]
            if relation is not None:
                compare(target, relation, left, right, self.line)
        else:
            raise ErrorAt(self.line, f"{kind} is not supported in a formula")

    def _either(self, cubes: list[Cube], formula: Any) -> None:
        """Or ``formula``."""
        if type(formula).__name__ == "Or":
            for part in formula.args:
                self._either(cubes, part)
            return
        one = Conj(self.interned)
        self._conjoin(one, formula)
        try:
            cubes.extend(one.cubes())
        except TooLarge:
            raise ErrorAt(self.line, "multiplied out, this has too many disjuncts") from None

    # -- terms --------------------------------------------------------------------------------------------------------

    def _term(self, term: Any) -> Linear:
        kind = type(term).__name__
        if kind == "Var":
            self.line = term.line
            return Linear({self._code(term): 1.0}, 0.0)
        if hasattr(term, "lexeme"):
            self.line = getattr(term, "line", self.line)
            value = float(term.lexeme)
            if isinf(value):
                raise ErrorAt(self.line, f"{term.lexeme} is too large for float64")
            return Linear({}, value)
        if kind == "Negate":
            return self._calculated("-", [term.expr])
        if kind == "Minus":
            return self._calculated("-", [term.head, *term.rest])
        if kind in _TERMS:
            return self._calculated(_TERMS[kind], list(term.args))
        raise ErrorAt(self.line, f"{kind} is not supported in a term")

    def _calculated(self, op: str, operands: list[Any]) -> Linear:
        found = [self._term(operand) for operand in operands]
        fewest, rule = ARITHMETIC[op]
        if len(found) < fewest:
            raise ErrorAt(self.line, f"{op} needs {fewest} operand(s)")
        return rule(found, self.line)

    def _code(self, variable: Any) -> int:
        """The element's flat number: of inputs i, of outputs ~i."""
        shape, indices = tuple(variable.shape), tuple(variable.indices)
        if len(shape) != len(indices) or any(not 0 <= i < n for i, n in zip(indices, shape, strict=True)):
            raise ErrorAt(variable.line, f"{variable.name}{list(indices)} is no element of shape {list(shape)}")
        flat = int(np.ravel_multi_index(indices, shape)) if shape else 0
        return flat if variable.name == self._given else ~flat


def _told(message: str) -> str:
    """``:line: what is wrong`` of an exception of the package, which holds JSON or a line of text."""
    try:
        first = json.loads(message)["errors"][0]
        hint = f" ({first['hint']})" if first.get("hint") else ""
        return f":{first['line']}: {first['message']}{hint}"
    except (ValueError, KeyError, IndexError, TypeError):
        return f": {' '.join(message.split())}"
