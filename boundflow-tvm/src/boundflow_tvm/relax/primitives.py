"""Every primitive in Relax: ``EMITTERS`` at the bottom is the whole table.

What Relax has no operation for, or one that treats NaN or infinities otherwise than NumPy or is less exact than the C
library, is a tensor expression instead, which becomes a tensor function of the same module.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

from boundflow_core.ir.program import Op
from boundflow_core.ir.types import Dim, DType, Shape, size
from boundflow_tvm.backend_relax import Function
from boundflow_tvm.codegen.arithmetic import apply, combine, unit

__all__ = ["EMITTERS", "emit"]

Emitter = Callable[[Function, Op, Sequence[Any]], Any]


def emit(f: Function, op: Op, operands: Sequence[Any]) -> Any:
    """The result of the primitive ``op``."""
    (out,) = op.outputs
    if _is_empty(out.shape):
        return f.full(out.shape, 0, out.type.dtype)
    return f.settled(f.emit(EMITTERS[op.name](f, op, operands)), out.shape, out.type.dtype)


def _is_empty(shape: Shape) -> bool:
    return any(dim == 0 for dim in shape)


def _dtype(op: Op) -> DType:
    return op.inputs[0].type.dtype


# -- elementwise ------------------------------------------------------------------------------------------------------


def _relax(name: str) -> Emitter:
    """Relax's own operation."""
    return lambda f, op, xs: getattr(f.r.op, name)(*xs)


def _scalar(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    """By functions of the C library, on scalars."""
    t, te, (x,) = f.r.t, f.r.te, xs
    dtypes = [_dtype(op)]

    def write(x: Any) -> Any:
        return te.compute(x.shape, lambda *at: apply(t, op.name, [x(*at)], dtypes, op.attrs), name="y")

    return f.emit_te(write, x, name=op.name)


def _extremum(larger: bool) -> Emitter:
    """The larger or smaller one, NaN if either is."""

    def write(f: Function, op: Op, xs: Sequence[Any]) -> Any:
        r, (x, y) = f.r.op, xs
        if _dtype(op) is DType.BOOL:
            return (r.logical_or if larger else r.logical_and)(x, y)
        first = f.emit((r.greater if larger else r.less)(x, y))
        if _dtype(op).is_float:
            first = f.emit(r.logical_or(first, f.emit(r.isnan(x))))
        return r.where(first, x, y)

    return write


def _neg(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    return f.r.op.multiply(xs[0], f.number(-1, _dtype(op)))  # Relax's own is 0 - x, which loses the sign of zero


def _sign(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    r, (x,), dtype = f.r.op, xs, _dtype(op)
    above, below = (f.emit(compare(x, f.number(0, dtype))) for compare in (r.greater, r.less))
    rest = f.emit(r.where(below, f.number(-1, dtype), f.number(0, dtype)))
    found = f.emit(r.where(above, f.number(1, dtype), rest))
    return r.where(f.emit(r.isnan(x)), x, found) if dtype.is_float else found


def _compare(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    r = f.r.op
    if _dtype(op) is DType.BOOL:
        xs = [f.emit(r.astype(x, "int8")) for x in xs]
    if op.attrs["relation"] == "ne":  # TVM's own says that NaN differs from nothing
        return r.logical_not(f.emit(r.equal(*xs)))
    names = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal"}
    return getattr(r, names[op.attrs["relation"]])(*xs)


def _cast(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    source, target = _dtype(op), DType(op.attrs["dtype"])
    if source is target:
        return xs[0]
    if target is DType.BOOL:
        return f.r.op.logical_not(f.emit(f.r.op.equal(xs[0], f.number(0, source))))
    return f.r.op.astype(xs[0], str(target))


# -- contractions -----------------------------------------------------------------------------------------------------


def _turned(f: Function, x: Any, rank: int) -> Any:
    return f.emit(f.r.op.permute_dims(x, [*range(rank - 2), rank - 1, rank - 2]))


def _matmul(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    if any(_is_empty(value.shape) for value in op.inputs):
        return f.full(op.outputs[0].shape, 0, _dtype(op))
    turned = (op.attrs["transpose_a"], op.attrs["transpose_b"])
    operands = [_turned(f, x, v.rank) if turn else x for x, v, turn in zip(xs, op.inputs, turned, strict=True)]
    return f.r.op.matmul(*operands)


def _conv2d(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    attrs = op.attrs
    window = {name: list(attrs[name]) for name in ("padding", "dilation")}
    return f.r.op.nn.conv2d(*xs, strides=list(attrs["stride"]), groups=attrs["groups"], **window)


def _conv2d_input_grad(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    """A convolution of the spread gradient with the kernel turned round: adjoint of a window that moves in strides."""
    r, (g, w), attrs = f.r.op, xs, op.attrs
    (rows, outputs, *spatial), (_, channels, *kernel) = op.inputs[0].shape, op.inputs[1].shape
    groups, dilation, stride = attrs["groups"], attrs["dilation"], attrs["stride"]
    heights: list[int] = [int(str(dim)) for dim in spatial]
    taps: list[int] = [int(str(dim)) for dim in kernel]
    if stride != (1, 1):  # zeros between the positions
        (h, v), (sh, sv) = heights, stride
        apart = f.emit(r.reshape(g, f.sized((rows, outputs, h, 1, v, 1))))
        apart = f.emit(r.nn.pad(apart, [0, 0, 0, 0, 0, 0, 0, sh - 1, 0, 0, 0, sv - 1]))
        g = f.emit(r.reshape(apart, f.sized((rows, outputs, h * sh, v * sv))))
        heights = [h * sh, v * sv]
    each = _divided(outputs, groups)
    w = f.emit(r.reshape(w, f.sized((groups, each, channels, *kernel))))
    w = f.emit(r.flip(f.emit(r.flip(f.emit(r.permute_dims(w, [0, 2, 1, 3, 4])), 3)), 4))
    w = f.emit(r.reshape(w, f.sized((channels * groups, each, *kernel))))
    # place p of the padded input takes from g[p - d * q]: all d * (k - 1) further places on either side
    reach = [d * (k - 1) for d, k in zip(dilation, taps, strict=True)]
    wanted = attrs["input_size"]
    top, left = attrs["padding"][:2]
    ends = [top + wanted[0], left + wanted[1]]
    more = [max(0, end - have - far) for end, have, far in zip(ends, heights, reach, strict=True)]
    g = f.emit(r.nn.pad(g, [0, 0, 0, 0, reach[0], reach[0] + more[0], reach[1], reach[1] + more[1]]))
    full = f.emit(r.nn.conv2d(g, w, dilation=list(dilation), groups=groups))
    return _sliced(f, full, [(2, top, ends[0], 1), (3, left, ends[1], 1)])


def _conv2d_weight_grad(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    """A product for each tap of the kernel."""
    r, (x, g), attrs = f.r.op, xs, op.attrs
    (rows, channels, _, _), (_, outputs, height, width) = op.inputs[0].shape, op.inputs[1].shape
    groups = attrs["groups"]
    flat = size((rows, height, width))
    g = f.emit(r.permute_dims(g, [1, 0, 2, 3]))
    g = f.emit(r.reshape(g, f.sized((groups, _divided(outputs, groups), flat))))
    found = []
    for view in _windows(f, x, op.inputs[0].shape, attrs["kernel_size"], (height, width), attrs, 0.0):
        view = f.emit(r.permute_dims(view, [1, 0, 2, 3]))
        view = f.emit(r.reshape(view, f.sized((groups, _divided(channels, groups), flat))))
        product = f.emit(r.matmul(g, _turned(f, view, 3)))
        found.append(f.emit(r.reshape(product, f.sized((outputs, _divided(channels, groups), 1)))))
    joined = found[0] if len(found) == 1 else f.emit(r.concat(found, 2))
    return r.reshape(joined, f.sized(op.outputs[0].shape))


def _divided(dim: Dim, parts: int) -> int:
    return int(str(dim)) // parts


def _windows(
    f: Function, x: Any, shape: Shape, kernel: Sequence[int], positions: Sequence[Dim], attrs: Any, fill: float
) -> list[Any]:
    """For each place of the kernel what it sees of the padded ``x``: [N, C, h, w]."""
    top, left, bottom, right = attrs["padding"]
    if any(attrs["padding"]):
        x = f.emit(f.r.op.nn.pad(x, [0, 0, 0, 0, top, bottom, left, right], pad_value=fill))
    found = []
    for place in itertools.product(*map(range, kernel)):
        spans = []
        for axis, (tap, count) in enumerate(zip(place, positions, strict=True)):
            start, step = tap * attrs["dilation"][axis], attrs["stride"][axis]
            spans.append((axis + 2, start, start + (int(str(count)) - 1) * step + 1, step))
        found.append(f.emit(_sliced(f, x, spans)))
    return found


def _sliced(f: Function, x: Any, spans: Sequence[tuple[int, Any, Any, int]]) -> Any:
    """``x`` from start to stop in steps along some axes: (axis, start, stop, step)."""
    axes, starts, stops, steps = (list(part) for part in zip(*spans, strict=True))
    bounds = [[f.dim(n) for n in part] for part in (starts, stops, steps)]
    return f.r.op.strided_slice(x, axes, *bounds, assume_inbound=True)


# -- reductions -------------------------------------------------------------------------------------------------------


def _reduce(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    """By a reduction that starts from the right end of all numbers, and keeps NaN."""
    r, t, te, (x,) = f.r.op, f.r.t, f.r.te, xs
    axes, keep, dtype = op.attrs["axes"], op.attrs["keepdims"], _dtype(op)
    shape = op.inputs[0].shape
    if _is_empty(shape):
        return f.full(op.outputs[0].shape, 0, dtype)
    if not axes:
        return x
    inside = DType.INT64 if dtype is DType.BOOL else dtype
    if inside is not dtype:
        x = f.emit(r.astype(x, str(inside)))
    reducer = te.comm_reducer(
        lambda total, value: combine(t, op.name, total, value, inside),
        lambda kind: t.number(unit(op.name, inside), str(inside)),
    )

    def write(x: Any) -> Any:
        spans = {axis: te.reduce_axis((t.int(0), x.shape[axis]), name=f"k{axis}") for axis in axes}
        kept = [axis for axis in range(len(shape)) if axis not in spans]
        result = [t.int(1) if axis in spans else x.shape[axis] for axis in range(len(shape)) if keep or axis in kept]

        def element(*at: Any) -> Any:
            places = iter(at)
            outer = {axis: next(places) for axis in range(len(shape)) if keep or axis in kept}
            return reducer(
                x(*(spans[axis].var if axis in spans else outer[axis] for axis in range(len(shape)))),
                axis=list(spans.values()),
            )

        return te.compute(result, element, name="y")

    result = f.emit_te(write, x, name=op.name)
    if inside is dtype:
        return result
    return r.logical_not(f.emit(r.equal(result, f.number(0, inside))))


def _max_pool2d(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    positions = op.outputs[0].shape[2:]
    views = _windows(f, xs[0], op.inputs[0].shape, op.attrs["kernel"], positions, op.attrs, float("-inf"))
    larger = _extremum(True)
    return reduce(lambda one, other: f.emit(larger(f, op, (one, other))), views)


# -- layout -----------------------------------------------------------------------------------------------------------


def _reshape(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    return f.r.op.reshape(xs[0], f.sized(op.outputs[0].shape))


def _permute(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    return f.r.op.permute_dims(xs[0], list(op.attrs["axes"])) if op.inputs[0].rank else xs[0]


def _broadcast(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    return f.r.op.broadcast_to(xs[0], f.sized(op.outputs[0].shape))


def _slice(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    attrs = op.attrs
    whole = zip(op.inputs[0].shape, attrs["starts"], attrs["stops"], attrs["steps"], strict=True)
    spans = [(axis, a, b, step) for axis, (dim, a, b, step) in enumerate(whole) if (a, b, step) != (0, dim, 1)]
    return _sliced(f, xs[0], spans) if spans else xs[0]


def _concat(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    parts = [x for x, value in zip(xs, op.inputs, strict=True) if not _is_empty(value.shape)]
    return parts[0] if len(parts) == 1 else f.r.op.concat(parts, op.attrs["axis"])


def _pad(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    (x,), (value,), attrs, dtype = xs, op.inputs, op.attrs, _dtype(op)
    if _is_empty(value.shape):
        return f.full(op.outputs[0].shape, attrs["value"], dtype)
    sides = [side for pair in zip(attrs["low"], attrs["high"], strict=True) for side in pair]
    if not any(sides):
        return x
    if dtype.is_float:
        return f.r.op.nn.pad(x, sides, pad_value=float(attrs["value"]))
    for axis, (low, high) in enumerate(zip(attrs["low"], attrs["high"], strict=True)):
        edge = _current(value.shape, attrs, axis)
        ends = [f.full((*edge[:axis], n, *edge[axis + 1 :]), attrs["value"], dtype) if n else None for n in (low, high)]
        x = f.emit(f.r.op.concat([part for part in (ends[0], x, ends[1]) if part is not None], axis))
    return x


def _current(shape: Shape, attrs: Any, axis: int) -> Shape:
    """``shape`` with the axes before ``axis`` padded."""
    return tuple(
        dim + attrs["low"][at] + attrs["high"][at] if at < axis and attrs["low"][at] + attrs["high"][at] else dim
        for at, dim in enumerate(shape)
    )


# -- indexing by data -------------------------------------------------------------------------------------------------


def _gather_rows(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    return f.r.op.take(*xs, axis=op.attrs["axis"], mode="clip")  # "fast" warns of what cannot happen here


def _scatter_rows(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    """Row by row, with the rows' axis first."""
    r, (base, index, rows), axis = f.r.op, xs, op.attrs["axis"]
    if _is_empty(op.inputs[2].shape):
        return base
    rank = op.inputs[0].rank
    order = [axis, *(other for other in range(rank) if other != axis)]
    if axis:
        base, rows = (f.emit(r.permute_dims(x, order)) for x in (base, rows))
    index = f.emit(r.reshape(index, f.sized((*op.inputs[1].shape, 1))))
    how = "add" if op.name == "scatter_add_rows" else "update"
    result = f.emit(r.scatter_nd(base, index, rows, reduction=how))
    return f.emit(r.permute_dims(result, [order.index(at) for at in range(rank)])) if axis else result


def _row_numbers(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    return f.r.op.arange(f.r.t.int(0), f.dim(op.outputs[0].shape[0]), f.r.t.int(1), "int64")


def _running_count(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    """How many are true up to each: the sum over the vector of what lies no further."""
    t, te, (mask,) = f.r.t, f.r.te, xs

    def write(mask: Any) -> Any:
        k = te.reduce_axis((t.int(0), mask.shape[0]), name="k")
        one = t.int(1)
        return te.compute(
            mask.shape, lambda i: te.sum(t.select(t.t.And(k.var <= i, mask(k.var)), one, t.int(0)), axis=k), name="y"
        )

    return f.emit_te(write, mask, name=op.name)


def _first_reaching(f: Function, op: Op, xs: Sequence[Any]) -> Any:
    """How many elements are smaller, at most the last place."""
    t, te, (ascending, wanted) = f.r.t, f.r.te, xs

    def write(ascending: Any, wanted: Any) -> Any:
        k = te.reduce_axis((t.int(0), ascending.shape[0]), name="k")
        smaller = te.compute(
            wanted.shape,
            lambda i: te.sum(t.select(ascending(k.var) < wanted(i), t.int(1), t.int(0)), axis=k),
            name="smaller",
        )
        return te.compute(wanted.shape, lambda i: t.t.min(smaller(i), ascending.shape[0] - 1), name="y")

    return f.emit_te(write, ascending, wanted, name=op.name)


EMITTERS: Mapping[str, Emitter] = {
    "add": _relax("add"),
    "sub": _relax("subtract"),
    "mul": _relax("multiply"),
    "div": _relax("divide"),
    "maximum": _extremum(True),
    "minimum": _extremum(False),
    "neg": _neg,
    "abs": _relax("abs"),
    "sign": _sign,
    "floor": _relax("floor"),
    "exp": _scalar,
    "log": _scalar,
    "log1p": _scalar,
    "sqrt": _relax("sqrt"),
    "tanh": _scalar,
    "sin": _scalar,
    "cos": _scalar,
    "sigmoid": _scalar,
    "erf": _scalar,
    "pow": _scalar,
    "compare": _compare,
    "where": _relax("where"),
    "cast": _cast,
    "matmul": _matmul,
    "conv2d": _conv2d,
    "conv2d_input_grad": _conv2d_input_grad,
    "conv2d_weight_grad": _conv2d_weight_grad,
    "reduce_sum": _reduce,
    "reduce_max": _reduce,
    "reduce_min": _reduce,
    "max_pool2d": _max_pool2d,
    "reshape": _reshape,
    "permute": _permute,
    "broadcast": _broadcast,
    "slice": _slice,
    "concat": _concat,
    "pad": _pad,
    "gather_rows": _gather_rows,
    "scatter_rows": _scatter_rows,
    "scatter_add_rows": _scatter_rows,
    "row_numbers": _row_numbers,
    "running_count": _running_count,
    "first_reaching": _first_reaching,
}
