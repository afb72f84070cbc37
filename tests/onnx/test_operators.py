"""Every operator, in every opset that it changed in: the graph computes what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.types import DType
from boundflow_onnx.fold import FOLDABLE
from boundflow_onnx.frontend import load_onnx, read_graph
from boundflow_onnx.operators import CONVERTERS

from .building import Array, Network, node, numbers, several
from .networks import NETWORKS

# The operators that the project promises.
PROMISED = """
Relu LeakyRelu PRelu Clip Sigmoid Tanh Erf Gelu HardSigmoid Softplus Exp Log Sqrt Reciprocal Pow Abs Neg Sign Floor Sin
Cos Add Sub Mul Div Min Max Where MatMul Gemm Conv ConvTranspose MaxPool AveragePool GlobalAveragePool
BatchNormalization Softmax LayerNormalization ReduceSum ReduceMean ReduceMax ReduceMin Flatten Reshape Squeeze Unsqueeze
Transpose Concat Split Slice Gather Pad Expand Tile Upsample Resize Shape ConstantOfShape Range Equal Cast Constant
Dropout Identity OneHot ArgMax ScatterND
"""


def runtime(model: onnx.ModelProto, x: Array) -> Array:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # What the operators mean is asked for, not what fusions make of them.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def assert_close(got: Array, want: Array, tolerance: float = 1e-5) -> None:
    assert got.shape == want.shape
    scale = max(float(np.abs(want).max()), 1e-3)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)


def as_read(network: Network, x: Array) -> Array:
    """The literal graph, its batch axis of 1 included, at one input."""
    graph, _ = read_graph(network.model())
    return evaluate_graph(graph, x[None], DType.FLOAT32)[0]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_graph_equals_onnxruntime(network: Network) -> None:
    x = network.points()
    want = runtime(network.model(), x)
    assert_close(as_read(network, x), want)
    graph = load_onnx(network.model())
    batched = len(network.shape) >= 2 and network.shape[0] == 1
    got = evaluate_graph(graph, x if batched else x[None], DType.FLOAT32)
    # The graph's shapes leave a batch axis out.
    assert got.size == want.size
    assert_close(got.reshape(want.shape), want)


def test_networks_cover_every_promised_operator() -> None:
    covered = {proto.op_type for network in NETWORKS for proto in network.nodes}
    assert set(PROMISED.split()) - covered == set()


def test_networks_cover_every_converter() -> None:
    covered = {proto.op_type for network in NETWORKS for proto in network.nodes}
    assert set(CONVERTERS) - covered == set()


def test_nothing_random_is_folded() -> None:
    assert {"Dropout", "RandomNormal", "RandomUniform", "Bernoulli", "Multinomial"} & FOLDABLE == set()


def test_double_precision_weights() -> None:
    nodes = (node("MatMul", ["x", "w"], ["h"]), node("Exp", ["h"]))
    weights = np.random.default_rng(0).normal(size=(3, 2))
    network = Network("double", 17, (1, 3), nodes, {"w": weights}, dtype=onnx.TensorProto.DOUBLE)
    x = network.points()
    got = evaluate_graph(load_onnx(network.model()), x, DType.FLOAT64)
    np.testing.assert_allclose(got, np.exp(x @ weights), rtol=1e-14)


def test_half_precision_weights() -> None:
    nodes = (node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"]))
    network = Network(
        "half", 17, (1, 3), nodes, {"w": numbers(3, 2).astype(np.float16)}, dtype=onnx.TensorProto.FLOAT16
    )
    x = network.points()
    got = evaluate_graph(load_onnx(network.model()), x, DType.FLOAT32)
    assert_close(got, runtime(network.model(), x).astype(np.float32), 2e-3)


def test_weights_in_half_precision_cast_up() -> None:
    nodes = [node("Cast", ["w"], ["v"], to=onnx.TensorProto.FLOAT), node("MatMul", ["x", "v"])]
    (network,) = several("cast", (1, 3), nodes, {"w": numbers(3, 2).astype(np.float16)})
    assert_close(as_read(network, network.points()), runtime(network.model(), network.points()))


def test_initializers_that_are_inputs_too() -> None:
    (network,) = several("old", (1, 3), [node("MatMul", ["x", "w"])], {"w": numbers(3, 2)}, opsets=(8,))
    model = network.model()
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [3, 2]))
    x = network.points()
    assert_close(evaluate_graph(load_onnx(model), x, DType.FLOAT32), runtime(model, x))


def test_external_data(tmp_path: Path) -> None:
    (network,) = several("external", (1, 30), [node("MatMul", ["x", "w"])], {"w": numbers(30, 20)})
    x = network.points()
    want = runtime(network.model(), x)
    path = tmp_path / "net.onnx"
    onnx.save_model(network.model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").is_file()
    assert_close(evaluate_graph(load_onnx(path), x, DType.FLOAT32), want)


def test_functions_are_inlined() -> None:
    body = [node("Relu", ["a"], ["r"]), node("Neg", ["r"], ["b"])]
    opset = [onnx.helper.make_opsetid("", 17)]
    function = onnx.helper.make_function("local", "NegRelu", ["a"], ["b"], body, opset)
    (network,) = several("function", (1, 3), [onnx.helper.make_node("NegRelu", ["x"], ["y"], domain="local")])
    model = network.model()
    model.functions.append(function)
    model.opset_import.append(onnx.helper.make_opsetid("local", 1))
    x = network.points()
    assert_close(evaluate_graph(load_onnx(model), x, DType.FLOAT32), -np.maximum(x, 0))
