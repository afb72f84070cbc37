"""Removal of the literal batch axis of 1 that networks carry through their shapes.

Frontends read a network with its own leading axis of 1. This pass rewrites it for one sample: wherever an operator acts
on the remaining axes alone, the leading 1 is dropped; where it does not (a transpose that moves it, a reduction over
it) the literal shape is restored for that operator by a reshape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from boundflow_core.ir.constants import Constant
from boundflow_core.ir.primal import Node, PrimalGraph
from boundflow_core.ir.primal_builder import Operand, PrimalBuilder, Tensor
from boundflow_core.ir.types import Attrs
from boundflow_core.normalize.rebuild import lookup

__all__ = ["drop_batch_axis"]


def drop_batch_axis(graph: PrimalGraph) -> PrimalGraph:
    """``graph``, whose input has a leading axis of 1, as a graph on the shapes without it.

    The output loses its leading axis where that is 1.
    """
    literal = tuple(int(dim) for dim in graph.input_type.shape)  # type: ignore[arg-type]
    assert literal and literal[0] == 1, f"no batch axis of 1 to drop in {literal}"
    g = PrimalBuilder(graph.name, graph.input, literal[1:])
    values: dict[str, Operand] = {graph.input: g.input}
    for node in graph.nodes:
        operands = [lookup(name, values, graph.constants) for name in node.inputs]
        shapes = [tuple(int(dim) for dim in graph.type_of(name).shape) for name in node.inputs]  # type: ignore[arg-type]
        with g.at(node.name):
            values[node.output] = _written(g, node, operands, shapes)
    return g.finish(values[graph.output])


def _written(g: PrimalBuilder, node: Node, operands: list[Operand], shapes: list[tuple[int, ...]]) -> Operand:
    out = tuple(int(dim) for dim in node.type.shape)  # type: ignore[arg-type]
    dropped: Operand
    if node.op == "reshape":
        return _keep_value(g.op("reshape", operands[0], shape=out[1:] if _has_unit(out) else out))
    attrs = _shifted(node, operands, shapes, out)
    if attrs is not None:
        kept = [
            g.op("reshape", x, shape=shape[1:]) if isinstance(x, Constant) and _carries_batch(node, shape, out) else x
            for x, shape in zip(operands, shapes, strict=True)
        ]
        dropped = g.op(node.spec, *kept, **attrs)
        return dropped
    restored = [
        g.op("reshape", x, shape=shape) if isinstance(x, Tensor) and x.shape != shape else x
        for x, shape in zip(operands, shapes, strict=True)
    ]
    full = g.op(node.spec, *restored, **node.attrs)
    dropped = g.op("reshape", full, shape=out[1:]) if _has_unit(out) else full
    return dropped


def _keep_value(value: Any) -> Operand:
    assert isinstance(value, (Tensor, Constant))
    return value


def _has_unit(shape: tuple[int, ...]) -> bool:
    return len(shape) > 0 and shape[0] == 1


def _carries_batch(node: Node, shape: tuple[int, ...], out: tuple[int, ...]) -> bool:
    """Whether axis 0 of a constant operand is the batch axis: it is aligned with the result and has its full rank."""
    return (node.spec.elementwise or node.op in ("concat", "matmul")) and len(shape) == len(out)


def _shifted(node: Node, operands: list[Operand], shapes: list[tuple[int, ...]], out: tuple[int, ...]) -> Attrs | None:
    """Attributes for the shapes without the leading axis; None where the operator needs that axis.

    Rules see the shapes of the operands that lose the axis.
    """
    with_batch = [
        shape
        for x, shape in zip(operands, shapes, strict=True)
        if isinstance(x, Tensor) or _carries_batch(node, shape, out)
    ]
    if not _has_unit(out) or not all(map(_has_unit, with_batch)):
        return None
    if node.spec.elementwise:
        return node.attrs
    rule = _RULES.get(node.op)
    return rule(node.attrs, with_batch, out) if rule else None


_ShiftRule = Callable[[Attrs, "list[tuple[int, ...]]", "tuple[int, ...]"], "Attrs | None"]


def _at_rank(least: int) -> _ShiftRule:
    """Operators on the last axes, which leave the leading one alone from a certain rank on."""
    return lambda attrs, shapes, out: attrs if len(shapes[0]) >= least and len(out) >= least else None


def _all_at_rank_3(attrs: Attrs, shapes: list[tuple[int, ...]], out: tuple[int, ...]) -> Attrs | None:
    return attrs if all(len(shape) >= 3 for shape in shapes) else None


def _one_axis(attrs: Attrs, shapes: list[tuple[int, ...]], out: tuple[int, ...]) -> Attrs | None:
    return attrs.replace(axis=attrs["axis"] - 1) if attrs["axis"] > 0 else None


def _many_axes(attrs: Attrs, shapes: list[tuple[int, ...]], out: tuple[int, ...]) -> Attrs | None:
    if 0 in attrs["axes"]:
        return None
    return attrs.replace(axes=[axis - 1 for axis in attrs["axes"]])


def _permute(attrs: Attrs, shapes: list[tuple[int, ...]], out: tuple[int, ...]) -> Attrs | None:
    return attrs.replace(axes=[axis - 1 for axis in attrs["axes"][1:]]) if attrs["axes"][0] == 0 else None


def _expand(attrs: Attrs, shapes: list[tuple[int, ...]], out: tuple[int, ...]) -> Attrs | None:
    return attrs.replace(shape=attrs["shape"][1:]) if len(shapes[0]) == len(out) else None


def _slice(attrs: Attrs, shapes: list[tuple[int, ...]], out: tuple[int, ...]) -> Attrs | None:
    return Attrs({key: attrs[key][1:] for key in ("starts", "stops", "steps")})


def _pad(attrs: Attrs, shapes: list[tuple[int, ...]], out: tuple[int, ...]) -> Attrs | None:
    if attrs["low"][0] or attrs["high"][0]:
        return None
    return attrs.replace(low=attrs["low"][1:], high=attrs["high"][1:])


_RULES: Mapping[str, _ShiftRule] = {
    "linear": _at_rank(2),
    "conv2d": _at_rank(4),
    "conv_transpose2d": _at_rank(4),
    "max_pool2d": _at_rank(4),
    "matmul": _all_at_rank_3,
    "reduce_sum": _many_axes,
    "reduce_max": _many_axes,
    "reduce_min": _many_axes,
    "permute": _permute,
    "expand": _expand,
    "slice": _slice,
    "pad": _pad,
    "concat": _one_axis,
    "gather": _one_axis,
    "softmax": _one_axis,
}
