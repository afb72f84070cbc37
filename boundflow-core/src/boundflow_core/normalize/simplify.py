"""Simplification of graphs: one small rule per pattern, the table of them at the bottom.

A rule looks at one node, whose operands are simplified already, and gives an equal value or None. Rules keep the
graph's function exactly, up to rounding where they combine constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from boundflow_core.ir.constants import Constant
from boundflow_core.ir.primal import Node
from boundflow_core.ir.primal_builder import Operand, Tensor
from boundflow_core.normalize.gelu import gelu_of_erf
from boundflow_core.normalize.rebuild import Rewriter

__all__ = ["simplify_node"]

_Rule = Callable[[Rewriter, Node, Sequence[Operand]], Any]


def _no_change(g: Rewriter, node: Node, xs: Sequence[Operand]) -> Any:
    """A reshape, permute, expand, slice, pad or concat that changes nothing."""
    (x, *others), attrs = xs, node.attrs
    changes_nothing: dict[str, Callable[[], bool]] = {
        "reshape": lambda: attrs["shape"] == x.shape,
        "expand": lambda: attrs["shape"] == x.shape,
        "permute": lambda: list(attrs["axes"]) == list(range(len(attrs["axes"]))),
        "slice": lambda: node.type.shape == x.shape,
        "pad": lambda: not any((*attrs["low"], *attrs["high"])),
        "concat": lambda: not others,
        "reduce_sum": lambda: not attrs["axes"],
    }
    return x if changes_nothing[node.op]() else None


def _reshape_of_reshape(g: Rewriter, node: Node, xs: Sequence[Operand]) -> Any:
    made = g.producer(xs[0])
    if made and made[0].op == "reshape":
        return g.op("reshape", made[1][0], **node.attrs)
    return None


def _permute_of_permute(g: Rewriter, node: Node, xs: Sequence[Operand]) -> Any:
    made = g.producer(xs[0])
    if made and made[0].op == "permute":
        return g.op("permute", made[1][0], axes=[made[0].attrs["axes"][axis] for axis in node.attrs["axes"]])
    return None


def _permute_of_units(g: Rewriter, node: Node, xs: Sequence[Operand]) -> Any:
    """A permutation that moves only axes of size 1 is a reshape."""
    shape = xs[0].shape
    moved = [axis for axis in node.attrs["axes"] if shape[axis] != 1]
    return g.op("reshape", xs[0], shape=node.type.shape) if moved == sorted(moved) else None


def _constant_second(g: Rewriter, node: Node, xs: Sequence[Operand]) -> Any:
    """Commutative operators have their constant second."""
    if isinstance(xs[0], Constant) and isinstance(xs[1], Tensor):
        return g.op(node.spec, xs[1], xs[0])
    return None


def _neutral(value: float) -> _Rule:
    """x + 0 and x * 1, where the constant does not widen the shape and cannot change later."""

    def rule(g: Rewriter, node: Node, xs: Sequence[Operand]) -> Any:
        x, c = xs
        if isinstance(c, Constant) and not c.is_live and node.type.shape == x.shape and (c.numpy() == value).all():
            return x
        return None

    return rule


def _merged_constants(g: Rewriter, node: Node, xs: Sequence[Operand]) -> Any:
    """(x + a) + b = x + (a + b), and the same for products, where nobody else reads the inner result."""
    made = g.producer(xs[0])
    if made and made[0].op == node.op and isinstance(xs[1], Constant) and isinstance(made[1][1], Constant):
        inner, first = made[1]
        if _only_reader(g, node, made[0]):
            return g.op(node.spec, inner, g.op(node.spec, first, xs[1]))
    return None


def _only_reader(g: Rewriter, node: Node, made: Node) -> bool:
    """Whether nobody but ``node`` reads the first operand, which the new node ``made`` defines.

    Where the operand's old producer became another one's node (a reshape that changed nothing), others may read that:
    the next round of simplification, whose old graph is this one's new one, can tell.
    """
    value = node.inputs[0]
    before = g.old.producer(value)
    alone = len(g.old.users(value)) == 1 and g.old.output != value
    return alone and before is not None and before.name == made.name


def _square(g: Rewriter, node: Node, xs: Sequence[Operand]) -> Any:
    return g.op("pow", xs[0], exponent=2.0) if xs[0] == xs[1] else None


def _relu_of_clip(g: Rewriter, node: Node, xs: Sequence[Operand]) -> Any:
    if (node.attrs["min"], node.attrs["max"]) == (0.0, math.inf):
        return g.op("relu", xs[0])
    return xs[0] if (node.attrs["min"], node.attrs["max"]) == (-math.inf, math.inf) else None


def _relu_of_maximum(g: Rewriter, node: Node, xs: Sequence[Operand]) -> Any:
    c = xs[1]
    if isinstance(c, Constant) and not c.is_live and node.type.shape == xs[0].shape and not c.numpy().any():
        return g.op("relu", xs[0])
    return None


# -- affine functions of affine operators -----------------------------------------------------------------------------

# Where an affine operator's result has its channels, and which axis of its weight makes them.
_CHANNEL_AXIS = {"linear": -1, "conv2d": -3, "conv_transpose2d": -3}


def _per_channel(g: Rewriter, constant: Constant, out_shape: Sequence[int], axis: int) -> Constant | None:
    """``constant`` as a vector over the channels, ``axis`` of ``out_shape``; None where it varies along other axes."""
    shape = (1,) * (len(out_shape) - len(constant.shape)) + constant.shape
    if len(shape) > len(out_shape) or any(
        dim != 1 for place, dim in enumerate(shape) if place != len(out_shape) + axis
    ):
        return None
    vector = g.op("reshape", constant, shape=(shape[axis],))
    return _constant(g.op("expand", vector, shape=(out_shape[axis],)))


def _constant(value: Any) -> Constant:
    assert isinstance(value, Constant)
    return value


def _affine_producer(g: Rewriter, node: Node, xs: Sequence[Operand]) -> tuple[Node, Sequence[Operand], Constant] | None:
    """The affine node whose result nobody but ``node`` reads, its operands, and the other operand per channel."""
    made = g.producer(xs[0])
    if made is None or made[0].op not in _CHANNEL_AXIS or not isinstance(xs[1], Constant):
        return None
    shape = tuple(int(dim) for dim in node.type.shape)  # type: ignore[arg-type]
    if shape != xs[0].shape or not _only_reader(g, node, made[0]):
        return None
    vector = _per_channel(g, xs[1], shape, _CHANNEL_AXIS[made[0].op])
    return (made[0], made[1], vector) if vector is not None else None


def _into_bias(g: Rewriter, node: Node, xs: Sequence[Operand]) -> Any:
    """affine(x) + c with c per channel: c joins the bias."""
    found = _affine_producer(g, node, xs)
    if found is None:
        return None
    made, operands, vector = found
    bias = g.op("add", operands[2], vector) if len(operands) == 3 else vector
    return g.op(made.spec, operands[0], operands[1], bias, **made.attrs)


def _into_weight(g: Rewriter, node: Node, xs: Sequence[Operand]) -> Any:
    """affine(x) * c with c per channel: c joins weight and bias (the folding of BatchNorm)."""
    found = _affine_producer(g, node, xs)
    if found is None:
        return None
    made, operands, vector = found
    weight = _constant(operands[1])
    scale = _weight_scale(g, made, weight, vector)
    if scale is None:
        return None
    scaled = [operands[0], g.op("mul", weight, scale)]
    if len(operands) == 3:
        scaled.append(g.op("mul", operands[2], vector))
    return g.op(made.spec, *scaled, **made.attrs)


def _weight_scale(g: Rewriter, made: Node, weight: Constant, vector: Constant) -> Constant | None:
    if made.op == "conv_transpose2d":
        if made.attrs["groups"] != 1:
            return None
        shape: tuple[int, ...] = (1, vector.shape[0], 1, 1)
    else:
        shape = (vector.shape[0],) + (1,) * (len(weight.shape) - 1)
    return _constant(g.op("reshape", vector, shape=shape))


_TABLE: dict[str, tuple[_Rule, ...]] = {
    "reshape": (_no_change, _reshape_of_reshape),
    "permute": (_no_change, _permute_of_permute, _permute_of_units),
    "expand": (_no_change,),
    "slice": (_no_change,),
    "pad": (_no_change,),
    "concat": (_no_change,),
    "reduce_sum": (_no_change,),
    "add": (_constant_second, _neutral(0.0), _into_bias, _merged_constants),
    "mul": (_constant_second, gelu_of_erf, _neutral(1.0), _square, _into_weight, _merged_constants),
    "maximum": (_constant_second, _relu_of_maximum),
    "minimum": (_constant_second,),
    "clip": (_relu_of_clip,),
}


def simplify_node(g: Rewriter, node: Node, operands: tuple[Operand, ...]) -> Operand | None:
    """What the first rule that applies to ``node`` gives; None where none does."""
    for rule in _TABLE.get(node.op, ()):
        found: Operand | None = rule(g, node, operands)
        if found is not None:
            return found
    return None
