"""Computation of nodes whose operands are all constants: shape arithmetic, masks, weights put together in the graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from boundflow_core.errors import LoadError
from boundflow_onnx.model import first_line

__all__ = ["FOLDABLE", "fold"]

# Without operators that draw random numbers, or that have subgraphs and so may never end.
_NAMES = """
    Abs Add And ArgMax ArgMin BitShift Cast CastLike Ceil Clip Compress Concat Constant ConstantOfShape Cos CumSum Div
    Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm Greater GreaterOrEqual Identity IsInf
    IsNaN Less LessOrEqual Log MatMul Max Mean Min Mod Mul Neg NonZero Not OneHot Or Pad Pow Range Reciprocal ReduceL1
    ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round ScatterElements
    ScatterND Shape Sigmoid Sign Sin Size Slice Split Sqrt Squeeze Sub Sum Tan Tanh Tile TopK Transpose Trilu Unique
    Unsqueeze Where Xor
"""
FOLDABLE = frozenset(_NAMES.split())

_MOST_ELEMENTS = 2**28


def fold(
    node: onnx.NodeProto, name: str, opset: int, inputs: Sequence[NDArray[Any] | None]
) -> list[NDArray[Any] | None]:
    """Outputs of ``node`` by ONNX's own reference implementation; None for those that have no name.

    Raises:
        LoadError: the node cannot be computed, or its result is unreasonably large.
    """
    _limit(node, name, inputs)
    if node.op_type == "OneHot" and len(inputs) == 3 and inputs[1] is not None:
        # The reference implementation takes a scalar depth only, where ONNX allows a vector of one.
        inputs = [inputs[0], inputs[1].reshape(()), inputs[2]]
    feeds = {key: value for key, value in zip(node.input, inputs, strict=True) if value is not None}
    from onnx.reference import ReferenceEvaluator  # slow to import, and most networks have nothing to compute

    outputs = [key for key in node.output if key]
    graph = onnx.GraphProto(name="constants", node=[node])
    graph.input.extend(onnx.ValueInfoProto(name=key) for key in feeds)
    graph.output.extend(onnx.ValueInfoProto(name=key) for key in outputs)
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(graph, opsets={"": opset}).run(None, feeds)
    except Exception as error:
        raise LoadError(
            f"node {name!r} ({node.op_type}) of constants cannot be computed: {first_line(error)}"
        ) from error
    found = {key: np.asarray(value) for key, value in zip(outputs, results, strict=True)}
    return [found.get(key) for key in node.output]


def _limit(node: onnx.NodeProto, name: str, inputs: Sequence[NDArray[Any] | None]) -> None:
    """Refuses results that no memory holds, before anything is allocated."""
    count = 0.0
    arrays = [value for value in inputs if value is not None]
    if node.op_type in ("ConstantOfShape", "Expand", "Reshape") and arrays:
        count = math.prod(float(dim) for dim in arrays[-1].ravel())
    elif node.op_type == "Tile" and len(arrays) == 2:
        count = arrays[0].size * math.prod(float(dim) for dim in arrays[1].ravel())
    elif node.op_type == "Range" and len(arrays) == 3 and arrays[2]:
        count = abs(float(arrays[1]) - float(arrays[0])) / abs(float(arrays[2]))
    elif node.op_type == "OneHot" and len(arrays) == 3:
        count = arrays[0].size * abs(float(arrays[1].ravel()[0]))
    if count > _MOST_ELEMENTS:
        raise LoadError(f"node {name!r} ({node.op_type}) would make a constant of {count:.3g} elements")
