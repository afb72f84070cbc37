"""BoundProgram: a bound computation as typed, straight-line tensor code in single-assignment form.

A program is written with :class:`boundflow_core.ir.builder.Builder`; printing one gives a text that a person can read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from boundflow_core.ir.constants import Constant
from boundflow_core.ir.types import Attrs, Shape, SymDim, TensorType, concrete_dim, concrete_shape

if TYPE_CHECKING:
    from boundflow_core.ir.builder import Builder, Operand

__all__ = ["BoundProgram", "Composite", "DerivativeRule", "Op", "OpSpec", "Primitive", "Value"]


@dataclass(frozen=True)
class Primitive:
    """One of the closed set of operations of the IR; always one output.

    Attributes:
        name: its name in programs.
        doc: one line of documentation.
        kind: "elementwise", "contraction", "reduction", "layout" or "index".
        infer: rule of types, ``infer(input_types, attrs) -> output_type``; raises IRError for illegal operands.
        reference: meaning in NumPy, ``reference(input_arrays, attrs) -> array``, attributes free of symbols.
    """

    name: str
    doc: str
    kind: str
    infer: Callable[[Sequence[TensorType], Attrs], TensorType]
    reference: Callable[[Sequence[NDArray[Any]], Attrs], NDArray[Any]]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Composite:
    """A named operation declared by its decomposition, which a lowering may claim as a whole with one fused kernel.

    Attributes:
        name: its name in programs.
        doc: one line of documentation.
        decompose: ``decompose(builder, inputs, attrs) -> outputs`` writes the same computation in primitives.
        derivative: writes its gradient, see :data:`DerivativeRule`; without one, that of its decomposition is taken.
    """

    name: str
    doc: str
    decompose: Callable[[Builder, Sequence[Value], Attrs], tuple[Value, ...]]
    derivative: DerivativeRule | None = None

    def __str__(self) -> str:
        return self.name


OpSpec = Primitive | Composite


@dataclass(frozen=True, eq=False, repr=False)
class Value:
    """A tensor in a program, assigned once. Arithmetic on values writes operations through their builder."""

    id: int
    type: TensorType
    name: str
    builder: Builder | None = field(default=None, repr=False)

    # So that `array + value` is written by __radd__ below, instead of element by element by NumPy.
    __array_ufunc__ = None

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def rank(self) -> int:
        return len(self.type.shape)

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"

    def _b(self) -> Builder:
        assert self.builder is not None, "a finished program takes no further operations"
        return self.builder

    def __add__(self, other: Operand) -> Value:
        return self._b().add(self, other)

    def __radd__(self, other: Operand) -> Value:
        return self._b().add(other, self)

    def __sub__(self, other: Operand) -> Value:
        return self._b().sub(self, other)

    def __rsub__(self, other: Operand) -> Value:
        return self._b().sub(other, self)

    def __mul__(self, other: Operand) -> Value:
        return self._b().mul(self, other)

    def __rmul__(self, other: Operand) -> Value:
        return self._b().mul(other, self)

    def __truediv__(self, other: Operand) -> Value:
        return self._b().div(self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return self._b().div(other, self)

    def __neg__(self) -> Value:
        return self._b().neg(self)

    def __lt__(self, other: Operand) -> Value:
        return self._b().compare(self, other, "lt")

    def __le__(self, other: Operand) -> Value:
        return self._b().compare(self, other, "le")

    def __gt__(self, other: Operand) -> Value:
        return self._b().compare(self, other, "gt")

    def __ge__(self, other: Operand) -> Value:
        return self._b().compare(self, other, "ge")


@dataclass(frozen=True, eq=False)
class Op:
    """One operation: ``outputs = spec(inputs)``.

    Attributes:
        spec: the primitive or composite that it applies.
        origin: the network node that it was written for, for reports.
    """

    spec: OpSpec
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attrs: Attrs
    origin: str = ""

    @property
    def name(self) -> str:
        return self.spec.name

    def __str__(self) -> str:
        arguments = ", ".join(f"%{value.name}" for value in self.inputs)
        attributes = f" {{{self.attrs}}}" if self.attrs else ""
        outputs = ", ".join(repr(value) for value in self.outputs)
        origin = f"  # {self.origin}" if self.origin else ""
        return f"{outputs} = {self.name}({arguments}){attributes}{origin}"


# rule(builder, op, inputs, outputs, grads) -> gradients: for an operation from ``inputs`` to ``outputs`` (values of the
# builder's program; of ``op``, its attributes count), writes the gradient with respect to each input, of that input's
# type, from those with respect to the outputs. None stands for zero, on either side. What nobody needs is dropped.
DerivativeRule = Callable[
    ["Builder", Op, Sequence[Value], Sequence[Value], "Sequence[Value | None]"], "Sequence[Value | None]"
]


@dataclass(frozen=True, eq=False)
class BoundProgram:
    """Straight-line tensor code.

    Attributes:
        name: for reports.
        inputs: values handed in at each run; their names are the keys.
        constants: values that hold weights, with what they hold. A constant is read in the type of its value, so
            float32 weights in a float64 program are cast when they are loaded.
        ops: the operations, in an order in which each input is defined before it is read.
        outputs: result values by name.
        groups: which inputs, by name, change together ("region", "spec"...): a result that depends on one input of a
            group counts as depending on all of them.
    """

    name: str
    inputs: tuple[Value, ...]
    constants: Mapping[Value, Constant]
    ops: tuple[Op, ...]
    outputs: Mapping[str, Value]
    groups: Mapping[str, str] = field(default_factory=dict)

    def symbols(self) -> tuple[str, ...]:
        """Symbols of the dimensions, sorted; each occurs alone as a dimension of some input."""
        found: set[str] = set()
        for value in self.inputs:
            found.update(*(dim.symbols for dim in value.shape if isinstance(dim, SymDim)))
        return tuple(sorted(found))

    def bind(self, env: Mapping[str, int]) -> BoundProgram:
        """The same program with each symbol replaced by its value, so that all shapes are concrete."""
        renamed: dict[Value, Value] = {}

        types: dict[int, TensorType] = {}  # many values share one

        def value(old: Value) -> Value:
            found = renamed.get(old)
            if found is None:
                kind = types.get(id(old.type))
                if kind is None:
                    kind = types[id(old.type)] = TensorType(old.type.dtype, concrete_shape(old.shape, env))
                found = renamed[old] = Value(old.id, kind, old.name)
            return found

        return BoundProgram(
            self.name,
            tuple(value(v) for v in self.inputs),
            {value(v): constant for v, constant in self.constants.items()},
            tuple(
                Op(
                    op.spec,
                    tuple(map(value, op.inputs)),
                    tuple(map(value, op.outputs)),
                    bind_attrs(op.attrs, env),
                    op.origin,
                )
                for op in self.ops
            ),
            {name: value(v) for name, v in self.outputs.items()},
            self.groups,
        )

    def __str__(self) -> str:
        lines = [f"program {self.name}({', '.join(repr(v) for v in self.inputs)}) {{"]
        lines += [f"  %{v.name}: {v.type} = constant" for v in self.constants]
        lines += [f"  {op}" for op in self.ops]
        lines.append("  return " + ", ".join(f"{name}=%{v.name}" for name, v in self.outputs.items()))
        return "\n".join([*lines, "}"])


def bind_attrs(attrs: Attrs, env: Mapping[str, int]) -> Attrs:
    """``attrs`` with the symbols in shapes replaced by their values."""

    def bound(item: Any) -> Any:
        if isinstance(item, SymDim):
            return concrete_dim(item, env)
        if isinstance(item, tuple):
            parts = tuple(bound(part) for part in item)
            return item if all(part is old for part, old in zip(parts, item, strict=True)) else parts
        return item

    found = {key: bound(item) for key, item in attrs.items()}
    return attrs if all(found[key] is item for key, item in attrs.items()) else Attrs(found)


def live_ops(ops: Iterable[Op], outputs: Iterable[Value]) -> tuple[Op, ...]:
    """The operations of ``ops`` that some output needs, in their order."""
    needed = set(outputs)
    kept: list[Op] = []
    for op in reversed(list(ops)):
        if any(value in needed for value in op.outputs):
            kept.append(op)
            needed.update(op.inputs)
    return tuple(reversed(kept))
