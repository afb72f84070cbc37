"""Activations, arithmetic of two, and other functions of single elements."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx

from boundflow_core.errors import LoadError
from boundflow_core.frontends import compose
from boundflow_core.ir.constants import frozen
from boundflow_core.ir.primal_builder import Operand, PrimalBuilder, Tensor
from boundflow_onnx.node import Converter, OnnxNode

__all__ = ["CONVERTERS"]

_LARGEST_FLOAT = float(np.finfo(np.float32).max)


def _unary(op: str) -> Converter:
    return lambda n: n.g.op(op, n.operand())


def _binary(write: Callable[[PrimalBuilder, Operand, Operand], Any]) -> Converter:
    return lambda n: write(n.g, n.operand(0), n.operand(1))


def _variadic(op: str) -> Converter:
    """Max, Min and Sum of any number of operands, from the left."""
    return lambda n: functools.reduce(lambda x, y: n.g.op(op, x, y), n.operands)


def _mean(n: OnnxNode) -> Any:
    total = functools.reduce(n.g.add, n.operands)
    return n.g.mul(total, n.g.scalar(1.0 / len(n.operands)))


def _identity(n: OnnxNode) -> Any:
    return n.inputs[0]


def _leaky_relu(n: OnnxNode) -> Any:
    return n.g.op("leaky_relu", n.operand(), n.g.scalar(n.attribute("alpha", 0.01)))


def _prelu(n: OnnxNode) -> Any:
    return n.g.op("leaky_relu", n.operand(), n.weight(1, "slopes"))


def _elu(n: OnnxNode) -> Any:
    return compose.elu(n.g, n.operand(), n.attribute("alpha", 1.0))


def _hard_sigmoid(n: OnnxNode) -> Any:
    return compose.hard_sigmoid(n.g, n.operand(), n.attribute("alpha", 0.2), n.attribute("beta", 0.5))


def _hard_swish(n: OnnxNode) -> Any:
    return n.g.mul(n.operand(), compose.hard_sigmoid(n.g, n.operand()))


def _gelu(n: OnnxNode) -> Any:
    return n.g.op("gelu", n.operand(), approximate=n.attribute("approximate", "none"))


def _ceil(n: OnnxNode) -> Any:
    """-floor(-x)."""
    return n.g.neg(n.g.op("floor", n.g.neg(n.operand())))


def _clip(n: OnnxNode) -> Any:
    """Limits are attributes before opset 11, and operands, either of which may be left out, from then on."""
    if n.opset < 11:
        return _limited(n, n.attribute("min", -math.inf), n.attribute("max", math.inf))
    if any(isinstance(value, Tensor) for value in n.inputs[1:]):
        x = n.g.op("maximum", n.operand(0), n.operand(1)) if n.has(1) else n.operand(0)
        return n.g.op("minimum", x, n.operand(2)) if n.has(2) else x
    low, high = (
        float(n.array(number, "limits").item()) if n.has(number) else default
        for number, default in ((1, -math.inf), (2, math.inf))
    )
    return _limited(n, low, high)


def _limited(n: OnnxNode, low: float, high: float) -> Any:
    """The largest float stands for no limit. Where the limits cross, ONNX lets the upper one win."""
    if math.isnan(low) or math.isnan(high):
        raise LoadError(f"node {n.name!r} (Clip) has a limit that is not a number")
    low = -math.inf if low <= -_LARGEST_FLOAT else low
    high = math.inf if high >= _LARGEST_FLOAT else high
    return n.g.op("clip", n.operand(), min=min(low, high), max=high)


def _where(n: OnnxNode) -> Any:
    return n.g.op("where", n.weight(0, "conditions"), n.operand(1), n.operand(2))


def _pow(n: OnnxNode) -> Any:
    """A constant, uniform exponent, or a positive constant base: c^x = exp(x log c)."""
    if isinstance(n.operand(1), Tensor):
        base = n.array(0, "base and exponent")
        if not (base > 0).all():
            n.unsupported("of a base that is not positive", "the result is not a number for some exponents")
        return n.g.op("exp", n.g.mul(n.operand(1), frozen(np.log(base.astype(np.float64)))))
    exponents = n.array(1, "exponents")
    if (exponents != exponents.flat[0]).any():
        n.unsupported("with exponents that differ between elements")
    x = compose.power(n.g, n.operand(0), float(exponents.flat[0]))
    return compose.expand(n.g, x, exponents.shape)


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def _cast(n: OnnxNode) -> Any:
    """Between float types: bounds are computed in a precision of the user's choice, so nothing changes."""
    if n.attribute("to") not in _FLOATS:
        n.unsupported(f"of values that depend on the input to {onnx.TensorProto.DataType.Name(n.attribute('to'))}")
    return n.operand()


def _cast_like(n: OnnxNode) -> Any:
    like = n.inputs[1]
    if isinstance(like, np.ndarray) and like.dtype.kind != "f":
        n.unsupported(f"of values that depend on the input to {like.dtype}")
    return n.operand()


def _dropout(n: OnnxNode) -> Any:
    """Nothing happens outside training, and nothing is masked."""
    if n.opset >= 12 and n.has(2) and bool(n.array(2, "training modes").item()):
        n.unsupported("in training mode", "export the network for inference")
    x = n.inputs[0]
    return (x, np.ones(n.operand().shape, dtype=bool)) if n.reads(1) else x


def _of_matrix(converter: Callable[[PrimalBuilder, Operand, int], Any]) -> Converter:
    """Softmax and its kin: along an axis from opset 13; before, over all axes from `axis` (1) on, taken as one."""

    def convert(n: OnnxNode) -> Any:
        x = n.operand()
        rank = len(x.shape)
        if n.opset >= 13:
            return converter(n.g, x, compose.axis_of(n.attribute("axis", -1), rank))
        axis = compose.axis_of(n.attribute("axis", 1), rank)
        if axis == rank - 1:
            return converter(n.g, x, axis)
        rows = compose.reshape(n.g, x, (math.prod(x.shape[:axis]), -1))
        return compose.reshape(n.g, converter(n.g, rows, 1), x.shape)

    return convert


CONVERTERS: Mapping[str, Converter] = {
    # functions of one
    "Abs": _unary("abs"),
    "Ceil": _ceil,
    "Clip": _clip,
    "Cos": _unary("cos"),
    "Elu": _elu,
    "Erf": _unary("erf"),
    "Exp": _unary("exp"),
    "Floor": _unary("floor"),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky_relu,
    "Log": _unary("log"),
    "Neg": lambda n: n.g.neg(n.operand()),
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": _unary("reciprocal"),
    "Relu": _unary("relu"),
    "Sigmoid": _unary("sigmoid"),
    "Sign": _unary("sign"),
    "Sin": _unary("sin"),
    "Softplus": _unary("softplus"),
    "Sqrt": _unary("sqrt"),
    "Tanh": _unary("tanh"),
    # of several
    "Add": _binary(PrimalBuilder.add),
    "Div": _binary(PrimalBuilder.div),
    "Max": _variadic("maximum"),
    "Mean": _mean,
    "Min": _variadic("minimum"),
    "Mul": _binary(PrimalBuilder.mul),
    "Sub": _binary(PrimalBuilder.sub),
    "Sum": _variadic("add"),
    "Where": _where,
    # of a vector
    "LogSoftmax": _of_matrix(compose.log_softmax),
    "Softmax": _of_matrix(lambda g, x, axis: g.op("softmax", x, axis=axis)),
    # of nothing
    "Cast": _cast,
    "CastLike": _cast_like,
    "Dropout": _dropout,
    "Identity": _identity,
}
