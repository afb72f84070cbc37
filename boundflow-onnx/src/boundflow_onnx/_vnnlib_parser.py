"""The grammar of VNN-LIB: a pushdown automaton over the tokens of a file (no recursion, no syntax tree)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import isinf
from typing import TypeAlias

from boundflow_core.errors import PropertyError
from boundflow_core.property import Property
from boundflow_onnx._vnnlib_dnf import MAX_DISJUNCTS, MAX_NUMBERS, Conj, Cube, Interned, TooLarge, Unbounded, cases
from boundflow_onnx._vnnlib_terms import ARITHMETIC, Linear, compare
from boundflow_onnx._vnnlib_tokens import NUMBER, VARIABLE, ErrorAt, Scanner

__all__ = ["Reader"]


@dataclass(slots=True)
class _And:
    """An open ``assert`` or ``and``. An ``and`` directly inside another one adds to the same conjunction."""

    offset: int
    op: str
    conj: Conj
    operands: int = 0


@dataclass(slots=True)
class _Or:
    """An open ``or``. An ``or`` directly inside another one adds to the same list."""

    offset: int
    cubes: list[Cube]
    op: str = "or"
    operands: int = 0


@dataclass(slots=True)
class _Term:
    """An open comparison or arithmetic term."""

    offset: int
    op: str
    operands: list[Linear] = field(default_factory=list)


@dataclass(slots=True)
class _Flat:
    """An open declaration (its words are kept) or a command that is passed over (they are not)."""

    offset: int
    op: str
    words: list[str] = field(default_factory=list)
    depth: int = 0


_Frame: TypeAlias = "_And | _Or | _Term | _Flat"

_COMPARISONS = frozenset({"<=", ">=", "<", ">", "="})
_DECLARATIONS = frozenset({"declare-const", "declare-fun"})
_PASSED_OVER = frozenset({"check-sat", "echo", "exit", "get-info", "get-model", "get-value"}) | frozenset(
    {"set-info", "set-logic", "set-option"}
)
_IS_NUMBER = re.compile(NUMBER).fullmatch
_IS_VARIABLE = re.compile(VARIABLE).fullmatch
_LIKE_NUMBER = re.compile(r"[+-]?(?:[0-9.].*|nan|inf|infinity)", re.IGNORECASE | re.DOTALL).fullmatch
_TOO_LARGE = f"multiplied out, this is more than {MAX_DISJUNCTS} disjuncts or {MAX_NUMBERS >> 27} GiB of numbers"


class Reader:
    """One pass over one file.

    ``stack`` holds the open parentheses; ``opened`` is the offset of a '(' whose operator is still to come.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.tokens = Scanner(path)
        self.codes: dict[str, int] = {}
        self.declared_at: dict[int, int] = {}
        self.interned = Interned()
        self.top = Conj(self.interned)
        self.stack: list[_Frame] = []
        self.opened: int | None = None

    def read(self) -> Property:
        """Read the file.

        Raises:
            ErrorAt, PropertyError: see :func:`boundflow_onnx.vnnlib.read_vnnlib`.
        """
        on: dict[str, Callable[[re.Match[str]], None]] = {
            "fact": self._on_fact,
            "atom": self._on_atom,
            "head": self._on_head,
            "declare": self._on_declare,
            "open": self._on_open,
            "close": self._on_close,
            "word": self._on_word,
            "quoted": self._on_quoted,
            "string": self._on_string,
            "unclosed": self._on_unclosed,
        }
        for match in self.tokens:
            on[match.lastgroup or ""](match)
        if self.stack or self.opened is not None:
            offset = self.stack[0].offset if self.stack else self.opened or 0
            raise ErrorAt(offset, "this '(' is never closed: a ')' is missing, or the file is truncated")
        return self._property()

    # --- tokens -------------------------------------------------------------------------------------------------------

    def _on_fact(self, match: re.Match[str]) -> None:
        """``(assert (<= X_0 1.5))``: most of a large file, so it takes the shortest way."""
        if self.stack or self.opened is not None:
            if not self._passes_over():
                self._enter("assert", self._at(match))
            return
        op, name, number = match.group("fact_op", "fact_left", "fact_number")
        code = self.codes.get(name)
        if code is None or code < 0:
            self._compare_number(self.top, op, name, number, match, "fact_left", "fact_number")
            return
        value = float(number)
        if isinf(value):
            raise ErrorAt(self._at(match, "fact_number"), _bad_literal(number))
        if op == "<=":
            self.top.add_upper(code, value)
        else:
            self.top.add_lower(code, value)

    def _on_atom(self, match: re.Match[str]) -> None:
        """``(<= X_0 1.5)`` or ``(<= Y_0 Y_1)``."""
        if self._passes_over():
            return
        op, left, number, right = match.group("op", "left", "number", "right")
        offset = self._at(match)
        parent = self._formula_parent(op, offset)
        target = parent.conj if isinstance(parent, _And) else Conj(self.interned)
        if number is not None:
            self._compare_number(target, op, left, number, match, "left", "number")
        else:
            a = Linear({self._code(left, self._at(match, "left")): 1.0}, 0.0)
            b = Linear({self._code(right, self._at(match, "right")): 1.0}, 0.0)
            compare(target, op, a, b, offset)
        if isinstance(parent, _Or):
            parent.cubes.extend(target.cubes())

    def _on_head(self, match: re.Match[str]) -> None:
        if isinstance(frame := self._top(), _Flat):
            frame.depth += 1
        else:
            self._enter(match.group("head_op"), self._at(match))

    def _on_declare(self, match: re.Match[str]) -> None:
        if not self._passes_over():
            if self.stack or self.opened is not None:
                self._enter("declare-const", self._at(match))
            self._declare(match.group("name"), self._at(match, "name"))

    def _on_open(self, match: re.Match[str]) -> None:
        if isinstance(frame := self._top(), _Flat):
            frame.depth += 1
            self._keep(frame, "(")
            return
        self._expect_operand(self._at(match))
        self.opened = self._at(match)

    def _on_close(self, match: re.Match[str]) -> None:
        if self.opened is not None:
            raise ErrorAt(self.opened, "empty parentheses")
        if not self.stack:
            raise ErrorAt(self._at(match), "this ')' closes nothing")
        frame = self.stack[-1]
        if isinstance(frame, _Flat) and frame.depth:
            frame.depth -= 1
            self._keep(frame, ")")
            return
        self.stack.pop()
        if isinstance(frame, _And):
            self._close_and(frame, self._at(match))
        elif isinstance(frame, _Or):
            self._close_or(frame)
        elif isinstance(frame, _Term):
            self._close_term(frame)
        else:
            self._close_flat(frame)

    def _on_word(self, match: re.Match[str]) -> None:
        self._word(match.group(), self._at(match), quoted=False)

    def _on_quoted(self, match: re.Match[str]) -> None:
        self._word(match.group()[1:-1], self._at(match), quoted=True)

    def _on_string(self, match: re.Match[str]) -> None:
        if not isinstance(self._top(), _Flat):
            raise ErrorAt(self._at(match), f"a string is out of place here: {_shown(match.group())}")

    def _on_unclosed(self, match: re.Match[str]) -> None:
        raise ErrorAt(self._at(match), f"this {match.group()[0]} is never closed")

    def _word(self, word: str, offset: int, quoted: bool) -> None:
        if self.opened is not None:
            start, self.opened = self.opened, None
            self._enter(word, start)
            return
        frame = self._top()
        if isinstance(frame, _Flat):
            self._keep(frame, word)
        elif isinstance(frame, _Term):
            frame.operands.append(self._operand(word, offset, quoted))
        elif frame is None:
            raise ErrorAt(offset, f"expected a command such as (assert ...), found {_shown(word)}")
        else:
            self._truth(frame, word, offset)

    # --- opening ------------------------------------------------------------------------------------------------------

    def _enter(self, op: str, offset: int) -> None:
        """A parenthesis with operator ``op`` opens."""
        self._expect_operand(offset)
        frame = self._top()
        if frame is None:
            if op == "assert":
                self.stack.append(_And(offset, op, self.top))
            elif op in _DECLARATIONS or op in _PASSED_OVER:
                self.stack.append(_Flat(offset, op))
            else:
                raise ErrorAt(offset, f"unknown command {_shown(op)}")
        elif isinstance(frame, _Term):
            if op not in ARITHMETIC:
                raise ErrorAt(offset, f"unknown operator {_shown(op)} in a term (known: {' '.join(ARITHMETIC)})")
            self.stack.append(_Term(offset, op))
        else:
            parent = self._formula_parent(op, offset)
            if op == "and":
                self.stack.append(_And(offset, op, parent.conj if isinstance(parent, _And) else Conj(self.interned)))
            elif op == "or":
                self.stack.append(_Or(offset, parent.cubes if isinstance(parent, _Or) else []))
            else:
                self.stack.append(_Term(offset, op))

    def _formula_parent(self, op: str, offset: int) -> _And | _Or:
        """The open formula of which the parenthesis ``(op ...`` at ``offset`` becomes an operand."""
        self._expect_operand(offset)
        frame = self._top()
        if frame is None:
            raise ErrorAt(offset, f"unknown command {_shown(op)}")
        if not isinstance(frame, _And | _Or):
            raise ErrorAt(offset, f"{_shown(op)} is out of place inside ({frame.op} ...)")
        if op not in _COMPARISONS and op not in ("and", "or"):
            if op == "assert" or op in _DECLARATIONS or op in _PASSED_OVER:
                raise ErrorAt(offset, f"({op} ...) inside ({frame.op} ...): a ')' is missing before it")
            raise ErrorAt(offset, f"unknown operator {_shown(op)} (known: and or <= >= < > =)")
        self._count_operand(frame, offset)
        return frame

    def _expect_operand(self, offset: int) -> None:
        if self.opened is not None:
            raise ErrorAt(offset, "expected an operator after '(', found '('")

    def _count_operand(self, frame: _And | _Or, offset: int) -> None:
        frame.operands += 1
        if frame.op == "assert" and frame.operands > 1:
            raise ErrorAt(offset, "assert takes one formula")

    # --- closing ------------------------------------------------------------------------------------------------------

    def _close_and(self, frame: _And, end: int) -> None:
        if not frame.operands:
            raise ErrorAt(frame.offset, f"{frame.op} without an operand")
        parent = self._top()
        if isinstance(parent, _Or):
            try:
                parent.cubes.extend(frame.conj.cubes())
            except TooLarge:
                raise ErrorAt(frame.offset, _TOO_LARGE) from None

    def _close_or(self, frame: _Or) -> None:
        if not frame.operands:
            raise ErrorAt(frame.offset, "or without an operand")
        parent = self._top()
        if isinstance(parent, _And):
            parent.conj.add_cubes(frame.cubes)

    def _close_term(self, frame: _Term) -> None:
        parent = self._top()
        if frame.op not in _COMPARISONS:
            assert isinstance(parent, _Term)
            fewest, rule = ARITHMETIC[frame.op]
            if len(frame.operands) < fewest:
                raise ErrorAt(frame.offset, f"{frame.op} needs {fewest} operand(s)")
            parent.operands.append(rule(frame.operands, frame.offset))
            return
        assert isinstance(parent, _And | _Or)
        if len(frame.operands) < 2:
            raise ErrorAt(frame.offset, f"{frame.op} needs two operands")
        target = parent.conj if isinstance(parent, _And) else Conj(self.interned)
        for left, right in pairwise(frame.operands):
            compare(target, frame.op, left, right, frame.offset)
        if isinstance(parent, _Or):
            parent.cubes.extend(target.cubes())

    def _close_flat(self, frame: _Flat) -> None:
        if frame.op in _PASSED_OVER:
            return
        arguments = [] if frame.op == "declare-const" else ["(", ")"]
        if len(frame.words) != len(arguments) + 2 or frame.words[1:-1] != arguments:
            form = "name Real" if frame.op == "declare-const" else "name () Real"
            raise ErrorAt(frame.offset, f"malformed declaration, expected ({frame.op} {form})")
        name, sort = frame.words[0], frame.words[-1]
        if sort != "Real":
            raise ErrorAt(frame.offset, f"{_shown(name)} must be of sort Real, not {_shown(sort)}")
        self._declare(name, frame.offset)

    # --- meaning ------------------------------------------------------------------------------------------------------

    def _declare(self, name: str, offset: int) -> None:
        if not _IS_VARIABLE(name):
            raise ErrorAt(offset, f"unsupported variable {_shown(name)}: only X_0, ... (inputs) and Y_0, ... (outputs)")
        if name in self.codes:
            raise ErrorAt(offset, f"{name} is declared twice")
        index = int(name[2:])
        code = self.codes[name] = index if name[0] == "X" else ~index
        self.declared_at[code] = offset

    def _code(self, name: str, offset: int) -> int:
        code = self.codes.get(name)
        if code is None:
            raise ErrorAt(offset, f"{_shown(name)} is not declared")
        return code

    def _operand(self, word: str, offset: int, quoted: bool) -> Linear:
        if not quoted and _IS_NUMBER(word):
            value = float(word)
            if isinf(value):
                raise ErrorAt(offset, _bad_literal(word))
            return Linear({}, value)
        if not quoted and _LIKE_NUMBER(word):
            raise ErrorAt(offset, _bad_literal(word))
        return Linear({self._code(word, offset): 1.0}, 0.0)

    def _truth(self, frame: _And | _Or, word: str, offset: int) -> None:
        if word not in ("true", "false"):
            raise ErrorAt(offset, f"expected a constraint such as (<= X_0 1.0), found {_shown(word)}")
        self._count_operand(frame, offset)
        target = frame.conj if isinstance(frame, _And) else Conj(self.interned)
        compare(target, "<=", Linear({}, float(word == "false")), Linear({}, 0.0), offset)
        if isinstance(frame, _Or):
            frame.cubes.extend(target.cubes())

    def _compare_number(
        self, target: Conj, op: str, name: str, number: str, match: re.Match[str], name_group: str, number_group: str
    ) -> None:
        """``name op number``, the common comparison, without building terms."""
        code = self._code(name, self._at(match, name_group))
        value = float(number)
        if isinf(value):
            raise ErrorAt(self._at(match, number_group), _bad_literal(number))
        if op[0] != ">":
            if code >= 0:
                target.add_upper(code, value)
            else:
                target.add_row(((~code, 1.0),), 0.0 - value)
        if op[0] != "<":
            if code >= 0:
                target.add_lower(code, value)
            else:
                target.add_row(((~code, -1.0),), value)

    def _property(self) -> Property:
        inputs, outputs = self._declared("X"), self._declared("Y")
        try:
            found = cases(self.top, inputs, outputs)
        except TooLarge:
            raise PropertyError(f"{self.path}: {_TOO_LARGE}") from None
        except Unbounded as error:
            raise ErrorAt(self.declared_at[error.index], f"X_{error.index} has no {error.side} bound") from None
        if not found:
            for i, lower in self.top.lower.items():
                upper = self.top.upper.get(i, lower)
                if lower > upper:
                    raise ErrorAt(self.declared_at[i], f"empty input region: X_{i} >= {lower!r} and X_{i} <= {upper!r}")
            raise PropertyError(f"{self.path}: empty input region: some lower > upper in each disjunct")
        return Property(inputs, outputs, tuple(found), self.path)

    def _declared(self, kind: str) -> int:
        """The number of variables of a kind, whose indices must be 0, 1, ..."""
        names = [name for name in self.codes if name[0] == kind]
        if not names:
            raise PropertyError(f"{self.path}: no {'input' if kind == 'X' else 'output'} {kind}_0 is declared")
        last = max(names, key=lambda name: int(name[2:]))
        if int(last[2:]) != len(names) - 1:
            gap = next(i for i in range(len(names)) if f"{kind}_{i}" not in self.codes)
            raise ErrorAt(self.declared_at[self.codes[last]], f"{last} is declared, but {kind}_{gap} is not")
        return len(names)

    # --- little helpers -----------------------------------------------------------------------------------------------

    def _top(self) -> _Frame | None:
        return self.stack[-1] if self.stack else None

    def _at(self, match: re.Match[str], group: str | int = 0) -> int:
        return self.tokens.base + match.start(group)

    def _passes_over(self) -> bool:
        """Whether a token that is a whole parenthesis lies inside a command that is passed over."""
        frame = self._top()
        if isinstance(frame, _Flat):
            self._keep(frame, "(...)")
            return True
        return False

    def _keep(self, frame: _Flat, word: str) -> None:
        # More words than the longest declaration are an error anyway, so they need no memory.
        if frame.op in _DECLARATIONS and len(frame.words) < 8:
            frame.words.append(word)


def _shown(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:37] + "...")


def _bad_literal(word: str) -> str:
    return f"bad number {_shown(word)}: expected a finite decimal such as -1.5 or 1e-05"
