"""Rules on one layout operation and the one before it: identities, runs, inverse pairs, constants. The table is below.

A rule ``rule(rewriter, x, attrs)`` gives a value equal to the operation on ``x``, or None where it does not apply. No
rule makes more layout operations than it takes away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.constants import Constant
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.program import BoundProgram, Op, Primitive, Value
from boundflow_core.ir.types import Attrs, Dim, Shape, TensorType
from boundflow_core.planner.rewrite import Rewriter, rewrite

__all__ = ["LOCAL_RULES", "emit_layout", "new_constant", "permuted", "reshaped", "simplify_layout"]

LocalRule = Callable[[Rewriter, Value, Attrs], "Value | None"]


# -- identities: they give their operand ------------------------------------------------------------------------------


def _same_shape(w: Rewriter, x: Value, attrs: Attrs) -> Value | None:
    """A reshape or broadcast to the shape that is there."""
    return x if attrs["shape"] == x.shape else None


def _same_order(w: Rewriter, x: Value, attrs: Attrs) -> Value | None:
    return x if attrs["axes"] == tuple(range(x.rank)) else None


def _whole_slice(w: Rewriter, x: Value, attrs: Attrs) -> Value | None:
    whole = ((0,) * x.rank, x.shape, (1,) * x.rank)
    return x if (attrs["starts"], attrs["stops"], attrs["steps"]) == whole else None


def _no_border(w: Rewriter, x: Value, attrs: Attrs) -> Value | None:
    return x if not any((*attrs["low"], *attrs["high"])) else None


# -- runs: two of a kind become one; an inverse pair becomes an identity ----------------------------------------------


def _before(w: Rewriter, x: Value, name: str) -> Op | None:
    op = w.producer(x)
    return op if op is not None and op.name == name else None


def _last_shape(name: str) -> LocalRule:
    """A reshape of a reshape, or a broadcast of a broadcast: the last shape counts."""

    def rule(w: Rewriter, x: Value, attrs: Attrs) -> Value | None:
        op = _before(w, x, name)
        return emit_layout(w, name, op.inputs[0], attrs) if op else None

    return rule


def _order_of_order(w: Rewriter, x: Value, attrs: Attrs) -> Value | None:
    op = _before(w, x, "permute")
    if op is None:
        return None
    inner = op.attrs["axes"]
    return emit_layout(w, "permute", op.inputs[0], Attrs(axes=[inner[axis] for axis in attrs["axes"]]))


def _slice_of_slice(w: Rewriter, x: Value, attrs: Attrs) -> Value | None:
    op = _before(w, x, "slice")
    if op is None:
        return None
    starts: list[Dim] = []
    stops: list[Dim] = []
    steps: list[int] = []
    inner = zip(op.attrs["starts"], op.attrs["stops"], op.attrs["steps"], op.inputs[0].shape, x.shape, strict=True)
    outer = zip(attrs["starts"], attrs["stops"], attrs["steps"], strict=True)
    for (start, stop, step, below, dim), (start2, stop2, step2) in zip(inner, outer, strict=True):
        if (start2, stop2, step2) == (0, dim, 1):
            part = (start, stop, step)
        elif (start, stop, step) == (0, below, 1):
            part = (start2, stop2, step2)
        elif all(isinstance(item, int) for item in (start, stop, start2, stop2)):
            part = (start + start2 * step, min(start + stop2 * step, stop), step * step2)
        else:
            return None  # multiples of symbols
        starts.append(part[0])
        stops.append(part[1])
        steps.append(part[2])
    return emit_layout(w, "slice", op.inputs[0], Attrs(starts=starts, stops=stops, steps=steps))


def _border_of_border(w: Rewriter, x: Value, attrs: Attrs) -> Value | None:
    """Borders of one and the same number."""
    op = _before(w, x, "pad")
    if op is None or Attrs(value=op.attrs["value"]) != Attrs(value=attrs["value"]):
        return None
    sides = {key: [a + b for a, b in zip(op.attrs[key], attrs[key], strict=True)] for key in ("low", "high")}
    return emit_layout(w, "pad", op.inputs[0], attrs.replace(**sides))


def _order_of_units(w: Rewriter, x: Value, attrs: Attrs) -> Value | None:
    """A permutation that moves only axes of size 1 is a reshape, which never needs a copy."""
    moved = [axis for axis in attrs["axes"] if x.shape[axis] != 1]
    if moved != sorted(moved):
        return None
    return emit_layout(w, "reshape", x, Attrs(shape=[x.shape[axis] for axis in attrs["axes"]]))


# -- constants: arranged once, before any run -------------------------------------------------------------------------


def new_constant(w: Rewriter, x: Value, array: NDArray[Any], how: str) -> Value:
    """The constant ``array``, elements of the frozen constant ``x``, as a value named after both."""
    constant = w.constant_of(x)
    assert constant is not None and not constant.is_live
    array = array.view()
    array.flags.writeable = False
    like = Value(0, TensorType(x.type.dtype, array.shape), f"{x.name}.{how}")
    return w.read_constant(Constant(TensorType(constant.type.dtype, array.shape), array), like)


def _of_constant(name: str) -> LocalRule:
    def rule(w: Rewriter, x: Value, attrs: Attrs) -> Value | None:
        constant = w.constant_of(x)
        if constant is None or constant.is_live:
            return None
        how = f"{name}({attrs})"
        key = (name, x, attrs)
        if key not in w.arranged:
            w.arranged[key] = new_constant(w, x, np.asarray(PRIMITIVES[name].reference([constant.numpy()], attrs)), how)
        return w.arranged[key]

    return rule


def _of_frozen_function(name: str) -> LocalRule:
    """Of an elementwise function of constants: the function of arranged constants."""

    def rule(w: Rewriter, x: Value, attrs: Attrs) -> Value | None:
        op = w.producer(x)
        if op is None or not w.is_frozen(x) or not isinstance(op.spec, Primitive) or op.spec.kind != "elementwise":
            return None
        if any(value.shape not in ((), x.shape) for value in op.inputs) or not x.shape:
            return None
        operands = [emit_layout(w, name, value, attrs) if value.shape else value for value in op.inputs]
        return w.write(op.spec, operands, op.attrs)[0]

    return rule


LOCAL_RULES: Mapping[str, Sequence[LocalRule]] = {
    "reshape": (_same_shape, _last_shape("reshape"), _of_constant("reshape"), _of_frozen_function("reshape")),
    "permute": (
        _same_order,
        _order_of_order,
        _order_of_units,
        _of_constant("permute"),
        _of_frozen_function("permute"),
    ),
    "broadcast": (_same_shape, _last_shape("broadcast")),
    "slice": (_whole_slice, _slice_of_slice, _of_constant("slice")),
    "pad": (_no_border, _border_of_border),
    "concat": (),
}


def emit_layout(w: Rewriter, name: str, x: Value, attrs: Attrs) -> Value:
    """The layout operation ``name`` on ``x``, by the first rule that applies, or as it is."""
    for rule in LOCAL_RULES[name]:
        found = rule(w, x, attrs)
        if found is not None:
            return found
    return w.emit_named(name, x, attrs=attrs)


def permuted(w: Rewriter, x: Value, axes: Sequence[int]) -> Value:
    return emit_layout(w, "permute", x, Attrs(axes=axes))


def reshaped(w: Rewriter, x: Value, shape: Shape) -> Value:
    return emit_layout(w, "reshape", x, Attrs(shape=shape))


def simplify_layout(program: BoundProgram) -> BoundProgram:
    """``program`` with the rules of ``LOCAL_RULES`` applied wherever they do; the same program where none does."""

    def rule(w: Rewriter, op: Op, inputs: Sequence[Value]) -> Sequence[Value] | None:
        if op.name == "concat" and len(inputs) == 1:
            return inputs
        return [emit_layout(w, op.name, inputs[0], op.attrs)] if op.name in LOCAL_RULES and len(inputs) == 1 else None

    return rewrite(program, rule)
