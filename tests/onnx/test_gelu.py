"""GELU as exporters wrote it before it had an operator is read as the one operator that it is."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from boundflow_core.forward import evaluate_graph
from boundflow_onnx import load_onnx
from boundflow_onnx.frontend import read_graph

from .building import Array, model_of, node, numbers

_GATE = [node("Div", ["h", "root"], ["d"]), node("Erf", ["d"], ["e"]), node("Add", ["e", "one"], ["gate"])]
_ENDS = {
    "last": [node("Mul", ["h", "gate"], ["m"]), node("Mul", ["m", "half"])],
    "first": [node("Mul", ["half", "m"]), node("Mul", ["gate", "h"], ["m"])][::-1],
    "on-x": [node("Mul", ["h", "half"], ["m"]), node("Mul", ["m", "gate"])],
    "on-gate": [node("Mul", ["gate", "half"], ["m"]), node("Mul", ["h", "m"])],
}


def _model(
    end: list[onnx.NodeProto], root: float = math.sqrt(2), one: float = 1.0, half: float = 0.5
) -> onnx.ModelProto:
    constants: dict[str, Array] = {
        "w": numbers(3, 4), "root": np.float32(root), "one": np.float32(one), "half": np.float32(half)
    }  # fmt: skip
    return model_of([node("MatMul", ["x", "w"], ["h"]), *_GATE, *end], (1, 3), constants)


@pytest.mark.parametrize("end", _ENDS)
def test_gelu_is_recognized(end: str) -> None:
    model = _model(_ENDS[end])
    graph = load_onnx(model)
    assert list(graph.operators()) == ["linear", "gelu"]
    literal, _ = read_graph(model)
    x = np.random.default_rng(0).normal(size=(5, 1, 3))
    np.testing.assert_allclose(evaluate_graph(graph, x[:, 0]), evaluate_graph(literal, x)[:, 0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("root", "one", "half"), [(1.4, 1.0, 0.5), (math.sqrt(2), 1.1, 0.5), (math.sqrt(2), 1.0, 0.6)])
@pytest.mark.parametrize("end", _ENDS)
def test_other_numbers_are_no_gelu(end: str, root: float, one: float, half: float) -> None:
    assert "gelu" not in load_onnx(_model(_ENDS[end], root, one, half)).operators()


def test_another_factor_is_no_gelu() -> None:
    end = [node("Sin", ["h"], ["other"]), node("Mul", ["other", "gate"], ["m"]), node("Mul", ["m", "half"])]
    assert "gelu" not in load_onnx(_model(end)).operators()


def test_numbers_that_widen_the_shape_are_no_gelu() -> None:
    model = _model(_ENDS["last"])
    (half,) = (tensor for tensor in model.graph.initializer if tensor.name == "half")
    half.CopyFrom(onnx.numpy_helper.from_array(np.full((2, 1), 0.5, np.float32), "half"))
    graph = load_onnx(model)
    assert graph.output_type.shape == (2, 4)
