"""The normalized operators of PrimalGraph.

Each operator's meaning is the tensor code that it emits, so that types, evaluation on every executor and derivatives
follow from one definition. Conventions:

- Shapes and axes are those of one sample. Emitted values carry ``lead`` further axes in front (1: a batch; 0: none, as
  when constants are folded).
- Elementwise operators broadcast as in NumPy; operands that depend on the input all have the rank of the result, and
  constants no more than that.
- Operands named in ``constants`` are constants in every graph.
- ``padding`` is (top, left, bottom, right).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boundflow_core.errors import IRError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, Dim, DType, SymDim, TensorType, divide, size

if TYPE_CHECKING:
    from boundflow_core.ir.primal_builder import PrimalBuilder, Tensor

__all__ = ["PRIMAL_OPS", "PrimalOp", "infer_type"]


@dataclass(frozen=True)
class PrimalOp:
    """An operator of networks.

    Attributes:
        operands: names of the operands; a trailing "?" marks an optional one, a trailing "*" any number.
        doc: one line of documentation.
        emit: ``emit(builder, attrs, lead, *values) -> value``, its meaning.
        constants: operands that must be constants.
        elementwise: whether each output element depends on the operands' elements at its place alone.
        decompose: ``decompose(primal_builder, attrs, *operands) -> tensor`` writes it in simpler operators, for domains
            without a rule of its own.
    """

    name: str
    operands: tuple[str, ...]
    doc: str
    emit: Callable[..., Value]
    constants: tuple[str, ...] = ()
    elementwise: bool = False
    decompose: Callable[..., Tensor] | None = None

    def accepts(self, count: int) -> bool:
        """Whether ``count`` is a legal number of operands."""
        required = sum(not name.endswith(("?", "*")) for name in self.operands)
        most = math.inf if any(name.endswith("*") for name in self.operands) else len(self.operands)
        return required <= count <= most


def infer_type(op: PrimalOp, attrs: Attrs, operands: Sequence[tuple[TensorType, bool]]) -> TensorType:
    """Type of the result for one sample; each operand is given by its type and whether it depends on the input.

    Raises:
        IRError: the operands are not legal.
    """
    batch = SymDim.of("B")
    builder = Builder(DType.FLOAT64, op.name)
    values = []
    for number, (kind, depends) in enumerate(operands):
        dtype = DType.FLOAT64 if kind.dtype.is_float else kind.dtype
        shape = (batch, *kind.shape) if depends else kind.shape
        values.append(builder.input(f"x{number}", shape, dtype))
    result = op.emit(builder, attrs, 1, *values)
    if not result.shape or result.shape[0] != batch:
        raise IRError(f"{op.name} lost the batch axis: {result.type}")
    if not all(isinstance(dim, int) for dim in result.shape[1:]):
        raise IRError(f"{op.name} spread the batch axis: {result.type}")
    return TensorType(DType.FLOAT32, result.shape[1:])


# -- emission -----------------------------------------------------------------------------------------------------


def _shift(axes: Sequence[int], lead: int) -> tuple[int, ...]:
    return tuple(axis + lead for axis in axes)


def _elementwise(name: str) -> Callable[..., Value]:
    return lambda b, attrs, lead, *xs: getattr(b, name)(*xs)


def _linear(b: Builder, attrs: Attrs, lead: int, x: Value, w: Value, bias: Value | None = None) -> Value:
    rows = b.reshape(x, (divide(size(x.shape), x.shape[-1]), x.shape[-1])) if x.rank != 2 else x
    y = b.matmul(rows, w, transpose_b=True)
    y = b.add(y, bias) if bias is not None else y
    return b.reshape(y, (*x.shape[:-1], w.shape[0]))


def images(b: Builder, x: Value) -> tuple[Value, tuple[Dim, ...]]:
    """``x`` [..., C, H, W] as [N, C, H, W], and the axes that were merged into N."""
    lead = x.shape[:-3]
    return b.reshape(x, (size(lead), *x.shape[-3:])), lead


def _conv2d(b: Builder, attrs: Attrs, lead: int, x: Value, w: Value, bias: Value | None = None) -> Value:
    flat, front = images(b, x)
    y = b.emit_named("conv2d", flat, w, attrs=attrs)
    y = y + b.reshape(bias, (bias.shape[0], 1, 1)) if bias is not None else y
    return b.reshape(y, (*front, *y.shape[1:]))


def conv_transpose_attrs(attrs: Attrs, input_shape: Sequence[Dim], weight_shape: Sequence[Dim]) -> Attrs:
    """Attributes of ``conv2d_input_grad`` that computes a transposed convolution of ``input_shape`` [..., C, h, w]."""
    top, left, bottom, right = attrs["padding"]
    sizes = []
    for axis, (low, high) in enumerate(((top, bottom), (left, right))):
        positions, kernel = input_shape[-2 + axis], weight_shape[-2 + axis]
        assert isinstance(positions, int) and isinstance(kernel, int)
        span = attrs["dilation"][axis] * (kernel - 1) + 1
        sizes.append((positions - 1) * attrs["stride"][axis] + span + attrs["output_padding"][axis] - low - high)
    kept = {key: attrs[key] for key in ("stride", "padding", "dilation", "groups")}
    return Attrs(kept, input_size=sizes)


def _conv_transpose2d(b: Builder, attrs: Attrs, lead: int, x: Value, w: Value, bias: Value | None = None) -> Value:
    flat, front = images(b, x)
    y = b.emit_named("conv2d_input_grad", flat, w, attrs=conv_transpose_attrs(attrs, x.shape, w.shape))
    y = y + b.reshape(bias, (bias.shape[0], 1, 1)) if bias is not None else y
    return b.reshape(y, (*front, *y.shape[1:]))


def _max_pool2d(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
    flat, front = images(b, x)
    y = b.emit_named("max_pool2d", flat, attrs=attrs)
    return b.reshape(y, (*front, *y.shape[1:]))


def _matmul(b: Builder, attrs: Attrs, lead: int, x: Value, y: Value) -> Value:
    return b.matmul(x, y)


def _reduce(name: str) -> Callable[..., Value]:
    def emit(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
        value: Value = getattr(b, name)(x, _shift(attrs["axes"], lead), keepdims=attrs["keepdims"])
        return value

    return emit


def _reshape(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
    return b.reshape(x, (*x.shape[:lead], *attrs["shape"]))


def _permute(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
    return b.permute(x, (*range(lead), *_shift(attrs["axes"], lead)))


def _expand(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
    shape = (*x.shape[:lead], *attrs["shape"])
    missing = len(shape) - x.rank
    return b.broadcast(b.reshape(x, (*x.shape[:lead], *([1] * missing), *x.shape[lead:])), shape)


def _slice(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
    return b.slice(
        x,
        ((0,) * lead) + attrs["starts"],
        x.shape[:lead] + attrs["stops"],
        ((1,) * lead) + attrs["steps"],
    )


def _pad(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
    return b.pad(x, ((0,) * lead) + attrs["low"], ((0,) * lead) + attrs["high"], attrs["value"])


def _concat(b: Builder, attrs: Attrs, lead: int, *xs: Value) -> Value:
    rank = max(x.rank for x in xs)
    front = next((x.shape[:lead] for x in xs if x.rank == rank), ())
    batched = [x if x.rank == rank else b.broadcast(x, (*front, *x.shape)) for x in xs]
    return b.concat(batched, attrs["axis"] + lead)


def _gather(b: Builder, attrs: Attrs, lead: int, x: Value, index: Value) -> Value:
    return b.gather_rows(x, index, attrs["axis"] + lead)


def _relu(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
    return b.maximum(x, 0.0)


def _leaky_relu(b: Builder, attrs: Attrs, lead: int, x: Value, slope: Value) -> Value:
    return b.where(x >= 0.0, x, x * slope)


def _clip(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
    if attrs["min"] > attrs["max"]:
        raise IRError(f"nothing lies between {attrs['min']} and {attrs['max']}")
    x = b.maximum(x, attrs["min"]) if attrs["min"] > -math.inf else x
    return b.minimum(x, attrs["max"]) if attrs["max"] < math.inf else x


def _softplus(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
    return b.maximum(x, 0.0) + b.log1p(b.exp(-b.abs(x)))


def _gelu(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
    if attrs["approximate"] == "tanh":
        return 0.5 * x * (b.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)) + 1.0)
    return 0.5 * x * (b.erf(x * math.sqrt(0.5)) + 1.0)


def _reciprocal(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
    return 1.0 / x


def _pow(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
    return x * x if attrs["exponent"] == 2.0 else b.pow(x, attrs["exponent"])


def _softmax(b: Builder, attrs: Attrs, lead: int, x: Value) -> Value:
    axis = attrs["axis"] + lead
    weights = b.exp(x - b.reduce_max(x, (axis,), keepdims=True))
    return weights / b.reduce_sum(weights, (axis,), keepdims=True)


# -- decompositions -----------------------------------------------------------------------------------------------


def _softmax_parts(g: PrimalBuilder, attrs: Attrs, x: Tensor) -> Any:
    weights = g.op("exp", x)
    total = g.op("reduce_sum", weights, axes=(attrs["axis"],), keepdims=True)
    return g.op("mul", weights, g.op("reciprocal", total))


def _gelu_parts(g: PrimalBuilder, attrs: Attrs, x: Tensor) -> Any:
    if attrs["approximate"] == "tanh":
        inner = g.op("add", x, g.op("mul", g.op("pow", x, exponent=3.0), g.scalar(0.044715)))
        gate = g.op("tanh", g.op("mul", inner, g.scalar(math.sqrt(2 / math.pi))))
    else:
        gate = g.op("erf", g.op("mul", x, g.scalar(math.sqrt(0.5))))
    half = g.op("mul", x, g.scalar(0.5))
    return g.op("mul", half, g.op("add", gate, g.scalar(1.0)))


def _clip_parts(g: PrimalBuilder, attrs: Attrs, x: Tensor) -> Any:
    """min(max(x, a), b) = a + relu(x - a) - relu(x - b) where a <= b."""
    low, high = attrs["min"], attrs["max"]
    if math.isinf(low) and math.isinf(high):
        return x
    if math.isinf(low):
        return g.op("add", g.op("mul", g.op("relu", g.op("add", g.op("mul", x, g.scalar(-1.0)), g.scalar(high))),
                                 g.scalar(-1.0)), g.scalar(high))  # fmt: skip
    rising = g.op("add", g.op("relu", g.op("add", x, g.scalar(-low))), g.scalar(low))
    if math.isinf(high):
        return rising
    over = g.op("relu", g.op("add", x, g.scalar(-high)))
    return g.op("add", rising, g.op("mul", over, g.scalar(-1.0)))


def _maximum_parts(g: PrimalBuilder, attrs: Attrs, x: Tensor, y: Tensor) -> Any:
    """max(x, y) = y + relu(x - y)."""
    return g.add(y, g.op("relu", g.sub(x, y)))


def _minimum_parts(g: PrimalBuilder, attrs: Attrs, x: Tensor, y: Tensor) -> Any:
    """min(x, y) = x - relu(x - y)."""
    return g.sub(x, g.op("relu", g.sub(x, y)))


_ALL = (
    # affine
    PrimalOp("linear", ("x", "weight", "bias?"), "x weight^T + bias on the last axis; weight [out, in]", _linear,
             constants=("weight", "bias?")),
    PrimalOp("conv2d", ("x", "weight", "bias?"), "convolution of [..., C, H, W]; weight [out, C/groups, kh, kw]",
             _conv2d, constants=("weight", "bias?")),
    PrimalOp("conv_transpose2d", ("x", "weight", "bias?"),
             "transposed convolution of [..., C, H, W]; weight [C, out/groups, kh, kw]", _conv_transpose2d,
             constants=("weight", "bias?")),
    PrimalOp("reduce_sum", ("x",), "sum over `axes`", _reduce("reduce_sum")),
    # arithmetic of two
    PrimalOp("add", ("x", "y"), "x + y", _elementwise("add"), elementwise=True),
    PrimalOp("mul", ("x", "y"), "x * y", _elementwise("mul"), elementwise=True),
    PrimalOp("matmul", ("x", "y"), "matrix product of the last two axes, either side may depend on the input", _matmul),
    PrimalOp("maximum", ("x", "y"), "the larger of x and y", _elementwise("maximum"), elementwise=True,
             decompose=_maximum_parts),
    PrimalOp("minimum", ("x", "y"), "the smaller of x and y", _elementwise("minimum"), elementwise=True,
             decompose=_minimum_parts),
    PrimalOp("where", ("condition", "x", "y"), "x where the constant condition holds, else y", _elementwise("where"),
             constants=("condition",), elementwise=True),
    # layout
    PrimalOp("reshape", ("x",), "same elements in `shape`", _reshape),
    PrimalOp("permute", ("x",), "axes in the order `axes`", _permute),
    PrimalOp("expand", ("x",), "repeat along new axes and axes of size 1 to `shape`", _expand),
    PrimalOp("slice", ("x",), "x[starts:stops:steps], one triple an axis", _slice),
    PrimalOp("pad", ("x",), "surround with `value`, `low` before and `high` after each axis", _pad),
    PrimalOp("concat", ("x*",), "join along `axis`", _concat),
    PrimalOp("gather", ("x", "index"), "elements of x along `axis` in the order of a constant index vector", _gather,
             constants=("index",)),
    # activations and other functions of one
    PrimalOp("relu", ("x",), "max(x, 0)", _relu, elementwise=True),
    PrimalOp("leaky_relu", ("x", "slope"), "x where x >= 0, else slope * x", _leaky_relu, constants=("slope",),
             elementwise=True),
    PrimalOp("clip", ("x",), "x limited to [`min`, `max`], either may be infinite", _clip, elementwise=True,
             decompose=_clip_parts),
    PrimalOp("sigmoid", ("x",), "1 / (1 + exp(-x))", _elementwise("sigmoid"), elementwise=True),
    PrimalOp("tanh", ("x",), "hyperbolic tangent", _elementwise("tanh"), elementwise=True),
    PrimalOp("erf", ("x",), "error function", _elementwise("erf"), elementwise=True),
    PrimalOp("gelu", ("x",), "x Phi(x), exact or `approximate`='tanh'", _gelu, elementwise=True,
             decompose=_gelu_parts),
    PrimalOp("softplus", ("x",), "log(1 + exp(x))", _softplus, elementwise=True),
    PrimalOp("exp", ("x",), "e to the x", _elementwise("exp"), elementwise=True),
    PrimalOp("log", ("x",), "natural logarithm", _elementwise("log"), elementwise=True),
    PrimalOp("sqrt", ("x",), "square root", _elementwise("sqrt"), elementwise=True),
    PrimalOp("reciprocal", ("x",), "1 / x", _reciprocal, elementwise=True),
    PrimalOp("pow", ("x",), "x to the constant `exponent`", _pow, elementwise=True),
    PrimalOp("abs", ("x",), "|x|", _elementwise("abs"), elementwise=True),
    PrimalOp("sign", ("x",), "-1, 0 or 1", _elementwise("sign"), elementwise=True),
    PrimalOp("floor", ("x",), "largest integer not above x", _elementwise("floor"), elementwise=True),
    PrimalOp("sin", ("x",), "sine", _elementwise("sin"), elementwise=True),
    PrimalOp("cos", ("x",), "cosine", _elementwise("cos"), elementwise=True),
    # several elements into one
    PrimalOp("softmax", ("x",), "exp(x) over its sum along `axis`", _softmax, decompose=_softmax_parts),
    PrimalOp("max_pool2d", ("x",), "maximum of each window of [..., C, H, W]", _max_pool2d),
    PrimalOp("reduce_max", ("x",), "maximum over `axes`", _reduce("reduce_max")),
    PrimalOp("reduce_min", ("x",), "minimum over `axes`", _reduce("reduce_min")),
)  # fmt: skip

PRIMAL_OPS = {op.name: op for op in _ALL}
