"""How operations pass a rearrangement of their operands on to their result. The table is at the bottom.

A rule ``rule(rewriter, op, forms)`` writes ``op`` on the bases of its operands' forms and gives the form of the result,
or None where it needs its operands as they are. Whatever rearrangement it does not pass on it must write.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.constants import frozen
from boundflow_core.ir.program import Op, Primitive, Value
from boundflow_core.ir.types import Attrs, Dim, DType, TensorType
from boundflow_core.planner.layout.forms import (
    Form,
    axis_order,
    groups,
    inverse,
    reorder_form,
    reshape_form,
    whole,
)
from boundflow_core.planner.layout.local import emit_layout, new_constant, permuted, reshaped
from boundflow_core.planner.rewrite import Rewriter

__all__ = ["CARRY_RULES", "CarryRule", "carry_rule", "written"]

# All orders of up to this many axes are tried.
MOST_PARTS = 4

CarryRule = Callable[[Rewriter, Op, Sequence[Form]], "Form | None"]


def written(w: Rewriter, form: Form) -> Value:
    """The value of ``form``: what was put off is written, unless the weights before it can be arranged instead."""
    if form.trivial:
        return form.base
    through = _through_weights(w, form) if form.moved else None
    return through if through is not None else reshaped(w, permuted(w, form.base, form.axes), form.shape)


def _through_weights(w: Rewriter, form: Form) -> Value | None:
    """A rearrangement of what matrix products gave, as one of the columns of their constant factors."""
    op = w.producer(form.base)
    product = op.inputs[0] if op is not None and op.name == "reshape" else form.base
    if not product.rank or w.is_weight(product):
        return None
    flat = Form(form.base, form.axes, product.shape)
    order = axis_order(flat, product.rank - 1)
    if order is None:
        return None
    moved = along(w, product, product.rank - 1, np.argsort(order))
    return reshaped(w, moved, form.shape) if moved is not None else None


def along(w: Rewriter, value: Value, axis: int, order: NDArray[np.int64]) -> Value | None:
    """``value`` with its elements along ``axis`` in ``order``, where constants before it can be arranged instead."""
    key = ("along", value, axis, order.tobytes())
    if key not in w.arranged and key not in w.refused:
        found = _along(w, value, axis, order)
        if found is None:
            w.refused.add(key)
        else:
            w.arranged[key] = found
    return w.arranged.get(key)


def _along(w: Rewriter, value: Value, axis: int, order: NDArray[np.int64]) -> Value | None:
    constant = w.constant_of(value)
    if constant is not None and not constant.is_live:
        taken = np.take(constant.numpy(), order, axis=axis)
        return new_constant(w, value, taken, f"take({axis}, {_mark(order)})")
    op = w.producer(value)
    if op is not None and isinstance(op.spec, Primitive):
        if op.spec.kind == "elementwise":
            return _along_elementwise(w, op, axis, order)
        if op.name == "matmul":
            return _along_matmul(w, op, axis, order)
        if op.name == "reshape" and not w.is_weight(value):
            return _along_reshape(w, op, axis, order)
    if w.is_weight(value):
        return w.gather_rows(value, _index(w, order), axis)
    return None


def _mark(order: NDArray[np.int64]) -> str:
    """Tells one order from others in a printed program."""
    return f"{zlib.crc32(order.tobytes()):08x}"


def _index(w: Rewriter, order: NDArray[np.int64]) -> Value:
    key = ("index", order.tobytes())
    if key not in w.arranged:
        name = f"order.{_mark(order)}"
        w.arranged[key] = w.read_constant(frozen(order), Value(0, TensorType(DType.INT64, order.shape), name))
    return w.arranged[key]


def _along_elementwise(w: Rewriter, op: Op, axis: int, order: NDArray[np.int64]) -> Value | None:
    assert isinstance(op.spec, Primitive)
    from_end = axis - op.outputs[0].rank
    operands: list[Value] = []
    for value in op.inputs:
        if value.rank < -from_end or value.shape[from_end] == 1:
            operands.append(value)  # the same all along the axis
            continue
        moved = along(w, value, value.rank + from_end, order)
        if moved is None:
            return None
        operands.append(moved)
    return w.write(op.spec, operands, op.attrs)[0]


def _along_matmul(w: Rewriter, op: Op, axis: int, order: NDArray[np.int64]) -> Value | None:
    """Columns of ``x y`` are those of y, rows those of x."""
    x, y = op.inputs
    rank = op.outputs[0].rank
    if axis == rank - 1:
        at = y.rank - 2 if op.attrs["transpose_b"] else y.rank - 1
        moved = along(w, y, at, order)
        return w.write(op.spec, (x, moved), op.attrs)[0] if moved is not None else None
    if axis == rank - 2:
        at = x.rank - 1 if op.attrs["transpose_a"] else x.rank - 2
        moved = along(w, x, at, order)
        return w.write(op.spec, (moved, y), op.attrs)[0] if moved is not None else None
    return None


def _along_reshape(w: Rewriter, op: Op, axis: int, order: NDArray[np.int64]) -> Value | None:
    """Where the axis is there before the reshape too, but for axes of size 1, or was repeated along parts of it."""
    source, shape = op.inputs[0], op.outputs[0].shape
    part = next((part for part in groups(source.shape, shape) if axis in part[1]), None)
    if part is None or any(shape[other] != 1 for other in part[1] if other != axis):
        return None
    same = [before for before in part[0] if source.shape[before] != 1]
    if len(same) != 1:
        return _along_repeated(w, op, part[0], order)
    moved = along(w, source, same[0], order)
    return reshaped(w, moved, shape) if moved is not None else None


def _along_repeated(w: Rewriter, op: Op, run: range, order: NDArray[np.int64]) -> Value | None:
    """A flattened broadcast in another order of its axes, where that moves only axes of size 1 before the broadcast."""
    source, shape = op.inputs[0], op.outputs[0].shape
    spread = w.producer(source)
    dims = [dim for dim in (source.shape[axis] for axis in run) if isinstance(dim, int)]
    if spread is None or spread.name != "broadcast" or spread.inputs[0].rank != source.rank or len(dims) != len(run):
        return None
    places = np.arange(order.size).reshape(dims)
    for local in itertools.permutations(range(len(dims))) if len(dims) <= MOST_PARTS else ():
        if not np.array_equal(places.transpose(local).ravel(), order):
            continue
        axes = [*range(run.start), *(run.start + at for at in local), *range(run.stop, source.rank)]
        small = permuted(w, spread.inputs[0], axes)
        made = w.producer(small)
        if made is None or made.name != "permute":
            wide = tuple(source.shape[axis] for axis in axes)
            return reshaped(w, emit_layout(w, "broadcast", small, Attrs(shape=wide)), shape)
    return None


# -- elementwise operations -------------------------------------------------------------------------------------------


def arranged(w: Rewriter, form: Form, leader: Form) -> Value | None:
    """``form`` in the order of ``leader.base``, so that both broadcast; None where it varies along part of a run."""
    if form.axes == leader.axes and form.shape == leader.shape and form.base.shape == leader.base.shape:
        return form.base
    if form.shape == ():
        return written(w, form)
    shape: tuple[Dim, ...] = (*((1,) * (len(leader.shape) - len(form.shape))), *form.shape)
    ordered = leader.ordered_shape
    spread: list[Dim] = []
    for before, after in groups(ordered, leader.shape):
        dims = [shape[axis] for axis in after]
        if dims == [leader.shape[axis] for axis in after]:
            spread += [ordered[axis] for axis in before]
        elif all(dim == 1 for dim in dims):
            spread += [1] * len(before)
        else:
            return None
    return permuted(w, reshaped(w, written(w, form), tuple(spread)), inverse(leader.axes))


def _leader(w: Rewriter, forms: Sequence[Form], op: Op) -> Form | None:
    """The arrangement in which to compute: that of most operands; of equals, a permuted one before a plain one."""
    shape = op.outputs[0].shape
    varying = [form for form in forms if form.shape == shape and not w.is_weight(form.base)]
    votes: dict[tuple[object, ...], list[Form]] = {}
    for form in varying:
        votes.setdefault((form.axes, form.base.shape), []).append(form)
    best = max(votes.values(), key=lambda same: (len(same), same[0].moved, same[0].trivial), default=None)
    if best is None or best[0].trivial or not (best[0].moved or w.moves_reshapes):
        return None
    return best[0]


def _elementwise(w: Rewriter, op: Op, forms: Sequence[Form]) -> Form | None:
    leader = _leader(w, forms, op)
    if leader is None:
        return None
    operands: list[Value] = []
    for form in forms:
        value = arranged(w, form, leader)
        if value is None:
            return None
        operands.append(value)
    (base,) = w.write(op.spec, operands, op.attrs)
    assert base.shape == leader.base.shape
    return Form(base, leader.axes, op.outputs[0].shape)


# -- layout operations ------------------------------------------------------------------------------------------------


def _reshape(w: Rewriter, op: Op, forms: Sequence[Form]) -> Form:
    return reshape_form(forms[0], op.outputs[0].shape)


def _permute(w: Rewriter, op: Op, forms: Sequence[Form]) -> Form:
    axes = op.attrs["axes"]
    found = reorder_form(forms[0], axes)
    if found is None:
        found = reorder_form(whole(written(w, forms[0])), axes)
        assert found is not None
    return found


def _per_axis(*keys: str) -> CarryRule:
    """Operations with attributes axis by axis, which follow their axes."""

    def rule(w: Rewriter, op: Op, forms: Sequence[Form]) -> Form | None:
        (form,) = forms
        if not form.pure or not form.moved:
            return None
        back = inverse(form.axes)
        attrs = op.attrs.replace(**{key: [op.attrs[key][at] for at in back] for key in keys})
        return Form(emit_layout(w, op.name, form.base, attrs), form.axes, op.outputs[0].shape)

    return rule


def _broadcast(w: Rewriter, op: Op, forms: Sequence[Form]) -> Form | None:
    (form,) = forms
    if not form.pure or not form.moved:
        return None
    shape = op.attrs["shape"]
    new = len(shape) - len(form.shape)
    axes = (*range(new), *(new + axis for axis in form.axes))
    wide = tuple(shape[at] for at in inverse(axes))
    return Form(emit_layout(w, "broadcast", form.base, Attrs(shape=wide)), axes, shape)


def _along_one_axis(w: Rewriter, op: Op, forms: Sequence[Form]) -> Form | None:
    """concat, gather_rows and scatter_rows: operands of the result's rank are arranged alike, others are indices."""
    rank = op.outputs[0].rank
    # An index of gather_rows and scatter_rows is their second operand.
    data = [form for at, form in enumerate(forms) if op.name == "concat" or at != 1]
    leader = next((form for form in data if form.moved and form.pure), None)
    if leader is None or any(not form.pure for form in data):
        return None
    back = inverse(leader.axes)
    operands: list[Value] = []
    for at, form in enumerate(forms):
        if op.name != "concat" and at == 1:
            operands.append(written(w, form))
        elif form.axes == leader.axes:
            operands.append(form.base)
        else:
            operands.append(permuted(w, written(w, form), back))
    assert len(leader.axes) == rank
    attrs = op.attrs.replace(axis=leader.axes[op.attrs["axis"]])
    return Form(w.emit_named(op.name, *operands, attrs=attrs), leader.axes, op.outputs[0].shape)


# -- reductions and contractions --------------------------------------------------------------------------------------


def _reduce(w: Rewriter, op: Op, forms: Sequence[Form]) -> Form | None:
    """Over whole runs of axes."""
    (form,) = forms
    if form.trivial:
        return None
    over: list[int] = []  # axes of the ordered base
    for before, after in groups(form.ordered_shape, form.shape):
        inside = {axis in op.attrs["axes"] for axis in after}
        if len(inside) > 1:
            return None
        over += before if inside == {True} else ()
    axes = sorted(form.axes[at] for at in over)
    base = w.emit_named(op.name, form.base, attrs=op.attrs.replace(axes=axes))
    if op.attrs["keepdims"]:
        return Form(base, form.axes, op.outputs[0].shape)
    kept = [axis for axis in form.axes if axis not in axes]
    return Form(base, tuple(sorted(kept).index(axis) for axis in kept), op.outputs[0].shape)


def _matmul(w: Rewriter, op: Op, forms: Sequence[Form]) -> Form | None:
    contracted = _contracted_order(w, op, forms)
    return contracted if contracted is not None else _matrices(w, op, forms)


def _contracted_order(w: Rewriter, op: Op, forms: Sequence[Form]) -> Form | None:
    """An operand whose contracted axis alone is in another order: the other's follows, where that costs nothing."""
    x, y = forms
    x_axis = len(x.shape) - (2 if op.attrs["transpose_a"] else 1)
    y_axis = len(y.shape) - (1 if op.attrs["transpose_b"] else 2)
    if (factor := _following(w, x, x_axis, y, y_axis)) is not None:
        operands = (reshaped(w, x.base, x.shape), factor)
    elif (factor := _following(w, y, y_axis, x, x_axis)) is not None:
        operands = (factor, reshaped(w, y.base, y.shape))
    else:
        return None
    return whole(w.emit_named("matmul", *operands, attrs=op.attrs))


def _following(w: Rewriter, form: Form, axis: int, partner: Form, partner_axis: int) -> Value | None:
    """``partner`` in the order along its axis that ``form``'s base has along its own."""
    order = axis_order(form, axis) if form.moved and not form.pure else None
    return along(w, written(w, partner), partner_axis, order) if order is not None else None


def _matrices(w: Rewriter, op: Op, forms: Sequence[Form]) -> Form | None:
    """Swapped last axes are an attribute of the product; a common order of the axes before them passes through."""
    if not any(form.moved and _split(form) is not None for form in forms):
        return None
    fronts = [split[0] for split in map(_split, forms) if split is not None]
    longest = max(fronts, key=len)
    if len(fronts) < 2 or any(front and front != longest for front in fronts):
        # Not alike: an order of the axes before the last two is written; swapped last axes need not be.
        forms = [form if _keeps_front(form) else whole(written(w, form)) for form in forms]
        longest = tuple(range(max(len(form.shape) for form in forms) - 2))
    swapped = [split is not None and split[1] for split in map(_split, forms)]
    flags = {
        "transpose_a": op.attrs["transpose_a"] != swapped[0],
        "transpose_b": op.attrs["transpose_b"] != swapped[1],
    }
    base = w.emit_named("matmul", *(form.base for form in forms), attrs=Attrs(flags))
    return Form(base, (*longest, base.rank - 2, base.rank - 1), op.outputs[0].shape)


def _keeps_front(form: Form) -> bool:
    split = _split(form)
    return split is not None and split[0] == tuple(range(len(split[0])))


def _split(form: Form) -> tuple[tuple[int, ...], bool] | None:
    """Order of the axes before the last two, and whether these are swapped; None where they mix."""
    rank = len(form.axes)
    if not form.pure or set(form.axes[-2:]) != {rank - 2, rank - 1}:
        return None
    return form.axes[:-2], form.axes[-1] == rank - 2


CARRY_RULES: Mapping[str, CarryRule] = {
    "reshape": _reshape,
    "permute": _permute,
    "slice": _per_axis("starts", "stops", "steps"),
    "pad": _per_axis("low", "high"),
    "broadcast": _broadcast,
    "concat": _along_one_axis,
    "gather_rows": _along_one_axis,
    "scatter_rows": _along_one_axis,
    "reduce_sum": _reduce,
    "reduce_max": _reduce,
    "reduce_min": _reduce,
    "matmul": _matmul,
}


def carry_rule(op: Op) -> CarryRule | None:
    """The rule of ``op``; None for what needs its operands as they are."""
    if not isinstance(op.spec, Primitive):
        return None
    return _elementwise if op.spec.kind == "elementwise" else CARRY_RULES.get(op.name)
