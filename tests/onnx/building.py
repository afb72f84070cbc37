"""Small ONNX networks, written by hand: one operator each, over the opsets that it was defined differently in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from boundflow_core.errors import BoundFlowError

# The versions in which one of the supported operators changed.
OPSETS = (8, 9, 10, 11, 12, 13, 14, 17, 18, 19, 20, 21)

Array = NDArray[Any]


@dataclass(frozen=True)
class Network:
    """One small network of input ``x``, and the range of inputs to try it on.

    Attributes:
        constants: initializers by name.
        dtype: element type of the input.
    """

    name: str
    opset: int
    shape: tuple[int, ...]
    nodes: tuple[onnx.NodeProto, ...]
    constants: dict[str, Array] = field(default_factory=dict)
    output: str = "y"
    low: float = -2.0
    high: float = 2.0
    dtype: int = onnx.TensorProto.FLOAT

    def model(self) -> onnx.ModelProto:
        return model_of(self.nodes, self.shape, self.constants, self.opset, self.output, self.dtype)

    def points(self, seed: int = 0) -> Array:
        """One random input."""
        x = np.random.default_rng(seed).uniform(self.low, self.high, self.shape)
        return x.astype(helper.tensor_dtype_to_np_dtype(self.dtype))

    def __str__(self) -> str:
        return f"{self.name}-opset{self.opset}"


def model_of(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str | None],
    constants: dict[str, Array] | None = None,
    opset: int = 17,
    output: str = "y",
    dtype: int = onnx.TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model of input ``x``."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", dtype, list(shape))],
        [helper.make_tensor_value_info(output, dtype, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str] = ("y",), **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), list(outputs), name=f"{op}_{outputs[0]}", **attributes)


def single(
    op: str,
    shape: Sequence[int],
    *constants: Array | float | None,
    since: int = 8,
    until: int = 21,
    before: int = 0,
    opsets: Sequence[int] = OPSETS,
    low: float = -2.0,
    high: float = 2.0,
    label: str = "",
    **attributes: Any,
) -> list[Network]:
    """``op(x, *constants)`` in each opset from ``since`` to ``until``.

    Args:
        constants: further operands; None leaves one out. ``before`` of them come before x.
    """
    names = ["" if value is None else f"c{number}" for number, value in enumerate(constants)]
    arrays = {
        name: value if isinstance(value, np.ndarray) else np.float32(value)
        for name, value in zip(names, constants, strict=True)
        if value is not None
    }
    operands = [*names[:before], "x", *names[before:]]
    settings = ",".join(f"{key}={value}" for key, value in attributes.items())
    title = "-".join(filter(None, [op, label, settings])).replace(" ", "")
    return [
        Network(title, opset, tuple(shape), (node(op, operands, **attributes),), arrays, low=low, high=high)
        for opset in opsets
        if since <= opset <= until
    ]


def several(
    name: str,
    shape: Sequence[int],
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Array] | None = None,
    opsets: Sequence[int] = (17,),
    low: float = -2.0,
    high: float = 2.0,
) -> list[Network]:
    """A network of several nodes, with output ``y``."""
    return [Network(name, opset, tuple(shape), tuple(nodes), constants or {}, low=low, high=high) for opset in opsets]


def numbers(*shape: int, seed: int = 1, low: float = -1.0, high: float = 1.0) -> Array:
    """Reproducible float32 weights."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def whole(*values: int) -> Array:
    """A vector of int64."""
    return np.array(values, dtype=np.int64)


def message(error: pytest.ExceptionInfo[BoundFlowError], *parts: str) -> str:
    """The message, which must be one line with all ``parts``."""
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text, f"{part!r} is not in {text!r}"
    return text
