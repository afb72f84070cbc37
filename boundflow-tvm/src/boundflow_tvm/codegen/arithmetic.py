"""The elementwise primitives in TVM's tensor IR, with NumPy's treatment of NaN, infinities and signed zeros.

Functions of the C library are called where TVM's own expansions are less exact (its tanh near zero, its exp).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from boundflow_core.ir.types import DType
from boundflow_tvm.backend import Tir

__all__ = ["apply", "combine", "storage", "unit"]


def storage(dtype: DType) -> str:
    """Element type in memory: booleans are bytes."""
    return "int8" if dtype is DType.BOOL else str(dtype)


def unit(reduction: str, dtype: DType) -> float | int:
    """What a reduction starts from."""
    if reduction == "reduce_sum":
        return 0
    largest = reduction == "reduce_min"
    if dtype.is_float:
        return float("inf") if largest else float("-inf")
    if dtype is DType.BOOL:
        return 1 if largest else 0
    return 2**63 - 1 if largest else -(2**63)


def combine(t: Tir, reduction: str, total: Any, value: Any, dtype: DType) -> Any:
    if reduction == "reduce_sum":
        return t.t.Add(total, value)
    return extremum(t, reduction == "reduce_max", total, value, dtype)


def extremum(t: Tir, largest: bool, x: Any, y: Any, dtype: DType) -> Any:
    """The larger or smaller one, NaN if either is; of a number that is known only one comparison is left."""
    better = t.t.GT if largest else t.t.LT
    if not dtype.is_float:
        return t.select(better(x, y), x, y)
    if t.is_number(x):
        x, y = y, x
    if t.is_number(y):  # x where it is NaN: no comparison with it holds
        return t.select(better(y, x), y, x)
    return t.select(t.t.Or(better(x, y), t.t.isnan(x)), x, y)


def _c(name: str) -> Callable[..., Any]:
    def function(t: Tir, xs: Sequence[Any], dtypes: Sequence[DType], attrs: Any) -> Any:
        dtype = dtypes[0]
        return t.call(name + ("f" if dtype is DType.FLOAT32 else ""), str(dtype), *xs)

    return function


def _erf(t: Tir, xs: Sequence[Any], dtypes: Sequence[DType], attrs: Any) -> Any:
    return t.t.Cast(str(dtypes[0]), t.call("erf", "float64", t.t.Cast("float64", xs[0])))


def _power(t: Tir, xs: Sequence[Any], dtypes: Sequence[DType], attrs: Any) -> Any:
    dtype = str(dtypes[0])
    return t.call("powf" if dtype == "float32" else "pow", dtype, xs[0], t.number(attrs["exponent"], dtype))


def _sigmoid(t: Tir, xs: Sequence[Any], dtypes: Sequence[DType], attrs: Any) -> Any:
    (x,), dtype = xs, str(dtypes[0])
    one = t.number(1.0, dtype)
    minus = t.t.Mul(t.unary("abs", x, dtype), t.number(-1.0, dtype))
    small = t.call("expf" if dtype == "float32" else "exp", dtype, minus)
    top = t.select(t.t.GE(x, t.number(0.0, dtype)), one, small)
    return t.t.Div(top, t.t.Add(one, small))


def _sign(t: Tir, xs: Sequence[Any], dtypes: Sequence[DType], attrs: Any) -> Any:
    (x,), dtype = xs, str(dtypes[0])
    zero, one = t.number(0.0, dtype), t.number(1.0, dtype)
    return t.select(t.t.GT(x, zero), one, t.select(t.t.LT(x, zero), t.number(-1.0, dtype), x))


def _compare(t: Tir, xs: Sequence[Any], dtypes: Sequence[DType], attrs: Any) -> Any:
    if dtypes[0] is DType.BOOL:
        xs = [t.t.Cast("int8", x) for x in xs]
    if attrs["relation"] == "ne":  # TVM's own says that NaN differs from nothing
        return t.t.Not(t.t.EQ(*xs))
    relation: Any = getattr(t.t, attrs["relation"].upper())
    return relation(*xs)


def _quotient(t: Tir, xs: Sequence[Any], dtypes: Sequence[DType], attrs: Any) -> Any:
    x, y = xs
    if t.is_number(y) and y.value == 0:  # which TVM refuses to divide by
        dtype = str(dtypes[0])
        sign = t.number(math.copysign(1.0, y.value), dtype)
        y = t.call("copysignf" if dtype == "float32" else "copysign", dtype, y, sign)
    return t.t.Div(x, y)


def _cast(t: Tir, xs: Sequence[Any], dtypes: Sequence[DType], attrs: Any) -> Any:
    source, target = dtypes[0], DType(attrs["dtype"])
    if source is target:
        return xs[0]
    if target is DType.BOOL:
        return t.t.Not(t.t.EQ(xs[0], t.number(0, str(source))))
    if source is DType.BOOL:
        return t.select(xs[0], t.number(1, str(target)), t.number(0, str(target)))
    return t.t.Cast(str(target), xs[0])


def _binary(name: str) -> Callable[..., Any]:
    return lambda t, xs, dtypes, attrs: getattr(t.t, name)(*xs)


def _unary(name: str) -> Callable[..., Any]:
    return lambda t, xs, dtypes, attrs: t.unary(name, xs[0], str(dtypes[0]))


def _extremum(largest: bool) -> Callable[..., Any]:
    def function(t: Tir, xs: Sequence[Any], dtypes: Sequence[DType], attrs: Any) -> Any:
        if dtypes[0] is DType.BOOL:
            return (t.t.Or if largest else t.t.And)(*xs)
        return extremum(t, largest, xs[0], xs[1], dtypes[0])

    return function


_FUNCTIONS: Mapping[str, Callable[[Tir, Sequence[Any], Sequence[DType], Any], Any]] = {
    "add": _binary("Add"),
    "sub": _binary("Sub"),
    "mul": _binary("Mul"),
    "div": _quotient,
    "maximum": _extremum(True),
    "minimum": _extremum(False),
    "neg": lambda t, xs, dtypes, attrs: t.t.Mul(xs[0], t.number(-1.0, str(dtypes[0]))),
    "abs": _unary("abs"),
    "sign": _sign,
    "floor": _unary("floor"),
    "exp": _c("exp"),
    "log": _c("log"),
    "log1p": _c("log1p"),
    "sqrt": _unary("sqrt"),
    "tanh": _c("tanh"),
    "sin": _c("sin"),
    "cos": _c("cos"),
    "sigmoid": _sigmoid,
    "erf": _erf,
    "pow": _power,
    "compare": _compare,
    "where": lambda t, xs, dtypes, attrs: t.select(*xs),
    "cast": _cast,
}


def apply(t: Tir, name: str, operands: Sequence[Any], dtypes: Sequence[DType], attrs: Any) -> Any:
    """An elementwise primitive on scalars. Raises KeyError for any other one."""
    return _FUNCTIONS[name](t, operands, dtypes, attrs)
