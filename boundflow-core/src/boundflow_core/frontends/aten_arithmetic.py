"""Converters of ATen's elementwise operators and reductions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boundflow_core.frontends import compose
from boundflow_core.frontends.aten_call import Call, Converter, Refused, constant_values, filled, operand
from boundflow_core.ir.constants import Constant
from boundflow_core.ir.primal_builder import Operand, Tensor

__all__ = ["ARITHMETIC"]


def _unary(op: str) -> Converter:
    return lambda call, x: call.g.op(op, operand(call, x))


# -- arithmetic of two ------------------------------------------------------------------------------------------------


def _add(call: Call, x: Any, y: Any, alpha: float = 1) -> Any:
    y = operand(call, y)
    return call.g.add(operand(call, x), y if alpha == 1 else call.g.mul(y, call.g.scalar(float(alpha))))


def _sub(call: Call, x: Any, y: Any, alpha: float = 1) -> Any:
    return _add(call, x, y, -alpha)


def _rsub(call: Call, x: Any, y: Any, alpha: float = 1) -> Any:
    return _add(call, y, x, -alpha)


def _mul(call: Call, x: Any, y: Any) -> Any:
    return call.g.mul(operand(call, x), operand(call, y))


def _div(call: Call, x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    quotient = call.g.div(operand(call, x), operand(call, y))
    if rounding_mode == "trunc":
        raise Refused("division rounded towards zero has no counterpart; use rounding_mode='floor'")
    return call.g.op("floor", quotient) if rounding_mode == "floor" else quotient


def _maximum(call: Call, x: Any, y: Any) -> Any:
    return call.g.op("maximum", operand(call, x), operand(call, y))


def _minimum(call: Call, x: Any, y: Any) -> Any:
    return call.g.op("minimum", operand(call, x), operand(call, y))


def _addcmul(call: Call, x: Any, a: Any, b: Any, value: float = 1) -> Any:
    return _add(call, x, _mul(call, a, b), value)


def _addcdiv(call: Call, x: Any, a: Any, b: Any, value: float = 1) -> Any:
    return _add(call, x, _div(call, a, b), value)


def _lerp(call: Call, x: Operand, y: Operand, weight: Any) -> Any:
    """x + weight (y - x)."""
    return _add(call, x, _mul(call, _sub(call, y, x), weight))


def _where(call: Call, condition: Any, x: Any, y: Any) -> Any:
    if not isinstance(condition, Constant):
        raise Refused("the condition depends on the network's input; write it with relu, clamp, maximum or minimum")
    return call.g.op("where", condition, operand(call, x), operand(call, y))


def _masked_fill(call: Call, x: Any, mask: Any, value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        raise Refused(
            f"it fills with {value}; use scaled_dot_product_attention with a mask of bools, or a finite number"
        )
    return _where(call, mask, value, x)


def _power(call: Call, x: Any, exponent: Any) -> Any:
    """Tensor to number, number to tensor, and tensor to a constant of one number."""
    if isinstance(x, (int, float)):
        if x <= 0:
            raise Refused(f"{x} to a power that depends on the input is not defined everywhere")
        return call.g.op("exp", call.g.mul(exponent, call.g.scalar(math.log(x))))
    if not isinstance(exponent, (int, float)):
        numbers = np.unique(constant_values(exponent, "the exponent"))
        if numbers.size != 1:
            raise Refused("the exponents differ from element to element")
        exponent = float(numbers[0])
    if exponent == 0:
        return filled(call, 1.0)
    return compose.power(call.g, operand(call, x), float(exponent))


# -- functions of one -------------------------------------------------------------------------------------------------


def _clamp(call: Call, x: Operand, low: Any = None, high: Any = None) -> Any:
    """Bounds are numbers or tensors; where low > high the result is high, as torch defines it."""
    if all(bound is None or isinstance(bound, (int, float)) for bound in (low, high)):
        least = -math.inf if low is None else float(low)
        most = math.inf if high is None else float(high)
        return call.g.op("clip", x, min=min(least, most), max=most)
    x = x if low is None else _maximum(call, x, low)
    return x if high is None else _minimum(call, x, high)


def _hardtanh(call: Call, x: Operand, low: float = -1.0, high: float = 1.0) -> Any:
    return _clamp(call, x, low, high)


def _leaky_relu(call: Call, x: Operand, slope: float = 0.01) -> Any:
    return call.g.op("leaky_relu", x, call.g.scalar(float(slope)))


def _prelu(call: Call, x: Operand, weight: Operand) -> Any:
    """One slope for all, or one for each channel (axis 1)."""
    if not isinstance(weight, Constant):
        raise Refused("the slopes depend on the network's input")
    many = len(weight.shape) == 1 and weight.shape[0] > 1
    shape = (-1, *[1] * (len(x.shape) - 2)) if many else ()
    return call.g.op("leaky_relu", x, compose.reshape(call.g, weight, shape))


def _prelu_kernel(call: Call, x: Operand, weight: Operand) -> Any:
    return call.g.op("leaky_relu", x, weight)


def _elu(call: Call, x: Operand, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
    """scale * (relu(x) + alpha (exp(input_scale min(x, 0)) - 1))."""
    if input_scale == 1:
        result = compose.elu(call.g, x, float(alpha))
    else:
        inner = call.g.mul(call.g.op("clip", x, min=-math.inf, max=0.0), call.g.scalar(float(input_scale)))
        tail = call.g.add(call.g.op("exp", inner), call.g.scalar(-1.0))
        result = call.g.add(call.g.op("relu", x), call.g.mul(tail, call.g.scalar(float(alpha))))
    return result if scale == 1 else call.g.mul(result, call.g.scalar(float(scale)))


def _celu(call: Call, x: Operand, alpha: float = 1.0) -> Any:
    return _elu(call, x, alpha, 1.0, 1.0 / alpha)


def _selu(call: Call, x: Operand) -> Any:
    """The constants of Klambauer et al. 2017, "Self-Normalizing Neural Networks", as in torch."""
    return _elu(call, x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


def _softplus(call: Call, x: Operand, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """log(1 + exp(beta x)) / beta. (Above the threshold torch gives x itself, which differs by less than 2.1e-9.)"""
    if beta == 1:
        return call.g.op("softplus", x)
    inner = call.g.op("softplus", call.g.mul(x, call.g.scalar(float(beta))))
    return call.g.mul(inner, call.g.scalar(1.0 / beta))


def _gelu(call: Call, x: Operand, approximate: str = "none") -> Any:
    return call.g.op("gelu", x, approximate=approximate)


def _hardswish(call: Call, x: Operand) -> Any:
    return call.g.mul(x, compose.hard_sigmoid(call.g, x))


def _mish(call: Call, x: Operand) -> Any:
    return call.g.mul(x, call.g.op("tanh", call.g.op("softplus", x)))


def _log_sigmoid(call: Call, x: Operand) -> Any:
    return call.g.neg(call.g.op("softplus", call.g.neg(x)))


def _ceil(call: Call, x: Operand) -> Any:
    return call.g.neg(call.g.op("floor", call.g.neg(x)))


def _log_of_base(base: float) -> Converter:
    return lambda call, x: call.g.mul(call.g.op("log", x), call.g.scalar(1.0 / math.log(base)))


# -- reductions -------------------------------------------------------------------------------------------------------


def _axes(x: Operand, dim: int | Sequence[int] | None) -> tuple[int, ...]:
    """None and no axes at all mean all of them."""
    rank = len(x.shape)
    chosen = [dim] if isinstance(dim, int) else list(dim or range(rank))
    return tuple(sorted(compose.axis_of(axis, rank) for axis in chosen)) if rank else ()


def _reduced(call: Call, op: str, x: Operand, axes: tuple[int, ...], keepdim: bool) -> Any:
    return call.g.op(op, x, axes=axes, keepdims=bool(keepdim)) if axes else x


def _reduce(op: str) -> Converter:
    def convert(call: Call, x: Operand, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
        return _reduced(call, op, x, _axes(x, dim), keepdim)

    return convert


def _extreme(op: str) -> Converter:
    """max.dim and min.dim: the values; the indices are not tensors of this graph."""

    def convert(call: Call, x: Operand, dim: int, keepdim: bool = False) -> Any:
        return _reduced(call, op, x, _axes(x, dim), keepdim), None

    return convert


def _mean(call: Call, x: Operand, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    axes = _axes(x, dim)
    return compose.reduce_mean(call.g, x, axes, bool(keepdim)) if axes else x


def _spread(call: Call, x: Operand, dim: Any, correction: float, keepdim: bool) -> Any:
    """Mean squared distance from the mean, over n - correction instead of n."""
    axes = _axes(x, dim)
    centred = call.g.sub(x, compose.reduce_mean(call.g, x, axes))
    total = _reduced(call, "reduce_sum", call.g.op("pow", centred, exponent=2.0), axes, keepdim)
    count = math.prod(x.shape[axis] for axis in axes) - correction
    if count <= 0:
        raise Refused("a variance of so few elements is not finite")
    return call.g.mul(total, call.g.scalar(1.0 / count))


def _var(call: Call, x: Operand, dim: Any = None, unbiased: Any = True, keepdim: bool = False, **more: Any) -> Any:
    if isinstance(dim, bool):  # var.default(x, unbiased)
        dim, unbiased = None, dim
    correction = more.get("correction", 1.0 if unbiased else 0.0)
    return _spread(call, x, dim, 1.0 if correction is None else float(correction), keepdim)


def _std(call: Call, x: Operand, *args: Any, **kwargs: Any) -> Any:
    return call.g.op("sqrt", _var(call, x, *args, **kwargs))


def _var_mean(call: Call, x: Operand, dim: Any = None, unbiased: Any = True, keepdim: bool = False, **more: Any) -> Any:
    mean_over = None if isinstance(dim, bool) else dim
    return _var(call, x, dim, unbiased, keepdim, **more), _mean(call, x, mean_over, keepdim)


def _logsumexp(call: Call, x: Operand, dim: Any, keepdim: bool = False) -> Any:
    """Without the shift by the maximum that guards against overflow: it would make bounds loose, never wrong."""
    return call.g.op("log", _reduced(call, "reduce_sum", call.g.op("exp", x), _axes(x, dim), keepdim))


def _vector_norm(
    call: Call, x: Operand, ord: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    axes = _axes(x, dim)
    if ord == 2:
        total = _reduced(call, "reduce_sum", call.g.op("pow", x, exponent=2.0), axes, keepdim)
        return call.g.op("sqrt", total)
    if ord in (1, math.inf):
        return _reduced(call, "reduce_sum" if ord == 1 else "reduce_max", call.g.op("abs", x), axes, keepdim)
    raise Refused(f"the norm of order {ord} is not among 1, 2 and infinity")


def _cumsum(call: Call, x: Tensor, dim: int, dtype: Any = None) -> Any:
    size = x.shape[compose.axis_of(dim, len(x.shape))]
    return compose.apply_along(call.g, x, np.tril(np.ones((size, size))), dim)


ARITHMETIC: Mapping[str, Converter] = {
    "aten.abs": _unary("abs"),
    "aten.add": _add,
    "aten.addcdiv": _addcdiv,
    "aten.addcmul": _addcmul,
    "aten.amax": _reduce("reduce_max"),
    "aten.amin": _reduce("reduce_min"),
    "aten.ceil": _ceil,
    "aten.celu": _celu,
    "aten.clamp": _clamp,
    "aten.clamp_max": lambda call, x, high: _clamp(call, x, None, high),
    "aten.clamp_min": lambda call, x, low: _clamp(call, x, low, None),
    "aten.cos": _unary("cos"),
    "aten.cumsum": _cumsum,
    "aten.div": _div,
    "aten.elu": _elu,
    "aten.erf": _unary("erf"),
    "aten.exp": _unary("exp"),
    "aten.expm1": lambda call, x: call.g.add(call.g.op("exp", x), call.g.scalar(-1.0)),
    "aten.floor": _unary("floor"),
    "aten.gelu": _gelu,
    "aten.hardsigmoid": lambda call, x: compose.hard_sigmoid(call.g, x),
    "aten.hardswish": _hardswish,
    "aten.hardtanh": _hardtanh,
    "aten.leaky_relu": _leaky_relu,
    "aten.lerp": _lerp,
    "aten.linalg_vector_norm": _vector_norm,
    "aten.log": _unary("log"),
    "aten.log10": _log_of_base(10.0),
    "aten.log1p": lambda call, x: call.g.op("log", call.g.add(x, call.g.scalar(1.0))),
    "aten.log2": _log_of_base(2.0),
    "aten.log_sigmoid": _log_sigmoid,
    "aten.logsumexp": _logsumexp,
    "aten.masked_fill": _masked_fill,
    "aten.max": _reduce("reduce_max"),
    "aten.max.dim": _extreme("reduce_max"),
    "aten.max.other": _maximum,
    "aten.maximum": _maximum,
    "aten.mean": _mean,
    "aten.min": _reduce("reduce_min"),
    "aten.min.dim": _extreme("reduce_min"),
    "aten.min.other": _minimum,
    "aten.minimum": _minimum,
    "aten.mish": _mish,
    "aten.mul": _mul,
    "aten.neg": lambda call, x: call.g.neg(x),
    "aten.pow": _power,
    "aten.prelu": _prelu,
    "aten._prelu_kernel": _prelu_kernel,
    "aten.reciprocal": _unary("reciprocal"),
    "aten.relu": _unary("relu"),
    "aten.relu6": lambda call, x: _clamp(call, x, 0.0, 6.0),
    "aten.rsqrt": lambda call, x: call.g.op("reciprocal", call.g.op("sqrt", x)),
    "aten.rsub": _rsub,
    "aten.selu": _selu,
    "aten.sgn": _unary("sign"),
    "aten.sigmoid": _unary("sigmoid"),
    "aten.sign": _unary("sign"),
    "aten.silu": lambda call, x: compose.silu(call.g, x),
    "aten.sin": _unary("sin"),
    "aten.softplus": _softplus,
    "aten.sqrt": _unary("sqrt"),
    "aten.square": lambda call, x: call.g.op("pow", x, exponent=2.0),
    "aten.std": _std,
    "aten.sub": _sub,
    "aten.sum": _reduce("reduce_sum"),
    "aten.tanh": _unary("tanh"),
    "aten.var": _var,
    "aten.var_mean": _var_mean,
    "aten.where": _where,
}
