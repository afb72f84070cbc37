"""Networks of the operators that move elements about, of shape arithmetic, and of resampling."""

from __future__ import annotations

import itertools

import numpy as np
from onnx import TensorProto, helper

from .building import OPSETS, Network, node, numbers, several, single, whole

_IMAGE = (1, 2, 3, 4)


def _shapes() -> list[Network]:
    nets: list[Network] = []
    for axis in (0, 1, 2, 3, 4):
        nets += single("Flatten", _IMAGE, axis=axis, opsets=(8, 9, 13, 21))
    nets += single("Flatten", _IMAGE, axis=-2, since=11, opsets=(11, 13, 21)) + single("Flatten", (5,), axis=0)
    for shape in ((1, -1), (0, -1), (0, 6, 4), (-1, 24), (24,), (0, 0, 12), (1, 2, 3, 4)):
        nets += single("Reshape", _IMAGE, whole(*shape), opsets=(8, 13, 14, 19, 21), label=str(shape))
    nets += single("Reshape", _IMAGE, whole(1, 4, 6), since=14, opsets=(14, 21), allowzero=1)
    for axes in ((0,), (1, 3), (-1,), None):
        shape, first = (1, 1, 3, 1), 11 if axes and min(axes) < 0 else 8
        given = {} if axes is None else {"axes": list(axes)}
        nets += single("Squeeze", shape, since=first, until=12, opsets=(8, 11, 12), **given)
        nets += single("Squeeze", shape, *([whole(*axes)] if axes else []), since=13, label=str(axes))
    for axes in ((0,), (1, 3), (-1,), (2,)):
        first = 11 if min(axes) < 0 else 8
        nets += single("Unsqueeze", (1, 3), since=first, until=12, opsets=(8, 11, 12), axes=list(axes))
        nets += single("Unsqueeze", (1, 3), whole(*axes), since=13, opsets=(13, 21), label=str(axes))
    for order in ((0, 2, 1, 3), (0, 3, 2, 1), (1, 0, 2, 3), (3, 2, 1, 0), None):
        nets += single("Transpose", _IMAGE, opsets=(8, 13, 21), **({} if order is None else {"perm": list(order)}))
    for shape in ((1, 2, 3, 4), (2, 2, 3, 4), (3, 4), (5, 1, 1, 3, 1)):
        nets += single("Expand", (1, 2, 1, 4) if shape[0] != 5 else (1, 2, 3, 4), whole(*shape), label=str(shape))
    for repeats in ((1, 1, 1, 1), (1, 2, 1, 3), (2, 1, 1, 1)):
        nets += single("Tile", _IMAGE, whole(*repeats), opsets=(8, 13, 21), label=str(repeats))
    nets += single("DepthToSpace", (1, 8, 2, 3), blocksize=2, opsets=(8, 11, 13))
    nets += single("DepthToSpace", (1, 8, 2, 3), blocksize=2, mode="CRD", since=11, opsets=(11, 13))
    return nets


def _pieces() -> list[Network]:
    nets: list[Network] = []
    for axis, first in ((1, 8), (2, 8), (-1, 11)):
        other = numbers(*[2 if place == axis % 4 else dim for place, dim in enumerate(_IMAGE)])
        nets += single("Concat", _IMAGE, other, axis=axis, since=first, opsets=(8, 11, 13, 21))
        nets += single("Concat", _IMAGE, other, axis=axis, since=first, opsets=(13,), before=1, label="before")
        both = [node("Cos", ["x"], ["a"]), node("Concat", ["a", "x", "x"], axis=axis)]
        nets += several(f"Concat-both{axis}", _IMAGE, both, opsets=(11, 13))
    nets += several("Concat-batch", (1, 3), [node("Cos", ["x"], ["a"]), node("Concat", ["a", "x"], axis=0)])
    for axis, sizes in ((1, (2, 3, 1)), (2, (1, 3)), (-1, (4,))):
        parts = [f"p{number}" for number in range(len(sizes))]
        end = node("Concat", parts[::-1], axis=axis)
        old = [node("Split", ["x"], parts, axis=axis, split=list(sizes)), end]
        nets += several(f"Split{axis}", (1, 6, 4, 4), old, opsets=(8, 11, 12) if axis >= 0 else (11, 12))
        new = [node("Split", ["x", "s"], parts, axis=axis), end]
        nets += several(f"Split{axis}", (1, 6, 4, 4), new, {"s": whole(*sizes)}, opsets=(13, 18, 21))
    equal = [node("Split", ["x"], ["a", "b"], axis=1), node("Sub", ["a", "b"])]
    nets += several("Split-equal", (1, 6, 2), equal, opsets=(8, 11, 13))
    uneven = [node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=3), node("Concat", ["c", "a", "b"], axis=1)]
    nets += several("Split-uneven", (1, 5, 2), uneven, opsets=(18, 21))
    largest = np.iinfo(np.int64).max
    nets += single("Slice", _IMAGE, starts=[0, 1], ends=[1, -1], axes=[1, 3], opsets=(8, 9))
    nets += single("Slice", _IMAGE, starts=[0, 1], ends=[1, 9], opsets=(8, 9))
    for starts, ends, axes, steps in (
        ((0, 1), (1, -1), (1, 3), None), ((0, 1), (1, largest), None, None), ((1,), (4,), (3,), (2,)),
        ((-1,), (-largest,), (-1,), (-1,)), ((3, 2), (0, -9), (3, 2), (-2, -1)), ((-3,), (largest,), (3,), (1,)),
    ):  # fmt: skip
        chosen = [None if axes is None else whole(*axes)] + ([] if steps is None else [whole(*steps)])
        nets += single(
            "Slice", _IMAGE, whole(*starts), whole(*ends), *chosen, since=10, opsets=(10, 11, 13, 21),
            label=f"{starts}{ends}{axes}{steps}",
        )  # fmt: skip
    for index, axis in itertools.product((0, -1, [0], [1, 0], [0, 1], [[1, 0, 1], [0, 0, -1]]), (1, 2, -1)):
        first = 11 if axis < 0 or np.min(index) < 0 else 8
        nets += single(
            "Gather",
            _IMAGE,
            np.array(index, np.int64),
            axis=axis,
            since=first,
            opsets=(8, 11, 13, 21),
            label=str(index),
        )
    nets += single("Gather", _IMAGE, np.array([0, 0], np.int32), axis=0, opsets=(13,), label="batch")
    return nets


def _pads() -> list[Network]:
    nets: list[Network] = []
    amounts = (0, 0, 1, 2, 0, 0, 0, 1)
    for mode in ("constant", "reflect", "edge"):
        nets += single("Pad", _IMAGE, mode=mode, pads=list(amounts), until=10, opsets=(8, 10))
        nets += single("Pad", _IMAGE, whole(*amounts), mode=mode, since=11)
    nets += single("Pad", _IMAGE, pads=[0, 1, 0, 0, 0, 0, 0, 2], value=0.5, until=10, opsets=(8, 10))
    nets += single("Pad", _IMAGE, whole(*amounts), 1.5, since=11, label="value")
    nets += single("Pad", _IMAGE, whole(0, 0, -1, 2, 0, 0, 0, -1), 1.5, since=11, opsets=(11, 13, 21), label="cut")
    nets += single("Pad", _IMAGE, whole(1, 2), None, whole(-1), since=18, label="axes")
    nets += single("Pad", _IMAGE, whole(1, 2), None, whole(3), since=19, mode="wrap")
    return nets


def _shape_arithmetic() -> list[Network]:
    """What exporters write to compute a shape, a mask or an index, all of which folds to constants."""
    value = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.5])
    flatten = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "i"], ["batch"], axis=0),
        node("Unsqueeze", ["batch"], ["b"], axes=[0]),
        node("Constant", [], ["rest"], value=helper.make_tensor("r", TensorProto.INT64, [1], [-1])),
        node("Concat", ["b", "rest"], ["t"], axis=0),
        node("Reshape", ["x", "t"]),
    ]
    nets = several("Shape-Gather-Concat", _IMAGE, flatten, {"i": np.array(0, np.int64)}, opsets=(8, 9, 11, 12))
    fill = [
        node("Shape", ["x"], ["s"]),
        node("ConstantOfShape", ["s"], ["ones"], value=value),
        node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
        node("ReduceSum", ["f"], ["total"], keepdims=0),
        node("Mul", ["ones", "total"], ["scaled"]),
        node("Add", ["x", "scaled"]),
    ]
    nets += several("ConstantOfShape", _IMAGE, fill, opsets=(9, 11, 13, 20, 21))
    mask = [
        node("Range", ["zero", "four", "one"], ["r"]),
        node("Equal", ["r", "two"], ["e"]),
        node("Where", ["e", "x", "fill"]),
    ]
    scalars = {name: np.array(n, np.int64) for n, name in enumerate(("zero", "one", "two", "three", "four"))}
    nets += several("Range-Equal", _IMAGE, mask, {**scalars, "fill": numbers(1)}, opsets=(11, 13, 19, 21))
    one_hot = [
        node("ArgMax", ["w"], ["i"], axis=1, keepdims=0),
        node("OneHot", ["i", "four", "values"], ["h"], axis=-1),
        node("MatMul", ["x", "h"]),
    ]
    onehot_data = {"w": numbers(3, 5), "four": whole(5), "values": np.array([0.0, 1.0], np.float32)}
    nets += several("ArgMax-OneHot", (1, 3), one_hot, onehot_data, opsets=(9, 11, 12, 13, 21))
    scatter = [node("ScatterND", ["w", "i", "u"], ["t"]), node("Mul", ["x", "t"])]
    data = {"w": numbers(4), "i": np.array([[1], [3]], np.int64), "u": numbers(2, seed=5)}
    nets += several("ScatterND", (1, 4), scatter, data, opsets=(11, 13, 16, 18))
    part = [node("Shape", ["x"], ["s"], start=1, end=-1), node("Expand", ["w", "s"], ["e"])]
    part += [node("ReduceMean", ["e"], ["m"], keepdims=0), node("Mul", ["x", "m"])]
    nets += several("Shape-part", _IMAGE, part, {"w": numbers(1)}, opsets=(15, 21))
    size = [node("Size", ["x"], ["n"]), node("Cast", ["n"], ["f"], to=TensorProto.FLOAT), node("Div", ["x", "f"])]
    nets += several("Size", _IMAGE, size, opsets=(8, 13, 21))
    weights = [node("Transpose", ["w"], ["t"]), node("Dropout", ["t"], ["d"]), node("MatMul", ["x", "d"])]
    return nets + several("Transpose-weight", (1, 3), weights, {"w": numbers(2, 3)}, opsets=OPSETS)


def _resampling() -> list[Network]:
    nets: list[Network] = []
    double = np.array([1, 1, 2, 3], np.float32)
    for mode in ("nearest", "linear"):
        nets += single("Upsample", _IMAGE, mode=mode, scales=[1.0, 1.0, 2.0, 3.0], until=8, opsets=(8,))
        nets += single("Upsample", _IMAGE, double, mode=mode, since=9, until=9)
        for scales in (double, np.array([1, 1, 0.5, 1.7], np.float32)):
            nets += single("Resize", _IMAGE, scales, mode=mode, opsets=(10,), label=str(scales))
    no_roi = np.zeros(0, np.float32)  # required, if empty, before opset 13
    scales = [np.array([1, 1, *two], np.float32) for two in ((2, 2), (1.5, 0.6), (1, 2.3))]
    modes = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    for coordinates, mode, factor in itertools.product(modes, ("nearest", "linear"), scales):
        settings = {"mode": mode, "coordinate_transformation_mode": coordinates}
        nets += single("Resize", _IMAGE, no_roi, factor, opsets=(11, 13, 18, 21), label=str(factor), **settings)
    sizes = whole(1, 2, 5, 3)
    for coordinates, mode in itertools.product(modes, ("nearest", "linear")):
        settings = {"mode": mode, "coordinate_transformation_mode": coordinates}
        nets += single("Resize", _IMAGE, no_roi, no_roi, sizes, opsets=(11,), label="sizes", **settings)
        nets += single("Resize", _IMAGE, None, None, sizes, opsets=(13, 19), label="sizes", **settings)
        nets += single("Resize", _IMAGE, None, None, whole(1, 2, 1, 1), opsets=(13, 19), label="one", **settings)
    tensorflow = {"mode": "nearest", "coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"}
    nets += single("Resize", _IMAGE, no_roi, scales[1], opsets=(11,), **tensorflow)
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        nets += single("Resize", _IMAGE, no_roi, scales[1], opsets=(11, 13, 21), mode="nearest", nearest_mode=rounding)
    symmetric = {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}
    nets += single("Resize", _IMAGE, None, scales[1], since=19, **symmetric)
    chosen = np.array([2, 1.5], np.float32)
    return nets + single("Resize", _IMAGE, None, chosen, since=18, mode="linear", axes=[2, 3])


LAYOUT = (*_shapes(), *_pieces(), *_pads(), *_shape_arithmetic(), *_resampling())
