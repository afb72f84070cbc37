"""Sums, means and extrema over axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from boundflow_core.frontends import compose
from boundflow_core.ir.primal_builder import Operand, PrimalBuilder
from boundflow_onnx.node import Converter, OnnxNode

__all__ = ["CONVERTERS"]

_Reduction = Callable[[PrimalBuilder, Operand, "tuple[int, ...]", bool], Any]


def _over_axes(write: _Reduction, axes_as_operand: int) -> Converter:
    """A reduction whose axes are an attribute, or from opset ``axes_as_operand`` on an operand. None means all."""

    def convert(n: OnnxNode) -> Any:
        x = n.operand()
        axes = n.integer_list("axes", 1, axes_as_operand, "axes")
        if not axes and n.attribute("noop_with_empty_axes", 0):
            return x
        rank = len(x.shape)
        chosen = sorted({compose.axis_of(axis, rank) for axis in axes}) if axes else range(rank)
        return write(n.g, x, tuple(chosen), bool(n.attribute("keepdims", 1)))

    return convert


def _plain(op: str) -> _Reduction:
    return lambda g, x, axes, keepdims: g.op(op, x, axes=axes, keepdims=keepdims)


def _sum_of(op: str, **attributes: Any) -> _Reduction:
    return lambda g, x, axes, keepdims: g.op("reduce_sum", g.op(op, x, **attributes), axes=axes, keepdims=keepdims)


def _norm(g: PrimalBuilder, x: Operand, axes: tuple[int, ...], keepdims: bool) -> Any:
    return g.op("sqrt", _sum_of("pow", exponent=2.0)(g, x, axes, keepdims))


CONVERTERS: Mapping[str, Converter] = {
    "ReduceL1": _over_axes(_sum_of("abs"), 18),
    "ReduceL2": _over_axes(_norm, 18),
    "ReduceMax": _over_axes(_plain("reduce_max"), 18),
    "ReduceMean": _over_axes(compose.reduce_mean, 18),
    "ReduceMin": _over_axes(_plain("reduce_min"), 18),
    "ReduceSum": _over_axes(_plain("reduce_sum"), 13),
    "ReduceSumSquare": _over_axes(_sum_of("pow", exponent=2.0), 18),
}
