"""What a converter sees of the node that it translates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx
import onnx.helper
from numpy.typing import NDArray

from boundflow_core.errors import IRError, UnsupportedOpError
from boundflow_core.ir.constants import Constant, frozen
from boundflow_core.ir.primal_builder import Operand, PrimalBuilder, Tensor

__all__ = ["Converter", "Known", "OnnxNode"]

# A value while a graph is read: a tensor that depends on the network's input, or a constant. Constants stay arrays of
# their ONNX element type as long as only shape arithmetic needs them.
Known = Tensor | Constant | NDArray[Any]


@dataclass(frozen=True)
class OnnxNode:
    """One node of an ONNX graph.

    Attributes:
        g: writes the network.
        proto: the node itself.
        name: its name, or that of its first output.
        opset: version of the operator set of the node's domain.
        inputs: its operands; None for an optional one that is left out.
        used: for each output, whether anything reads it.
        frozen: the constants made from arrays so far, by name of their value: each becomes one constant only.
    """

    g: PrimalBuilder
    proto: onnx.NodeProto
    name: str
    opset: int
    inputs: tuple[Known | None, ...]
    used: tuple[bool, ...]
    frozen: dict[str, Constant]

    @property
    def op(self) -> str:
        """Name of the operator, with its domain where that is not the standard one."""
        return qualified(self.proto)

    # -- operands -----------------------------------------------------------------------------------------------------

    def has(self, number: int) -> bool:
        """Whether operand ``number`` is given."""
        return number < len(self.inputs) and self.inputs[number] is not None

    def operand(self, number: int = 0) -> Operand:
        """Operand ``number``, a tensor or a constant.

        Raises:
            IRError: it is left out.
            LoadError: a constant that is not finite.
        """
        value = self.inputs[number] if self.has(number) else None
        if value is None:
            raise IRError(f"operand {number} is missing")
        if isinstance(value, (Tensor, Constant)):
            return value
        name = self.proto.input[number]
        if name not in self.frozen:
            self.frozen[name] = frozen(value, f"constant {name!r}")
        return self.frozen[name]

    def optional(self, number: int) -> Operand | None:
        """Operand ``number``, or None where it is left out."""
        return self.operand(number) if self.has(number) else None

    @property
    def operands(self) -> list[Operand]:
        """All operands."""
        return [self.operand(number) for number in range(len(self.inputs))]

    def weight(self, number: int, what: str) -> Constant:
        """Operand ``number``, which must be constant.

        Raises:
            UnsupportedOpError: it depends on the network's input.
        """
        value = self.operand(number)
        if not isinstance(value, Constant):
            self.unsupported(f"with {what} that depend on the network's input")
        return value

    def array(self, number: int, what: str) -> NDArray[Any]:
        """Operand ``number`` as an array; see :meth:`weight`."""
        value = self.inputs[number] if self.has(number) else None
        return value if isinstance(value, np.ndarray) else np.asarray(self.weight(number, what).numpy())

    def integers(self, number: int, what: str) -> list[int]:
        """Operand ``number`` as a list of whole numbers; see :meth:`weight`."""
        return [int(value) for value in self.array(number, what).ravel()]

    # -- attributes -----------------------------------------------------------------------------------------------

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute as a Python value; text as str."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def integer_list(self, name: str, number: int, since: int, what: str) -> list[int] | None:
        """Whole numbers that are the attribute ``name`` before opset ``since`` and operand ``number`` from then on."""
        if self.opset < since:
            values = self.attribute(name)
            return None if values is None else [int(value) for value in values]
        return self.integers(number, what) if self.has(number) else None

    # -- results ------------------------------------------------------------------------------------------------------

    def reads(self, number: int) -> bool:
        """Whether output ``number`` is used."""
        return number < len(self.used) and self.used[number]

    def unsupported(self, what: str, hint: str = "rewrite the network without it") -> NoReturn:
        """Raises UnsupportedOpError: the operator is known, but not ``what`` ("with cubic interpolation")."""
        raise UnsupportedOpError(f"{self.op} {what}", self.name, "the ONNX frontend", hint)


# converter(node) -> the node's outputs: one value, or a sequence of them.
Converter = Callable[[OnnxNode], "Known | Sequence[Known]"]


def qualified(proto: onnx.NodeProto) -> str:
    """``op_type``, or ``domain::op_type`` for operators that are not ONNX's own."""
    return proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}::{proto.op_type}"
