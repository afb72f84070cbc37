"""The engine of program passes: writes a program anew, where a rule may write something else for an operation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import Constant
from boundflow_core.ir.program import BoundProgram, Composite, Op, Value
from boundflow_core.ir.types import DType

__all__ = ["OpRewrite", "Rewriter", "begin", "decompose", "inline", "rewrite"]


class Rewriter(Builder):
    """A builder that can look back at what it has written.

    Attributes:
        arranged: constants in another arrangement, by constant and arrangement.
        refused: what of that kind is known not to be possible.
        moves_reshapes: whether reshapes move through elementwise operations too, or permutations alone.
        tag, tags: a mark of the caller's, and the mark that was set when each operation's value was written.
    """

    def __init__(self, dtype: DType, name: str) -> None:
        super().__init__(dtype, name)
        self._producers: dict[Value, Op] = {}
        self._settled: dict[Value, bool] = {}
        self.arranged: dict[Any, Value] = {}
        self.refused: set[Any] = set()
        self.moves_reshapes = True
        self.tag = 0
        self.tags: dict[Value, int] = {}

    def note(self, op: Op) -> None:
        for value in op.outputs:
            self._producers[value] = op
            self.tags[value] = self.tag
        frozen = True
        for value in op.inputs:
            if not self.is_weight(value):
                return
            frozen = frozen and self.is_frozen(value)
        self._settled.update(dict.fromkeys(op.outputs, frozen))

    def finish(self, outputs: Mapping[str, Value]) -> BoundProgram:
        """The program with these results; the rewriter forgets everything, as programs are rewritten many times."""
        program = super().finish(outputs)
        self.forget()
        return program

    def forget(self) -> None:
        super().forget()
        self._producers, self._settled, self.arranged, self.tags = {}, {}, {}, {}
        self.refused = set()

    def producer(self, value: Value) -> Op | None:
        """The operation that defines ``value``; None for inputs and constants."""
        return self._producers.get(value)

    def constant_of(self, value: Value) -> Constant | None:
        """What ``value`` holds if it is a constant."""
        return self._constants.get(value)

    def is_weight(self, value: Value) -> bool:
        """Whether ``value`` depends on constants alone."""
        return value in self._constants or value in self._settled

    def is_frozen(self, value: Value) -> bool:
        """Whether ``value`` depends on constants alone that never change, so that it is computed before any run."""
        constant = self._constants.get(value)
        return not constant.is_live if constant is not None else self._settled.get(value, False)


OpRewrite = Callable[[Rewriter, Op, Sequence[Value]], "Sequence[Value] | None"]


def float_type(program: BoundProgram) -> DType:
    """Element type of the program's floats."""
    values = [*program.inputs, *program.constants, *(value for op in program.ops for value in op.outputs)]
    return next((value.type.dtype for value in values if value.type.dtype.is_float), DType.FLOAT64)


def begin(program: BoundProgram) -> tuple[Rewriter, dict[Value, Value]]:
    """A rewriter that has the inputs and constants of ``program``, and what they are there."""
    b = Rewriter(float_type(program), program.name)
    values: dict[Value, Value] = {
        value: b.input(value.name, value.shape, value.type.dtype, program.groups.get(value.name))
        for value in program.inputs
    }
    for value, constant in program.constants.items():
        values[value] = b.read_constant(constant, value)
    return b, values


def rewrite(program: BoundProgram, rule: OpRewrite) -> BoundProgram:
    """``program`` with each operation replaced by what ``rule(rewriter, op, new_inputs)`` gives; None copies it.

    Common subexpressions are merged and operations that no output needs are dropped.
    """
    b, values = begin(program)
    for op in program.ops:
        inputs = [values[value] for value in op.inputs]
        b.mark(op.origin)
        outputs = rule(b, op, inputs)
        if outputs is None:
            outputs = b.copy(op, inputs)
        values.update(zip(op.outputs, outputs, strict=True))
    return b.finish({name: values[value] for name, value in program.outputs.items()})


def inline(b: Builder, program: BoundProgram, inputs: Mapping[str, Value]) -> dict[str, Value]:
    """Writes ``program`` into ``b`` on these inputs, by name; gives its results by name."""
    values = {value: inputs[value.name] for value in program.inputs}
    for value, constant in program.constants.items():
        values[value] = b.read_constant(constant, value)
    for op in program.ops:
        with b.origin(op.origin):
            outputs = b.copy(op, [values[value] for value in op.inputs])
        values.update(zip(op.outputs, outputs, strict=True))
    return {name: values[value] for name, value in program.outputs.items()}


def decompose(program: BoundProgram, keep: Collection[str] | Callable[[Op], bool] = ()) -> BoundProgram:
    """``program`` with all composites written out in primitives, but for those that ``keep`` names.

    Where ``keep`` is a function of the operations of ``program``, those that it is false for are written out once:
    composites in their decompositions stay.
    """
    if callable(keep):
        return _written_once(program, lambda op: not keep(op))
    kept = keep
    while any(isinstance(op.spec, Composite) and op.name not in kept for op in program.ops):
        program = _written_once(program, lambda op: op.name not in kept)
    return program


def _written_once(program: BoundProgram, out: Callable[[Op], bool]) -> BoundProgram:
    def written(b: Rewriter, op: Op, inputs: Sequence[Value]) -> Sequence[Value] | None:
        return op.spec.decompose(b, inputs, op.attrs) if isinstance(op.spec, Composite) and out(op) else None

    return rewrite(program, written)
