"""PrimalBuilder: writes a PrimalGraph operator by operator, checking types and folding constants as it goes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.errors import IRError, LoadError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import Constant, Derivation, frozen
from boundflow_core.ir.evaluate import evaluate_op
from boundflow_core.ir.primal import Node, PrimalGraph
from boundflow_core.ir.primal_ops import PRIMAL_OPS, PrimalOp, infer_type
from boundflow_core.ir.types import Attrs, DType, TensorType, format_shape

__all__ = ["Operand", "PrimalBuilder", "Tensor", "fold"]


@dataclass(frozen=True)
class Tensor:
    """A value of the graph that depends on the input."""

    name: str
    type: TensorType

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(dim) for dim in self.type.shape)  # type: ignore[arg-type]


Operand = Tensor | Constant


def fold(op: PrimalOp, attrs: Attrs, operands: Sequence[Constant]) -> Constant:
    """``op`` on constants: computed now, or remembered as a derivation where a source is live."""
    if not any(constant.is_live for constant in operands):
        return frozen(evaluate_op(op, attrs, [constant.numpy() for constant in operands]), f"result of {op.name}")
    builder = Builder(DType.FLOAT64)
    values = [
        builder.input(f"x{i}", c.type.shape, DType.FLOAT64 if c.type.dtype.is_float else c.type.dtype)
        for i, c in enumerate(operands)
    ]
    kind = op.emit(builder, attrs, 0, *values).type
    return Constant(kind, derivation=Derivation(op, attrs, tuple(operands)))


class PrimalBuilder:
    """Writes a graph. Operators on constants alone are folded and give a constant.

    Args:
        name: the network's name.
        input_name: name of the input value.
        shape: shape of the input, one sample.
    """

    def __init__(self, name: str, input_name: str, shape: Sequence[int]) -> None:
        self.name = name
        self.input = Tensor(input_name, TensorType(DType.FLOAT32, tuple(shape)))
        self._by_output: dict[str, Node] = {}
        self._constants: dict[int, str] = {}
        self._constants_by_name: dict[str, Constant] = {}
        self._names: set[str] = {input_name}
        self._node_names: set[str] = set()
        self._source = "node"

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Marks what is written inside as coming from node ``name`` of the source network."""
        before, self._source = self._source, name
        try:
            yield
        finally:
            self._source = before

    def op(self, op: str | PrimalOp, *operands: Operand | NDArray[Any], **attributes: Any) -> Any:
        """Writes an operator, given by name or (one of a plugin's own) as itself.

        Gives a Tensor, or a Constant where all operands are constants.

        Raises:
            IRError: unknown operator, or operands that are not legal; the message names the source node.
        """
        if isinstance(op, str) and op not in PRIMAL_OPS:
            raise IRError(f"no operator {op!r} in the normalized set")
        spec = PRIMAL_OPS[op] if isinstance(op, str) else op
        values: list[Operand] = [x if isinstance(x, (Tensor, Constant)) else frozen(x) for x in operands]
        if not spec.accepts(len(values)):
            raise IRError(
                f"{spec.name} at node {self._source!r} takes ({', '.join(spec.operands)}), not {len(values)} operands"
            )
        try:
            attrs = Attrs(attributes)
            if all(isinstance(value, Constant) for value in values):
                return fold(spec, attrs, [value for value in values if isinstance(value, Constant)])
            if spec.elementwise or spec.name == "matmul":
                values = self._aligned(values)
            kind = infer_type(spec, attrs, [(value.type, isinstance(value, Tensor)) for value in values])
        except (IRError, LoadError) as error:
            raise type(error)(f"{spec.name} at node {self._source!r}: {error}") from error
        names = tuple(self._constant_name(v) if isinstance(v, Constant) else v.name for v in values)
        output = self._unique(self._source, self._names)
        node_name = self._unique(self._source, self._node_names)
        self._by_output[output] = Node(node_name, spec, names, output, attrs, kind)
        return Tensor(output, kind)

    def _aligned(self, values: Sequence[Operand]) -> list[Operand]:
        """Operands that broadcast as in NumPy, also once a batch axis is in front of those that depend on the input.

        These get the largest rank of all operands, by axes of size 1 in front; constants stay as they are.
        """
        rank = max(len(value.shape) for value in values)
        return [
            self.op("reshape", value, shape=(1,) * (rank - len(value.shape)) + value.shape)
            if isinstance(value, Tensor) and len(value.shape) < rank
            else value
            for value in values
        ]

    def _constant_name(self, constant: Constant) -> str:
        # By identity; the constant is kept, so that its id is not given to another one.
        if id(constant) not in self._constants:
            name = self._constants[id(constant)] = self._unique("c", self._names)
            self._constants_by_name[name] = constant
        return self._constants[id(constant)]

    @staticmethod
    def _unique(name: str, taken: set[str]) -> str:
        candidates = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(1)))
        found = next(candidate for candidate in candidates if candidate not in taken)
        taken.add(found)
        return found

    # -- arithmetic that has no operator of its own -------------------------------------------------------------------

    def scalar(self, number: float) -> Constant:
        return frozen(np.float64(number))

    def add(self, x: Operand, y: Operand) -> Any:
        return self.op("add", x, y)

    def mul(self, x: Operand, y: Operand) -> Any:
        return self.op("mul", x, y)

    def neg(self, x: Operand) -> Any:
        return self.op("mul", x, self.scalar(-1.0))

    def sub(self, x: Operand, y: Operand) -> Any:
        return self.op("add", x, self.neg(y))

    def div(self, x: Operand, y: Operand) -> Any:
        return self.op("mul", x, self.op("reciprocal", y))

    @property
    def nodes_by_output(self) -> Mapping[str, Node]:
        """What has been written, by the name of its result."""
        return self._by_output

    @property
    def constants_by_name(self) -> Mapping[str, Constant]:
        return self._constants_by_name

    def finish(self, output: Operand) -> PrimalGraph:
        """The graph with this result.

        Raises:
            IRError: the output does not depend on the input.
        """
        if isinstance(output, Constant):
            raise IRError(f"the output of {self.name} does not depend on its input")
        nodes = _needed(list(self._by_output.values()), output.name)
        used = {name for node in nodes for name in node.inputs}
        constants = {name: constant for name, constant in self._constants_by_name.items() if name in used}
        return PrimalGraph(self.name, self.input.name, self.input.type, nodes, output.name, constants)

    def __repr__(self) -> str:
        return f"PrimalBuilder({self.name}, input {format_shape(self.input.shape)}, {len(self._by_output)} nodes)"


def _needed(nodes: Sequence[Node], output: str) -> tuple[Node, ...]:
    wanted = {output}
    kept = []
    for node in reversed(nodes):
        if node.output in wanted:
            kept.append(node)
            wanted.update(node.inputs)
    return tuple(reversed(kept))
