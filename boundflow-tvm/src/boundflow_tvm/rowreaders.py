"""One function per operation for the reading half of :mod:`.rowfusion`: ``reader(reading, op)`` notes what is known of
the results, and tells whether it has understood the operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from boundflow_core.ir.program import Op, Value
from boundflow_core.ir.types import Dim, Shape, size
from boundflow_tvm.rowstates import Chain, MapState, Operand, Partial, Sum, map_shape
from boundflow_tvm.templates.rowsteps import (
    Add,
    Adjoint,
    ChannelBias,
    Concretize,
    Enter,
    Linear,
    Pad,
    Relu,
    VectorBias,
)

if TYPE_CHECKING:
    from boundflow_tvm.rowreading import Reading

__all__ = ["READERS"]


def _behind(shape: Shape, rows: Dim) -> Shape | None:
    """The axes behind those of the rows."""
    for k in range(1, len(shape) + 1):
        if size(shape[:k]) == rows and (k == len(shape) or shape[k] != 1 or len(shape) - k <= 3):
            return shape[k:]
    return None


def _relu(reading: Reading, op: Op) -> bool:
    front = op.attrs["front"]
    # One axis in front of windows is that of copies, one more that of regions. Lines of full maps have no axis of rows.
    windows = front == 3 or (front == 2 and op.inputs[-1].shape[1] != 1)
    state = reading.rows(op.inputs[0], front, "hwc" if windows else "")
    if state is None:
        return False
    operands = [reading.map_operand(value, state, front) for value in op.inputs[1:]]
    found = [state.chain.operand(each, state.number) for each in operands if each is not None]
    if len(found) < len(operands):
        return False
    if op.name == "relu_backsubstitute":
        step = Relu(state.number, found[0], found[1], found[2])
    else:
        step = Relu(state.number, found[0], found[2], found[3], found[1])
    number = state.chain.made(step, state.chain.shapes[state.number])
    reading.states[op.outputs[0]] = MapState(state.chain, number, state.axes)
    reading.states[op.outputs[1]] = Sum(((state.chain, op.outputs[1]),))
    return True


def _concretize(reading: Reading, op: Op) -> bool:
    front = op.attrs["front"]
    state = reading.map_of(op.inputs[0])
    if state is None:
        return False
    operands = [reading.map_operand(value, state, front) for value in op.inputs[1:]]
    found = [state.chain.operand(each, state.number) for each in operands if each is not None]
    if len(found) < 2:
        return False
    state.chain.steps.append(Concretize(state.number, found[0], found[1]))
    reading.states[op.outputs[0]] = Sum(((state.chain, op.outputs[0]),))
    return True


def _adjoint(reading: Reading, op: Op) -> bool:
    attrs, weight = op.attrs, op.inputs[1]
    if attrs["groups"] != 1 or tuple(attrs["dilation"]) != (1, 1) or not reading.known(weight):
        return False
    kernel = map_shape(weight.shape[1:], "chw")
    state = reading.rows(op.inputs[0], 1, "chw") if op.inputs[0].rank == 4 and kernel else None
    if state is None or kernel is None:
        return False
    chain = state.chain
    height, width = attrs["input_size"]
    onto = (kernel[0], height, width)
    number = chain.operand(Operand(weight, "constant"), -1)
    padding = (attrs["padding"][0], attrs["padding"][1])
    step = Adjoint(state.number, number, kernel[1:], tuple(attrs["stride"]), padding, onto)
    reading.states[op.outputs[0]] = MapState(chain, chain.made(step, onto), "chw")
    return True


def _matmul(reading: Reading, op: Op) -> bool:
    state, weight = reading.states.get(op.inputs[0]), op.inputs[1]
    if state is None or weight.rank != 2 or not reading.known(weight) or op.attrs["transpose_a"]:
        return False
    if isinstance(state, Partial) and state.kind == "flat windows":
        channels, height, width = state.chain.shapes[state.number]
        bias = _repeated(reading, weight, (height, width, channels))
        if bias is None or op.attrs["transpose_b"]:
            return False
        number = state.chain.operand(Operand(bias, "constant"), -1)
        state.chain.steps.append(ChannelBias(state.number, number))
        reading.states[op.outputs[0]] = Sum(((state.chain, op.outputs[0]),))
        return True
    if isinstance(state, Partial):
        ones = reading.program.constants.get(weight)
        if state.kind != "columns" or ones is None or ones.is_live or not np.all(ones.numpy() == 1.0):
            return False
        reading.states[op.outputs[0]] = replace(state, kind="column sums")
        return True
    if not isinstance(state, MapState) or state.axes != "n" or op.attrs["transpose_b"] or op.inputs[0].rank != 2:
        return False
    if _is_vector(reading, weight):
        number = state.chain.operand(Operand(weight, "constant"), state.number)
        state.chain.steps.append(VectorBias(state.number, number))
        reading.states[op.outputs[0]] = Sum(((state.chain, op.outputs[0]),))
        return True
    columns = op.outputs[0].shape[1]
    if not isinstance(columns, int):
        return False
    number = state.chain.operand(Operand(weight, "constant"), -1)
    onto = (columns, 1, 1)
    made = state.chain.made(Linear(state.number, number, onto), onto)
    reading.states[op.outputs[0]] = MapState(state.chain, made, "n")
    return True


def _is_vector(reading: Reading, column: Value) -> bool:
    """Whether ``column`` [n, 1] is a vector made a matrix: a product with it is a sum per row, not a map."""
    op = reading.makers.get(column)
    return column.shape[1] == 1 and op is not None and op.name == "reshape" and op.inputs[0].rank == 1


def _repeated(reading: Reading, column: Value, window: Shape) -> Value | None:
    """The vector [C] that ``column`` [h * w * C, 1] is, once for each place of a ``window`` [h, w, C]."""
    op = reading.makers.get(column)
    source = reading.makers.get(op.inputs[0]) if op is not None and op.name == "reshape" else None
    if source is None or source.name != "broadcast" or source.outputs[0].shape != window:
        return None
    return source.inputs[0] if source.inputs[0].shape == window[2:] else None


def _reshape(reading: Reading, op: Op) -> bool:
    state, out = reading.states.get(op.inputs[0]), op.outputs[0]
    if isinstance(state, Sum):
        reading.states[out] = state
        return True
    if state is None:
        return False
    chain, rows = state.chain, size(state.chain.out)
    channels, height, width = chain.shapes[state.number]
    if isinstance(state, Partial):
        if state.kind in ("column sums", "channels") and _behind(out.shape, rows) == (channels,):
            reading.states[out] = replace(state, kind="channels")
            return True
        return False
    behind = _behind(out.shape, rows)
    if behind is None:
        if state.axes == "chw" and out.shape == (rows * channels, height * width):
            reading.states[out] = Partial(chain, state.number, "columns")
            return True
        return False
    if state.axes == "hwc":
        if out.shape == (rows, height * width * channels):
            reading.states[out] = Partial(chain, state.number, "flat windows")
            return True
        if behind != (height, width, channels):
            return False
        reading.states[out] = replace(state)
        return True
    if behind == (channels, height, width) or (
        len(behind) == 3 and (height, width) == (1, 1) and _remap(chain, state.number, behind)
    ):
        reading.states[out] = replace(state, axes="chw")
    elif size(behind) == channels * height * width:
        reading.states[out] = replace(state, axes="n")
    else:
        return False
    return True


def _remap(chain: Chain, number: int, behind: Shape) -> bool:
    """Gives a map that was taken for a vector the shape that it turns out to have."""
    shape = map_shape(behind, "chw")
    place = [n for n, step in enumerate(chain.steps) if not isinstance(step, (ChannelBias, VectorBias, Concretize))]
    step = chain.steps[place[number - 1]] if number else None
    if shape is None or not isinstance(step, Linear):
        return False
    chain.steps[place[number - 1]] = replace(step, onto=shape)
    chain.shapes[number] = shape
    return True


def _permute(reading: Reading, op: Op) -> bool:
    state, axes = reading.map_of(op.inputs[0]), tuple(op.attrs["axes"])
    if state is None or op.inputs[0].rank != 4:
        return False
    turns = {("hwc", (0, 3, 1, 2)): "chw", ("chw", (0, 2, 3, 1)): "hwc"}
    if (state.axes, axes) not in turns:
        return False
    reading.states[op.outputs[0]] = replace(state, axes=turns[state.axes, axes])
    return True


def _add(reading: Reading, op: Op) -> bool:
    (one, other), out = (reading.states.get(value) for value in op.inputs), op.outputs[0]
    if any(value.shape != out.shape for value in op.inputs):
        return False
    if isinstance(one, MapState) and isinstance(other, MapState):
        chain = one.chain
        same = other.chain is chain and one.axes == other.axes
        if not same or chain.shapes[one.number] != chain.shapes[other.number]:
            return False
        made = chain.made(Add(one.number, other.number), chain.shapes[one.number])
        reading.states[out] = MapState(chain, made, one.axes)
        return True
    for value, state, more in zip(op.inputs, (one, other), (other, one), strict=True):
        if state is None and isinstance(more, MapState) and more.number:
            return _enter(reading, op, value, more)
    if not all(state is None or isinstance(state, Sum) for state in (one, other)) or (one is None and other is None):
        return False
    parts = [s if isinstance(s, Sum) else Sum((), (v,)) for s, v in zip((one, other), op.inputs, strict=True)]
    reading.states[out] = Sum(parts[0].terms + parts[1].terms, parts[0].rest + parts[1].rest)
    return True


def _enter(reading: Reading, op: Op, value: Value, state: MapState) -> bool:
    """Adds rows that come from somewhere else."""
    chain, out = state.chain, op.outputs[0]
    shape = chain.shapes[state.number]
    if state.axes == ("chw" if chain.channels_last else "hwc"):
        return False
    number = chain.operand(Operand(value, "more"), state.number)
    entered = chain.made(Enter(number, shape), shape)
    reading.states[out] = MapState(chain, chain.made(Add(state.number, entered), shape), state.axes)
    return True


def _mul(reading: Reading, op: Op) -> bool:
    for value, factor in (op.inputs, op.inputs[::-1]):
        state = reading.states.get(value)
        if state is None or isinstance(state, Sum) or not reading.known(factor) or factor.rank != 1:
            continue
        if value.shape[-1] != factor.shape[0] or op.outputs[0].shape != value.shape:
            continue
        if isinstance(state, Partial) and state.kind == "channels":
            reading.states[op.outputs[0]] = replace(state, kind="weighted channels", factor=factor)
            return True
        elements = int(np.prod(state.chain.shapes[state.number]))
        if isinstance(state, MapState) and state.axes == "n" and elements == factor.shape[0]:
            reading.states[op.outputs[0]] = Partial(state.chain, state.number, "weighted", factor)
            return True
    return False


def _reduce_sum(reading: Reading, op: Op) -> bool:
    state, out = reading.states.get(op.inputs[0]), op.outputs[0]
    axes, rank = tuple(op.attrs["axes"]), op.inputs[0].rank
    if state is None or isinstance(state, Sum) or op.attrs["keepdims"]:
        return False
    if isinstance(state, MapState):
        if state.axes != "hwc" or axes != (rank - 2,):
            return False
        reading.states[out] = Partial(state.chain, state.number, "columns of channels")
    elif state.kind == "columns of channels" and axes == (rank - 2,):
        reading.states[out] = replace(state, kind="channels")
    elif state.factor is not None and axes == (rank - 1,):
        number = state.chain.operand(
            Operand(state.factor, "constant"), -1 if state.kind != "weighted" else state.number
        )
        kind = VectorBias if state.kind == "weighted" else ChannelBias
        state.chain.steps.append(kind(state.number, number))
        reading.states[out] = Sum(((state.chain, out),))
    else:
        return False
    return True


def _pad(reading: Reading, op: Op) -> bool:
    state, rank = reading.map_of(op.inputs[0]), op.inputs[0].rank
    low, high = op.attrs["low"], op.attrs["high"]
    if state is None or state.axes != "hwc" or op.attrs["value"] != 0.0 or min(*low, *high) < 0:
        return False
    if any(low[: rank - 3]) or any(high[: rank - 3]) or low[-1] or high[-1]:
        return False
    channels, height, width = state.chain.shapes[state.number]
    onto = (channels, height + low[-3] + high[-3], width + low[-2] + high[-2])
    made = state.chain.made(Pad(state.number, (low[-3], low[-2]), onto), onto)
    reading.states[op.outputs[0]] = MapState(state.chain, made, "hwc")
    return True


READERS: Mapping[str, Callable[[Reading, Op], bool]] = {
    "relu_backsubstitute": _relu,
    "backsubstitute": _relu,
    "concretize_box": _concretize,
    "conv2d_input_grad": _adjoint,
    "matmul": _matmul,
    "reshape": _reshape,
    "permute": _permute,
    "add": _add,
    "mul": _mul,
    "reduce_sum": _reduce_sum,
    "pad": _pad,
}
