"""A pass for executors whose adjoint of a convolution with a stride is a convolution of stride 1 for all remainders.

With stride s, such a convolution gives elements ``s j + a`` as channels, by remainder ``a``; bringing them to their
places takes as long as computing them. Where all that follows are elementwise operations and sums over whole images,
as in the least value of rows over a box, the elements stay where they are, and what they are multiplied with is
brought into their order instead: one image per region, and not one per row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boundflow_core.executors.convolution import Convolution
from boundflow_core.ir.constants import frozen
from boundflow_core.ir.program import BoundProgram, Op, Primitive, Value
from boundflow_core.ir.types import Attrs, DType, Shape, size
from boundflow_core.planner.rewrite import Rewriter, float_type, rewrite

__all__ = ["sum_by_phases"]


@dataclass(frozen=True)
class _Image:
    """A value that lies by remainders: the convolution, and how many axes the image [C, H, W] has in the value."""

    conv: Convolution
    axes: int


def sum_by_phases(program: BoundProgram) -> BoundProgram:
    """``program`` with adjoints that only sums read computed as convolutions of stride 1; float32 alone."""
    found = _images(program) if float_type(program) is DType.FLOAT32 else {}
    if not found:
        return program
    anew: dict[Value, Value] = {}  # by values of ``program``, [*front, all elements of the image]

    def rule(w: Rewriter, op: Op, inputs: Sequence[Value]) -> Sequence[Value] | None:
        out = op.outputs[0]
        image = found.get(out) or next((found[value] for value in op.inputs if value in found), None)
        if image is None:
            return None
        if out not in found:
            return (_summed(w, op, inputs, anew, image),)
        anew[out] = _carried(w, op, inputs, anew, image)
        return (anew[out],)

    return rewrite(program, rule)


# -- which ------------------------------------------------------------------------------------------------------------


def _images(program: BoundProgram) -> dict[Value, _Image]:
    """Values that may lie by remainders, from adjoints on to what is summed up."""
    readers: dict[Value, list[Op | None]] = {}
    for op in program.ops:
        for value in dict.fromkeys(op.inputs):
            readers.setdefault(value, []).append(op)
    for value in program.outputs.values():
        readers.setdefault(value, []).append(None)
    found: dict[Value, _Image] = {}
    for op in program.ops:
        if op.name == "conv2d_input_grad" and op.outputs[0] not in found and _splits(program, op):
            start = _Image(Convolution.of(op, dict.fromkeys(program.symbols(), 1)), 3)
            more = _closure(op.outputs[0], start, readers) or {}
            # Two adjoints may lie in different orders.
            if found.keys().isdisjoint(more) and (_only_elements(start.conv) or _cleared(program, op, more)):
                found.update(more)
    return found


def _splits(program: BoundProgram, op: Op) -> bool:
    """Whether the adjoint is one convolution of stride 1 that gives every element, and nothing else."""
    weight = program.constants.get(op.inputs[1])
    if weight is None or weight.is_live or op.attrs["groups"] != 1 or tuple(op.attrs["dilation"]) != (1, 1):
        return False
    conv = Convolution.of(op, dict.fromkeys(program.symbols(), 1))
    whole = all(
        len(taps.remainders) == step and taps.count * step == extent
        for taps, step, extent in zip(conv.taps, conv.stride, conv.size, strict=True)
    )
    return whole and conv.stride != (1, 1) and min(conv.subpixel.padding) >= 0


def _closure(start: Value, image: _Image, readers: Mapping[Value, Sequence[Op | None]]) -> dict[Value, _Image] | None:
    """What may lie as ``start`` does, up to sums; None where somebody reads it otherwise."""
    found, todo = {start: image}, [start]
    while todo:
        value = todo.pop()
        for op in readers.get(value, (None,)):
            if op is None:
                return None
            if _is_sum(op, value, found[value]):
                continue
            axes = _passes(op, value, found[value])
            if axes is None:
                return None
            if op.outputs[0] not in found:
                found[op.outputs[0]] = _Image(image.conv, axes)
                todo.append(op.outputs[0])
    return found


def _only_elements(conv: Convolution) -> bool:
    """Whether all results of the convolution of stride 1 are elements of the adjoint."""
    return all(taps.results == taps.count for taps in conv.taps)


def _cleared(program: BoundProgram, start: Op, image: Mapping[Value, _Image]) -> bool:
    """Whether results that are no elements never get into a sum, since they are multiplied by zero before.

    What values are multiplied with is zero there, once it is in this order. Infinite results make a sum undefined then,
    and bounds that are undefined count as infinite.
    """
    clear: dict[Value, bool] = {start.outputs[0]: False}
    for op in program.ops:
        read = [value for value in op.inputs if value in clear]
        if not read:
            continue
        others = [value for value in op.inputs if value not in clear and value.shape != ()]
        if op.outputs[0] in image:
            if op.name not in _FINITE:
                return False
            keeps = len(read) == len(op.inputs) and all(clear[value] for value in read)
            clear[op.outputs[0]] = keeps or (op.name == "mul" and bool(others))
        elif op.name == "reduce_sum" and not clear[read[0]]:
            return False
    return True


# Operations that make finite numbers of finite ones, and zeros of zeros.
_FINITE = frozenset({"abs", "neg", "add", "sub", "mul", "maximum", "minimum", "reshape"})


def _shape(image: _Image) -> Shape:
    conv = image.conv
    return (conv.channels, *conv.size) if image.axes == 3 else (conv.channels * conv.size[0] * conv.size[1],)


def _is_sum(op: Op, value: Value, image: _Image) -> bool:
    if op.name == "reduce_sum":
        return set(op.attrs["axes"]) == set(range(value.rank - image.axes, value.rank)) and not op.attrs["keepdims"]
    vector = image.axes == 1 and op.name == "matmul" and op.inputs[0] is value and op.inputs[1] is not value
    return vector and op.inputs[1].shape[-2:] == (value.shape[-1], 1) and not any(op.attrs.values())


def _passes(op: Op, value: Value, image: _Image) -> int | None:
    """The number of axes of the image in the result, where ``op`` goes element by element."""
    if op.name == "reshape":
        for axes in (3, 1):
            if op.outputs[0].shape[-axes:] == _shape(_Image(image.conv, axes)):
                return axes
        return None
    if not isinstance(op.spec, Primitive) or op.spec.kind != "elementwise":
        return None
    if value.type.dtype is not op.outputs[0].type.dtype or value.shape != op.outputs[0].shape:
        return None
    fits = all(other.shape == () or other.shape[-image.axes :] == _shape(image) for other in op.inputs)
    return image.axes if fits else None


# -- written anew -----------------------------------------------------------------------------------------------------


def _front(value: Value, image: _Image) -> Shape:
    return value.shape[: value.rank - image.axes]


def _carried(w: Rewriter, op: Op, inputs: Sequence[Value], anew: Mapping[Value, Value], image: _Image) -> Value:
    out = op.outputs[0]
    if op.name == "conv2d_input_grad":
        inner = image.conv.subpixel
        attrs = {"stride": (1, 1), "dilation": (1, 1), "padding": inner.padding, "groups": 1}
        through = w.emit_named("conv2d", inputs[0], _weight(w, inputs[1], image.conv), attrs=Attrs(attrs))
        return w.reshape(through, (out.shape[0], _count(image)))
    if op.name == "reshape":
        return w.reshape(anew[op.inputs[0]], (*_front(out, image), _count(image)))
    operands = [_operand(w, old, new, anew, image) for old, new in zip(op.inputs, inputs, strict=True)]
    return w.write(op.spec, operands, op.attrs)[0]


def _operand(w: Rewriter, old: Value, new: Value, anew: Mapping[Value, Value], image: _Image) -> Value:
    if old in anew:
        return anew[old]
    return new if old.shape == () else _in_order(w, new, _front(old, image), image.conv)


def _summed(w: Rewriter, op: Op, inputs: Sequence[Value], anew: Mapping[Value, Value], image: _Image) -> Value:
    if op.name == "reduce_sum":
        value = anew[op.inputs[0]]
        return w.reduce_sum(value, (value.rank - 1,))
    front = op.inputs[1].shape[:-2]
    vector = w.reshape(_in_order(w, inputs[1], front, image.conv), (*front, _count(image), 1))
    return w.matmul(anew[op.inputs[0]], vector)


def _count(image: _Image) -> int:
    inner = image.conv.subpixel
    return inner.outputs * inner.positions[0] * inner.positions[1]


def _in_order(w: Rewriter, value: Value, front: Shape, conv: Convolution) -> Value:
    """Images ``value`` as [*front, elements by remainders]; those that were repeated, before they were."""
    op = w.producer(value)
    if op is not None and op.name == "gather_rows" and op.attrs["axis"] == 0 and len(front) == 1:
        source = op.inputs[0]
        return w.gather_rows(_in_order(w, source, source.shape[:1], conv), op.inputs[1])
    images, inner = size(front), conv.subpixel
    (down, across), (rows, columns), (height, width) = conv.stride, conv.taps, inner.positions
    count, length = conv.channels * conv.size[0] * conv.size[1], inner.outputs * height * width
    if length == count:
        apart = w.reshape(value, (images, conv.channels, height, down, width, across))
        return w.reshape(w.permute(apart, (0, 3, 5, 1, 2, 4)), (*front, count))
    numbers = np.arange(count).reshape(conv.channels, conv.size[0], conv.size[1])
    places = np.full((down, across, conv.channels, height, width), count)  # a zero, where results are no elements
    for row, y in enumerate(rows.starts):
        for column, x in enumerate(columns.starts):
            target = places[row, column, :, y : y + rows.count, x : x + columns.count]
            target[...] = numbers[:, row::down, column::across]
    flat = w.pad(w.reshape(value, (images, count)), (0, 0), (0, 1))
    found = w.gather_rows(flat, w.constant(frozen(places.reshape(-1).astype(np.int64))), axis=1)
    return w.reshape(found, (*front, length))


def _weight(w: Rewriter, weight: Value, conv: Convolution) -> Value:
    """The weights [remainders * C, O, taps, taps] of the convolution of stride 1."""
    inner, count = conv.subpixel, conv.outputs * conv.channels * conv.kernel[0] * conv.kernel[1]
    flat = w.pad(w.reshape(weight, (count,)), (0,), (1,))
    places = w.constant(frozen(conv.weight_places))
    return w.reshape(w.gather_rows(flat, places), (inner.outputs, inner.channels, *inner.kernel))
