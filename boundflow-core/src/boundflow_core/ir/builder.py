"""Builder: writes a BoundProgram operation by operation, checking types as it goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from boundflow_core.errors import IRError
from boundflow_core.ir.constants import Constant, frozen
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.program import BoundProgram, Composite, Op, Primitive, Value, live_ops
from boundflow_core.ir.types import Attrs, Dim, DType, Shape, TensorType

__all__ = ["Builder"]

# Bytes of an array up to which it is compared with those written before.
SMALL_ARRAY = 1 << 16

Operand = Value | Constant | np.ndarray[Any, Any] | float


class Builder:
    """Writes operations in program order. Writing the same operation twice gives the first one's value.

    Args:
        dtype: element type of the program's floats; Python numbers and float constants are read in it.
        name: name of the program, for reports.
    """

    def __init__(self, dtype: DType = DType.FLOAT64, name: str = "program") -> None:
        self.dtype = dtype
        self.name = name
        self._inputs: list[Value] = []
        self._groups: dict[str, str] = {}
        self._constants: dict[Value, Constant] = {}
        self._ops: list[Op] = []
        self._known: dict[Any, tuple[Value, ...]] = {}
        self._derived: list[Constant] = []
        self._arrays: dict[Any, Constant] = {}
        self._origin = ""
        self._count = 0
        self._forgotten = False

    # -- values ---------------------------------------------------------------------------------------------------

    def input(self, name: str, shape: Shape, dtype: DType | None = None, group: str | None = None) -> Value:
        """A tensor handed in at each run; inputs of one ``group`` change together (its own name if not given)."""
        if any(value.name == name for value in self._inputs):
            raise IRError(f"two inputs are named {name!r}")
        value = self._value(TensorType(dtype or self.dtype, tuple(shape)), name)
        self._inputs.append(value)
        self._groups[name] = group or name
        return value

    def constant(self, constant: Constant | np.ndarray[Any, Any] | float | int | bool) -> Value:
        """A constant as a value; floats take the program's element type. A derived constant is written out."""
        if not isinstance(constant, Constant):
            if isinstance(constant, (bool, int, float)):
                return self._scalar(constant)
            constant = self._same_array(frozen(constant))
        # By identity of the array; the constant is kept, so that no id is given away to another one.
        key = ("constant", id(constant.data) if constant.data is not None else id(constant))
        if key not in self._known:
            if constant.derivation is not None:
                operands = [self.constant(parent) for parent in constant.derivation.inputs]
                emit = constant.derivation.spec.emit
                self._derived.append(constant)
                self._known[key] = (emit(self, constant.derivation.attrs, 0, *operands),)
            else:
                dtype = self.dtype if constant.type.dtype.is_float else constant.type.dtype
                value = self._value(TensorType(dtype, constant.type.shape), f"w{len(self._constants)}")
                self._constants[value] = constant
                self._known[key] = (value,)
        return self._known[key][0]

    def _same_array(self, constant: Constant) -> Constant:
        """The first constant of these numbers, for small arrays that rules make anew each time they are asked."""
        data = constant.numpy()
        if data.nbytes > SMALL_ARRAY:
            return constant
        return self._arrays.setdefault((data.dtype.str, data.shape, data.tobytes()), constant)

    def read_constant(self, constant: Constant, like: Value) -> Value:
        """``constant`` as a value of the type and name of ``like``, a value of another program that holds it."""
        key = ("constant", id(constant.data))
        if key not in self._known:
            value = self._value(like.type, like.name)
            self._constants[value] = constant
            self._known[key] = (value,)
        return self._known[key][0]

    def _scalar(self, number: float | int | bool) -> Value:
        key = ("scalar", float(number), np.signbit(number))
        if key not in self._known:
            # With a point or an exponent, which the numbered names of results have not.
            value = self._value(TensorType(self.dtype, ()), repr(float(number)))
            # Infinities are legal numbers in a program (the start of a maximum), so no check for finiteness.
            array = np.asarray(number, dtype=np.float64)
            array.flags.writeable = False
            self._constants[value] = Constant(TensorType(DType.FLOAT64, ()), array)
            self._known[key] = (value,)
        return self._known[key][0]

    def _value(self, kind: TensorType, name: str | None = None) -> Value:
        self._count += 1
        return Value(self._count, kind, name or str(self._count), self)

    @contextmanager
    def origin(self, name: str) -> Iterator[None]:
        """Marks what is written inside as belonging to the network's node ``name``."""
        before, self._origin = self._origin, name
        try:
            yield
        finally:
            self._origin = before

    def mark(self, name: str) -> None:
        """What is written from here on belongs to the network's node ``name``: :meth:`origin` without an end."""
        self._origin = name

    # -- operations -----------------------------------------------------------------------------------------------

    def emit(self, spec: Primitive | Composite, *inputs: Operand, **attributes: Any) -> tuple[Value, ...]:
        """Writes one operation and gives its outputs.

        Raises:
            IRError: operands of a wrong type or shape, or values of another builder.
        """
        return self.write(spec, inputs, Attrs(attributes))

    def copy(self, op: Op, inputs: Sequence[Value]) -> tuple[Value, ...]:
        """Writes ``op``, of any program, on other operands; types are inferred only where these differ."""
        for value, old in zip(inputs, op.inputs, strict=True):
            if value.type is not old.type and value.type != old.type:
                return self.write(op.spec, inputs, op.attrs)
        return self.write(op.spec, inputs, op.attrs, tuple([value.type for value in op.outputs]))

    def write(
        self,
        spec: Primitive | Composite,
        inputs: Sequence[Operand],
        attrs: Attrs,
        kinds: tuple[TensorType, ...] | None = None,
    ) -> tuple[Value, ...]:
        """:meth:`emit` with ready-made attributes, and where they are known the types of the outputs."""
        values = tuple([x if isinstance(x, Value) else self.constant(x) for x in inputs])
        key = (spec.name, values, attrs)
        found = self._known.get(key)
        if found is not None:
            return found
        for value in values:
            if value.builder is not self:
                raise IRError(f"{spec.name}: %{value.name} belongs to another program")
        if self._forgotten:
            raise IRError(f"{spec.name}: the program {self.name} is finished, and nothing more can be written")
        if kinds is None:
            kinds = self._inferred(spec, values, attrs)
        outputs = tuple([self._value(kind) for kind in kinds])
        op = Op(spec, values, outputs, attrs, self._origin)
        self._ops.append(op)
        self._known[key] = outputs
        self.note(op)
        return outputs

    def note(self, op: Op) -> None:
        """Called with each operation that is new."""

    def _inferred(self, spec: Primitive | Composite, values: Sequence[Value], attrs: Attrs) -> tuple[TensorType, ...]:
        types = [value.type for value in values]
        try:
            return infer_types(spec, types, attrs, self.dtype)
        except IRError as error:
            operands = ", ".join(map(str, types))
            origin = f" (for {self._origin})" if self._origin else ""
            raise IRError(f"{spec.name}({operands}){{{attrs}}}{origin}: {error}") from error

    def _one(self, name: str, *inputs: Operand, **attributes: Any) -> Value:
        return self.emit(PRIMITIVES[name], *inputs, **attributes)[0]

    def emit_named(self, name: str, *inputs: Value, attrs: Attrs) -> Value:
        """Writes the primitive ``name`` with ready-made attributes."""
        return self.write(PRIMITIVES[name], inputs, attrs)[0]

    def finish(self, outputs: Mapping[str, Value]) -> BoundProgram:
        """The program with these results; operations that no result needs are dropped."""
        ops = live_ops(self._ops, outputs.values())
        used = {value for op in ops for value in op.inputs} | set(outputs.values())
        constants = {value: constant for value, constant in self._constants.items() if value in used}
        return BoundProgram(self.name, tuple(self._inputs), constants, ops, dict(outputs), dict(self._groups))

    def forget(self) -> None:
        """Lets go of everything that was written; nothing can be written from here on.

        Values refer to their builder, and it to them: what is never forgotten waits for the collector of cycles.
        """
        self._inputs, self._ops, self._constants, self._known = [], [], {}, {}
        self._derived, self._arrays = [], {}
        self._forgotten = True

    # -- elementwise ----------------------------------------------------------------------------------------------

    def add(self, x: Operand, y: Operand) -> Value:
        return self._one("add", x, y)

    def sub(self, x: Operand, y: Operand) -> Value:
        return self._one("sub", x, y)

    def mul(self, x: Operand, y: Operand) -> Value:
        return self._one("mul", x, y)

    def div(self, x: Operand, y: Operand) -> Value:
        return self._one("div", x, y)

    def maximum(self, x: Operand, y: Operand, *, free: bool = False) -> Value:
        """``free``: bounds hold whatever number this is, so that the analysis of rounding takes it for exact."""
        return self._one("maximum", x, y, **({"free": True} if free else {}))

    def minimum(self, x: Operand, y: Operand) -> Value:
        return self._one("minimum", x, y)

    def neg(self, x: Value) -> Value:
        return self._one("neg", x)

    def abs(self, x: Value) -> Value:
        return self._one("abs", x)

    def sign(self, x: Value) -> Value:
        return self._one("sign", x)

    def floor(self, x: Value) -> Value:
        return self._one("floor", x)

    def exp(self, x: Value) -> Value:
        return self._one("exp", x)

    def log(self, x: Value) -> Value:
        return self._one("log", x)

    def log1p(self, x: Value) -> Value:
        return self._one("log1p", x)

    def sqrt(self, x: Value) -> Value:
        return self._one("sqrt", x)

    def tanh(self, x: Value) -> Value:
        return self._one("tanh", x)

    def sigmoid(self, x: Value) -> Value:
        return self._one("sigmoid", x)

    def erf(self, x: Value) -> Value:
        return self._one("erf", x)

    def sin(self, x: Value) -> Value:
        return self._one("sin", x)

    def cos(self, x: Value) -> Value:
        return self._one("cos", x)

    def pow(self, x: Value, exponent: float) -> Value:
        return self._one("pow", x, exponent=float(exponent))

    def compare(self, x: Operand, y: Operand, relation: str, *, free: bool = False) -> Value:
        """``free``: bounds hold whichever way it comes out, so that the analysis of rounding need not cover both."""
        return self._one("compare", x, y, relation=relation, **({"free": True} if free else {}))

    def where(self, condition: Value, x: Operand, y: Operand) -> Value:
        return self._one("where", condition, x, y)

    def cast(self, x: Value, dtype: DType) -> Value:
        return x if x.type.dtype is dtype else self._one("cast", x, dtype=dtype)

    # -- contractions and reductions --------------------------------------------------------------------------------

    def matmul(self, x: Value, y: Value, *, transpose_a: bool = False, transpose_b: bool = False) -> Value:
        return self._one("matmul", x, y, transpose_a=transpose_a, transpose_b=transpose_b)

    def conv2d(
        self,
        x: Value,
        w: Value,
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> Value:
        """``padding`` is (top, left, bottom, right)."""
        return self._one("conv2d", x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)

    def conv2d_input_grad(
        self,
        g: Value,
        w: Value,
        *,
        input_size: Sequence[int],
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> Value:
        """``input_size``: height and width of the input; ``g`` [N, O, h, w], ``w`` [O, I/groups, kh, kw]."""
        attributes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return self._one("conv2d_input_grad", g, w, input_size=input_size, **attributes)

    def conv2d_weight_grad(
        self,
        x: Value,
        g: Value,
        *,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> Value:
        """``kernel_size``: height and width of the kernel; ``x`` [N, I, H, W], ``g`` [N, O, h, w]."""
        attributes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return self._one("conv2d_weight_grad", x, g, kernel_size=kernel_size, **attributes)

    def max_pool2d(
        self,
        x: Value,
        *,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int] = (0, 0, 0, 0),
        dilation: Sequence[int] = (1, 1),
    ) -> Value:
        return self._one("max_pool2d", x, kernel=kernel, stride=stride, padding=padding, dilation=dilation)

    def reduce_sum(self, x: Value, axes: Sequence[int], *, keepdims: bool = False) -> Value:
        return self._one("reduce_sum", x, axes=axes, keepdims=keepdims)

    def reduce_max(self, x: Value, axes: Sequence[int], *, keepdims: bool = False) -> Value:
        return self._one("reduce_max", x, axes=axes, keepdims=keepdims)

    def reduce_min(self, x: Value, axes: Sequence[int], *, keepdims: bool = False) -> Value:
        return self._one("reduce_min", x, axes=axes, keepdims=keepdims)

    # -- layout and indexing ----------------------------------------------------------------------------------------

    def reshape(self, x: Value, shape: Sequence[Dim]) -> Value:
        return x if tuple(shape) == x.shape else self._one("reshape", x, shape=tuple(shape))

    def permute(self, x: Value, axes: Sequence[int]) -> Value:
        return x if list(axes) == list(range(x.rank)) else self._one("permute", x, axes=axes)

    def broadcast(self, x: Value, shape: Sequence[Dim]) -> Value:
        return x if tuple(shape) == x.shape else self._one("broadcast", x, shape=tuple(shape))

    def slice(self, x: Value, starts: Sequence[Dim], stops: Sequence[Dim], steps: Sequence[int]) -> Value:
        return self._one("slice", x, starts=starts, stops=stops, steps=steps)

    def concat(self, xs: Sequence[Value], axis: int) -> Value:
        return xs[0] if len(xs) == 1 else self._one("concat", *xs, axis=axis)

    def pad(self, x: Value, low: Sequence[int], high: Sequence[int], value: float = 0.0) -> Value:
        return self._one("pad", x, low=low, high=high, value=float(value))

    def gather_rows(self, x: Value, index: Value, axis: int = 0) -> Value:
        return self._one("gather_rows", x, index, axis=axis)

    def scatter_rows(self, x: Value, index: Value, rows: Value, axis: int = 0) -> Value:
        return self._one("scatter_rows", x, index, rows, axis=axis)

    def scatter_add_rows(self, x: Value, index: Value, rows: Value, axis: int = 0) -> Value:
        """Rows of one index add up."""
        return self._one("scatter_add_rows", x, index, rows, axis=axis)

    def row_numbers(self, x: Value, axis: int = 0) -> Value:
        """0, 1, 2... int64, as many as ``x`` has rows along ``axis``."""
        return self._one("row_numbers", x, axis=axis)

    def running_count(self, mask: Value) -> Value:
        """How many elements of ``mask`` [n] are true up to each of them: int64 [n]."""
        return self._one("running_count", mask)

    def first_reaching(self, ascending: Value, wanted: Value) -> Value:
        """Where ``ascending`` [n] first reaches each of ``wanted`` [R], or n - 1 where it never does: int64 [R]."""
        return self._one("first_reaching", ascending, wanted)


def infer_types(
    spec: Primitive | Composite, types: Sequence[TensorType], attrs: Attrs, dtype: DType
) -> tuple[TensorType, ...]:
    """Types of the outputs of ``spec`` on operands of ``types``; of a composite, by writing out its decomposition.

    Raises:
        IRError: the operands are not legal.
    """
    if isinstance(spec, Primitive):
        return (spec.infer(types, attrs),)
    scratch = Builder(dtype, spec.name)
    operands = [scratch.input(f"x{i}", kind.shape, kind.dtype) for i, kind in enumerate(types)]
    kinds = tuple(value.type for value in spec.decompose(scratch, operands, attrs))
    scratch.forget()
    return kinds
