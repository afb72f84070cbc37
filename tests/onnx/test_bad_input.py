"""Networks that cannot be translated: a typed error of one clear line that names the file, the node and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from boundflow_core.errors import LoadError, OptionError, UnsupportedOpError
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.types import DType
from boundflow_onnx import load_onnx

from .building import message, model_of, node, numbers, whole

# -- operators --------------------------------------------------------------------------------------------------------


def test_unknown_operator(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(model_of([node("Relu", ["x"], ["a"]), node("Foo", ["a"])], (1, 3)), path)
    with pytest.raises(UnsupportedOpError) as error:
        load_onnx(path)
    message(error, "net.onnx", "'Foo'", "'Foo_y'", "converters")
    assert (error.value.op, error.value.node) == ("Foo", "Foo_y")


def _custom(op: str = "Twice") -> onnx.ModelProto:
    model = model_of([helper.make_node(op, ["x"], ["y"], domain="com.example")], (1, 3))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def test_custom_domain() -> None:
    with pytest.raises(UnsupportedOpError) as error:
        load_onnx(_custom("Relu"))
    message(error, "com.example::Relu", "'y'", "converters")


def test_converter_for_a_custom_operator() -> None:
    graph = load_onnx(_custom(), converters={"com.example::Twice": lambda n: n.g.add(n.operand(), n.operand())})
    x = np.ones((2, 3))
    np.testing.assert_array_equal(evaluate_graph(graph, x, DType.FLOAT64), 2 * x)


@pytest.mark.parametrize("op", ["If", "Loop", "RandomNormal", "LSTM", "NonMaxSuppression"])
def test_operators_without_rules(op: str) -> None:
    with pytest.raises(UnsupportedOpError) as error:
        load_onnx(model_of([node("Relu", ["x"], ["a"]), node(op, ["a"])], (1, 3)))
    message(error, f"'{op}'", f"'{op}_y'")


def test_unneeded_operators_do_no_harm() -> None:
    model = model_of([node("Foo", ["x"], ["z"]), node("Relu", ["x"])], (1, 3))
    with pytest.raises(LoadError) as error:
        load_onnx(model)  # the checker still objects to an operator that ONNX itself does not know
    message(error, "Foo")
    custom = [helper.make_node("Foo", ["x"], ["z"], domain="a"), node("Relu", ["x"])]
    model = model_of(custom, (1, 3))
    model.opset_import.append(helper.make_opsetid("a", 1))
    assert list(load_onnx(model).operators()) == ["relu"]


_UNSUPPORTED: dict[str, tuple[list[onnx.NodeProto], tuple[int, ...], dict[str, Any], str]] = {
    "indices": (
        [node("MaxPool", ["x"], ["a", "i"], kernel_shape=[2, 2]), node("Cast", ["i"], ["f"], to=1),
         node("Add", ["a", "f"])],
        (1, 1, 4, 4), {}, "Indices",
    ),
    "conv-3d": ([node("Conv", ["x", "w"])], (1, 1, 4, 4, 4), {"w": numbers(1, 1, 2, 2, 2)}, "3 spatial axes"),
    "conv-weights": (
        [node("Relu", ["x"], ["w"]), node("Conv", ["x", "w"])], (1, 1, 2, 2), {}, "depend on the network's input",
    ),
    "cubic": (
        [node("Resize", ["x", "", "s"], mode="cubic")], (1, 1, 4, 4), {"s": np.float32([1, 1, 2, 2])}, "cubic",
    ),
    "crop": (
        [node("Resize", ["x", "r", "s"], coordinate_transformation_mode="tf_crop_and_resize")], (1, 1, 4, 4),
        {"s": np.float32([1, 1, 2, 2]), "r": np.float32([0, 0, 0, 0, 1, 1, 1, 1])}, "tf_crop_and_resize",
    ),
    "antialias": (
        [node("Resize", ["x", "", "s"], mode="linear", antialias=1)], (1, 1, 4, 4),
        {"s": np.float32([1, 1, 0.5, 0.5])}, "antialias",
    ),
    "training": (
        [node("Dropout", ["x", "r", "t"])], (1, 4), {"r": np.float32(0.5), "t": np.array(True)}, "training",
    ),
    "training-norm": (
        [node("BatchNormalization", ["x", "a", "a", "a", "a"], ["y", "m", "v"], training_mode=1)],
        (1, 2), {"a": numbers(2, low=0.5)}, "training",
    ),
    "argmax": ([node("ArgMax", ["x"], ["i"], axis=1), node("Cast", ["i"], to=1)], (1, 4), {}, "network's input"),
    "cast": ([node("Cast", ["x"], ["i"], to=7), node("Cast", ["i"], to=1)], (1, 4), {}, "INT64"),
    "condition": (
        [node("Cast", ["x"], ["c"], to=9), node("Where", ["c", "x", "z"])], (1, 4), {"z": numbers(1)}, "BOOL",
    ),
    "index": ([node("Cast", ["x"], ["i"], to=7), node("Gather", ["w", "i"])], (4,), {"w": numbers(4)}, "INT64"),
    "exponents": ([node("Pow", ["x", "e"])], (1, 2), {"e": np.float32([2, 3])}, "differ"),
    "exponent": ([node("Relu", ["x"], ["e"]), node("Pow", ["x", "e"])], (1, 2), {}, "base"),
    "slope": ([node("Relu", ["x"], ["s"]), node("PRelu", ["x", "s"])], (1, 2), {}, "slopes"),
    "pad-infinite": ([node("Pad", ["x", "p", "v"])], (1, 2), {"p": whole(0, 1, 0, 1), "v": np.float32(np.inf)}, "inf"),
}  # fmt: skip


@pytest.mark.parametrize("name", _UNSUPPORTED)
def test_unsupported_combinations(name: str) -> None:
    nodes, shape, constants, said = _UNSUPPORTED[name]
    with pytest.raises(UnsupportedOpError) as error:
        load_onnx(model_of(nodes, shape, constants, opset=18))
    message(error, said, f"'{error.value.node}'")
    assert error.value.node in {proto.name for proto in nodes}


_MALFORMED: dict[str, tuple[list[onnx.NodeProto], tuple[int, ...], dict[str, Any], str]] = {
    "shapes": ([node("MatMul", ["x", "w"])], (1, 3), {"w": numbers(4, 2)}, "MatMul_y"),
    "broadcast": ([node("Add", ["x", "w"])], (1, 3), {"w": numbers(4)}, "Add_y"),
    "reshape": ([node("Reshape", ["x", "s"])], (1, 3), {"s": whole(2, 2)}, "Reshape_y"),
    "reshape-rest": ([node("Reshape", ["x", "s"])], (1, 3), {"s": whole(-1, 2)}, "cannot be reshaped"),
    "reshape-zero": ([node("Reshape", ["x", "s"], allowzero=1)], (1, 3), {"s": whole(0, 3)}, "Reshape_y"),
    "axis": ([node("Concat", ["x", "x"], axis=5)], (1, 3), {}, "axis 5"),
    "permutation": ([node("Transpose", ["x"], perm=[0, 0])], (1, 3), {}, "permutation"),
    "index": ([node("Gather", ["x", "i"], axis=1)], (1, 3), {"i": whole(3)}, "out of range"),
    "window": ([node("MaxPool", ["x"], kernel_shape=[9, 9])], (1, 1, 4, 4), {}, "MaxPool_y"),
    "outside": ([node("MaxPool", ["x"], kernel_shape=[1, 1], pads=[1, 1, 1, 1])], (1, 1, 4, 4), {}, "outside"),
    "channels": ([node("Conv", ["x", "w"])], (1, 3, 4, 4), {"w": numbers(1, 2, 2, 2)}, "channels"),
    "split": ([node("Split", ["x", "s"], ["a", "b"]), node("Add", ["a", "b"])], (1, 4), {"s": whole(1, 1)}, "parts"),
    "folding": ([node("Reshape", ["w", "s"], ["v"]), node("Add", ["x", "v"])], (1, 4), {"w": numbers(4), "s": whole(3)},
                "Reshape_v"),
    "huge": ([node("ConstantOfShape", ["s"], ["v"]), node("Add", ["x", "v"])], (1, 4), {"s": whole(1 << 40, 1 << 20)},
             "elements"),
    "undefined": ([node("Add", ["x", "nowhere"])], (1, 4), {}, "nowhere"),
    "unsorted": ([node("Relu", ["a"]), node("Abs", ["x"], ["a"])], (1, 4), {}, "a"),
    "constant": ([node("Identity", ["w"])], (1, 4), {"w": numbers(4)}, "does not depend on the input"),
    "arity": ([node("Add", ["x"])], (1, 4), {}, "Add"),
    "empty": ([node("Slice", ["x", "s", "s"])], (1, 4), {"s": whole(0)}, "empty"),
    "output-padding": ([node("ConvTranspose", ["x", "w"], output_padding=[1, 1])], (1, 1, 3, 3),
                       {"w": numbers(1, 1, 2, 2)}, "output padding"),
}  # fmt: skip


@pytest.mark.parametrize("name", _MALFORMED)
def test_malformed_networks(tmp_path: Path, name: str) -> None:
    nodes, shape, constants, said = _MALFORMED[name]
    path = tmp_path / "net.onnx"
    onnx.save(model_of(nodes, shape, constants), path)
    with pytest.raises(LoadError) as error:
        load_onnx(path)
    message(error, "net.onnx", said)


# -- inputs, outputs and options --------------------------------------------------------------------------------------


def _relu(*shape: int | str | None) -> onnx.ModelProto:
    return model_of([node("Relu", ["x"])], shape)


@pytest.mark.parametrize(
    ("shape", "sample"),
    [
        (("N", 3), (3,)), ((None, 3), (3,)), ((0, 3), (3,)), ((1, 3), (3,)), ((1, 1, 2), (1, 2)), ((4, 3), (4, 3)),
        ((3,), (3,)), ((1,), (1,)), ((), ()),
    ],
)  # fmt: skip
def test_batch_axis(shape: tuple[int | str | None, ...], sample: tuple[int, ...]) -> None:
    graph = load_onnx(_relu(*shape))
    assert graph.input_type.shape == graph.output_type.shape == sample


def test_dimension_without_a_value() -> None:
    model = _relu("N", "seq", 4)
    with pytest.raises(LoadError) as error:
        load_onnx(model)
    message(error, "'seq'", "'x'", "[N, seq, 4]", 'dims={"seq": 16}')
    assert load_onnx(model, dims={"seq": 16}).input_type.shape == (16, 4)
    assert load_onnx(model, dims={1: 16}).input_type.shape == (16, 4)
    assert load_onnx(model, dims={"N": 2, "seq": 3}).input_type.shape == (2, 3, 4)


def test_nameless_dimension_without_a_value() -> None:
    for shape in ((1, None), (None,), ("N", 0)):
        with pytest.raises(LoadError) as error:
            load_onnx(_relu(*shape))
        message(error, "dims={")
    assert load_onnx(_relu(1, None), dims={1: 5}).input_type.shape == (5,)


@pytest.mark.parametrize("dims", [{"T": 3}, {"seq": 0}, {"seq": "3"}, {"seq": True}, {7: 3}, 5])
def test_wrong_dims(dims: Any) -> None:
    with pytest.raises(OptionError) as error:
        load_onnx(_relu("N", "seq"), dims=dims)
    message(error, "dim")


def test_several_inputs() -> None:
    model = model_of([node("Add", ["x", "z"])], (1, 3))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3]))
    with pytest.raises(LoadError) as error:
        load_onnx(model)
    message(error, "2 inputs", "x [1, 3]", "z [N, 3]")


def test_no_input() -> None:
    model = model_of([node("Relu", ["w"])], (1, 3), {"w": numbers(3)})
    del model.graph.input[:]
    with pytest.raises(LoadError) as error:
        load_onnx(model)
    message(error, "no input")


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.UINT8, TensorProto.BOOL])
def test_input_that_is_no_float(kind: int) -> None:
    with pytest.raises(LoadError) as error:
        load_onnx(model_of([node("Cast", ["x"], to=1)], (1, 3), dtype=kind))
    message(error, "'x'", TensorProto.DataType.Name(kind))


def test_input_without_a_shape() -> None:
    model = _relu(1, 3)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(LoadError) as error:
        load_onnx(model)
    message(error, "shape")


def test_several_outputs() -> None:
    model = model_of([node("Relu", ["x"]), node("Exp", ["x"], ["z"])], (1, 3))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    with pytest.raises(LoadError) as error:
        load_onnx(model)
    message(error, "2 outputs", "y, z", 'output="y"')
    choices: list[tuple[str, Callable[[Any], Any]]] = [("y", lambda x: np.maximum(x, 0)), ("z", np.exp)]
    for name, function in choices:
        x = np.linspace(-1, 1, 6).reshape(2, 3)
        np.testing.assert_allclose(evaluate_graph(load_onnx(model, output=name), x), function(x))
    with pytest.raises(OptionError) as wrong:
        load_onnx(model, output="w")
    message(wrong, "'w'", "y, z")


def test_inner_value_as_output() -> None:
    model = model_of([node("Exp", ["x"], ["logits"]), node("ArgMax", ["logits"], axis=1)], (1, 3))
    assert list(load_onnx(model, output="logits").operators()) == ["exp"]
