"""Specification rows folded into affine operators: rows on the output as rows on an earlier value, exactly.

``C (W x + b) + d = (C W) x + (C b + d)``: bounds of the right side are tighter than rows multiplied onto bounds of
``W x + b``, as these no longer know which outputs move together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from boundflow_core.extension import SpecRows
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import Node, PrimalGraph
from boundflow_core.ir.primal_ops import conv_transpose_attrs
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, Dim, Shape, size
from boundflow_interval.composites import SPEC_LINEAR
from boundflow_interval.interval import Interval

__all__ = ["FOLDS", "apply_rows", "fold_rows"]

# fold(builder, node, rows, constants, input shape) -> rows on the operand, and what to add to the offset (or None).
# Rows are [B or 1, S, *shape]; constants are the operands after the perturbed one.
Fold = Callable[[Builder, Node, Value, list[Value], Shape], "tuple[Value, Value | None]"]


def fold_rows(b: Builder, graph: PrimalGraph, rows: SpecRows) -> tuple[str, SpecRows]:
    """Moves rows on the graph's output back through affine operators.

    Returns:
        The name of the value on which the rows act now, and the rows.
    """
    name, coefficients, offset = graph.output, rows.C, rows.offset
    front = coefficients.shape[:2]
    while (node := graph.producer(name)) is not None and node.op in FOLDS:
        perturbed = [operand for operand in node.inputs if not graph.is_constant(operand)]
        if len(perturbed) != 1:
            break
        with b.origin(node.name):
            constants = [b.constant(graph.constants[n]) for n in node.inputs if graph.is_constant(n)]
            if node.op == "matmul" and (node.inputs[0] != perturbed[0] or constants[0].rank != 2):
                break
            below = graph.type_of(perturbed[0]).shape
            shaped = b.reshape(coefficients, (*front, *node.type.shape))
            shaped, more = FOLDS[node.op](b, node, shaped, constants, below)
            name, coefficients = perturbed[0], b.reshape(shaped, (*front, size(below)))
            offset = offset + more if more is not None else offset
    return name, SpecRows(coefficients, offset)


def apply_rows(b: Builder, state: Interval, rows: SpecRows) -> tuple[Value, Value]:
    """Bounds [B, S] of rows on the flattened ``state``."""
    batch, *sample = state.lower.shape
    flat = (batch, size(sample))
    lower, upper = b.emit(SPEC_LINEAR, b.reshape(state.lower, flat), b.reshape(state.upper, flat), rows.C, rows.offset)
    return lower, upper


def _sum_over_sample(b: Builder, x: Value) -> Value:
    return b.reduce_sum(x, tuple(range(2, x.rank))) if x.rank > 2 else x


def _unbroadcast(b: Builder, rows: Value, below: Shape) -> Value:
    """Adjoint of broadcasting ``below`` to the sample shape of ``rows``: sums over the axes that were repeated."""
    new = rows.rank - 2 - len(below)
    grown = [2 + new + axis for axis, dim in enumerate(below) if dim == 1 and rows.shape[2 + new + axis] != 1]
    axes = (*range(2, 2 + new), *grown)
    total = b.reduce_sum(rows, axes) if axes else rows
    return b.reshape(total, (*rows.shape[:2], *below))


def _linear(b: Builder, node: Node, rows: Value, constants: list[Value], below: Shape) -> tuple[Value, Value | None]:
    weight, *bias = constants
    width = rows.shape[-1]
    flat = b.reshape(rows, (size(rows.shape[:-1]), width))
    folded = b.reshape(b.matmul(flat, weight), (*rows.shape[:-1], weight.shape[-1]))
    return folded, _sum_over_sample(b, rows * bias[0]) if bias else None


def _matmul(b: Builder, node: Node, rows: Value, constants: list[Value], below: Shape) -> tuple[Value, Value | None]:
    lines = (size(rows.shape[:-1]), rows.shape[-1])
    folded = b.matmul(b.reshape(rows, lines), constants[0], transpose_b=True)
    return b.reshape(folded, (*rows.shape[:-1], constants[0].shape[0])), None


def _images(b: Builder, x: Value) -> tuple[Value, tuple[Dim, ...]]:
    front = x.shape[:-3]
    return b.reshape(x, (size(front), *x.shape[-3:])), front


def _channels(b: Builder, rows: Value, bias: list[Value]) -> Value | None:
    return _sum_over_sample(b, rows * b.reshape(bias[0], (*bias[0].shape, 1, 1))) if bias else None


def _conv2d(b: Builder, node: Node, rows: Value, constants: list[Value], below: Shape) -> tuple[Value, Value | None]:
    weight, *bias = constants
    flat, front = _images(b, rows)
    attrs = Attrs(node.attrs, input_size=below[-2:])
    folded = b.emit_named("conv2d_input_grad", flat, weight, attrs=attrs)
    return b.reshape(folded, (*front, *below[-3:])), _channels(b, rows, bias)


def _conv_transpose2d(
    b: Builder, node: Node, rows: Value, constants: list[Value], below: Shape
) -> tuple[Value, Value | None]:
    weight, *bias = constants
    flat, front = _images(b, rows)
    attrs = dict(conv_transpose_attrs(node.attrs, below, weight.shape))
    del attrs["input_size"]
    folded = b.emit_named("conv2d", flat, weight, attrs=Attrs(attrs))
    return b.reshape(folded, (*front, *below[-3:])), _channels(b, rows, bias)


def _reshape(b: Builder, node: Node, rows: Value, constants: list[Value], below: Shape) -> tuple[Value, Value | None]:
    return b.reshape(rows, (*rows.shape[:2], *below)), None


def _permute(b: Builder, node: Node, rows: Value, constants: list[Value], below: Shape) -> tuple[Value, Value | None]:
    axes = node.attrs["axes"]
    back = sorted(range(len(axes)), key=axes.__getitem__)
    return b.permute(rows, (0, 1, *(2 + axis for axis in back))), None


def _add(b: Builder, node: Node, rows: Value, constants: list[Value], below: Shape) -> tuple[Value, Value | None]:
    return _unbroadcast(b, rows, below), _sum_over_sample(b, rows * constants[0])


def _mul(b: Builder, node: Node, rows: Value, constants: list[Value], below: Shape) -> tuple[Value, Value | None]:
    return _unbroadcast(b, rows * constants[0], below), None


def _expand(b: Builder, node: Node, rows: Value, constants: list[Value], below: Shape) -> tuple[Value, Value | None]:
    return _unbroadcast(b, rows, below), None


def _reduce_sum(
    b: Builder, node: Node, rows: Value, constants: list[Value], below: Shape
) -> tuple[Value, Value | None]:
    kept = tuple(1 if axis in node.attrs["axes"] else dim for axis, dim in enumerate(below))
    return b.broadcast(b.reshape(rows, (*rows.shape[:2], *kept)), (*rows.shape[:2], *below)), None


FOLDS: Mapping[str, Fold] = {
    "linear": _linear,
    "matmul": _matmul,
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "reshape": _reshape,
    "permute": _permute,
    "add": _add,
    "mul": _mul,
    "expand": _expand,
    "reduce_sum": _reduce_sum,
}
