"""Networks in two forms: as a torch module, and as ONNX, from torch's exporters and written by hand.

Users come with files of each kind: torch's present exporter (by way of torch.export, opset 20), its earlier one (by
tracing), and files of other tools, which keep a BatchNorm and have their own manner of saying the same.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

__all__ = ["ONNX_FORMS", "TWINS", "onnx_form", "torch_form"]

OPSET = 20  # the first with Gelu


# -- torch ------------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is a convolution too where the shape changes."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Conv2d(channels, out, 1, stride) if stride > 1 or channels != out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Encoder(nn.Module):
    """Attention and a perceptron, each after a LayerNorm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, count, width = x.shape
        parts = self.qkv(self.norm1(x)).reshape(batch, count, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) * (width // self.heads) ** -0.5
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, count, width)
        x = x + self.out(mixed)
        return x + self.perceptron(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.places = nn.Parameter(torch.zeros(1, 5, 8))
        self.encoders = nn.Sequential(Encoder(8, 2), Encoder(8, 2))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.places
        return self.head(self.norm(self.encoders(tokens))[:, 0])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2),
        nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3),
    )  # fmt: skip


def residual() -> nn.Module:
    return nn.Sequential(Block(1, 4, 1), Block(4, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


def torch_form(name: str) -> nn.Module:
    """The module in eval mode, with random weights and running statistics."""
    module = TWINS[name][0]().eval()
    generator = torch.Generator().manual_seed(len(name))
    for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point():
            fan = max(math.prod(tensor.shape[1:]), 1)
            values = torch.randn(tensor.shape, generator=generator) / math.sqrt(fan)
            tensor.data = 0.5 + values.abs() if "var" in key or (fan == 1 and "weight" in key) else values
    return module


# -- ONNX, written by hand --------------------------------------------------------------------------------------------


class Writer:
    """Writes an ONNX model whose weights are those of a torch module."""

    def __init__(self, module: nn.Module) -> None:
        self.weights = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str) -> str:
        return self.constant(self.weights[name], name)

    def constant(self, values: Any, name: str | None = None) -> str:
        name = name or f"constant_{len(self.initializers)}"
        self.initializers.setdefault(name, numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"{kind.lower()}_{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, names[0], **attributes))
        return names[0] if outputs == 1 else names

    def gemm(self, x: str, layer: str) -> str:
        return str(self.op("Gemm", x, self.weight(f"{layer}.weight"), self.weight(f"{layer}.bias"), transB=1))

    def projection(self, x: str, layer: str) -> str:
        """As tools write a linear layer on a sequence: a product with the transposed weight, then the bias."""
        weight = self.constant(self.weights[f"{layer}.weight"].T, f"{layer}.weight.T")
        return str(self.op("Add", self.weight(f"{layer}.bias"), self.op("MatMul", x, weight)))

    def conv(self, x: str, layer: str, *, bias: bool = True, **attributes: Any) -> str:
        biases = [self.weight(f"{layer}.bias")] if bias else []
        return str(self.op("Conv", x, self.weight(f"{layer}.weight"), *biases, **attributes))

    def batch_norm(self, x: str, layer: str) -> str:
        keys = ("weight", "bias", "running_mean", "running_var")
        return str(self.op("BatchNormalization", x, *(self.weight(f"{layer}.{key}") for key in keys), epsilon=1e-5))

    def layer_norm(self, x: str, layer: str) -> str:
        weights = self.weight(f"{layer}.weight"), self.weight(f"{layer}.bias")
        return str(self.op("LayerNormalization", x, *weights, axis=-1, epsilon=1e-5))

    def finish(self, output: str) -> onnx.ModelProto:
        float32 = onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            [*self.nodes, helper.make_node("Identity", [output], ["logits"])],
            "by_hand",
            [helper.make_tensor_value_info("image", float32, ["batch", 1, 8, 8])],
            [helper.make_tensor_value_info("logits", float32, ["batch", 3])],
            list(self.initializers.values()),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _mlp_by_hand(w: Writer) -> str:
    x = w.op("Relu", w.gemm(w.op("Flatten", "image"), "1"))
    return w.gemm(w.op("Tanh", w.projection(x, "3")), "5")


def _cnn_by_hand(w: Writer) -> str:
    x = w.op("Relu", w.batch_norm(w.conv("image", "0", pads=[1, 1, 1, 1]), "1"))
    x = w.op("Relu", w.conv(w.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), "4"))
    x = w.op("AveragePool", x, kernel_shape=[3, 3], strides=[3, 3])
    x = w.op("Reshape", x, w.integers(0, -1))
    return w.gemm(w.op("Dropout", w.batch_norm(x, "8")), "10")


def _residual_by_hand(w: Writer) -> str:
    def block(x: str, name: str, stride: int) -> str:
        y = w.conv(x, f"{name}.conv1", bias=False, pads=[1, 1, 1, 1], strides=[stride, stride])
        y = w.op("Relu", w.batch_norm(y, f"{name}.norm1"))
        y = w.batch_norm(w.conv(y, f"{name}.conv2", bias=False, pads=[1, 1, 1, 1]), f"{name}.norm2")
        return str(w.op("Relu", w.op("Add", y, w.conv(x, f"{name}.shortcut", strides=[stride, stride]))))

    x = w.op("GlobalAveragePool", block(block("image", "0", 1), "1", 2))
    return w.gemm(w.op("Flatten", x), "4")


def _transformer_by_hand(w: Writer) -> str:
    batch = w.op("Slice", w.op("Shape", "image"), w.integers(0), w.integers(1))
    x = w.op("Reshape", w.conv("image", "patches", strides=[4, 4]), w.integers(0, 8, -1))
    tokens = w.op("Transpose", x, perm=[0, 2, 1])
    shape = w.op("Concat", batch, w.integers(1, 8), axis=0)
    x = w.op("Concat", w.op("Expand", w.weight("token"), shape), tokens, axis=1)
    x = w.op("Add", x, w.weight("places"))
    for encoder in ("encoders.0", "encoders.1"):
        parts = w.projection(w.layer_norm(x, f"{encoder}.norm1"), f"{encoder}.qkv")
        parts = w.op("Reshape", parts, w.integers(0, 0, 3, 2, 4))
        parts = w.op("Transpose", parts, perm=[2, 0, 3, 1, 4])
        q, k, v = (w.op("Gather", parts, w.constant(np.array(i, dtype=np.int64)), axis=0) for i in range(3))
        scores = w.op("MatMul", q, w.op("Transpose", k, perm=[0, 1, 3, 2]))
        weights = w.op("Softmax", w.op("Mul", scores, w.constant(np.float32(0.5))), axis=-1)
        mixed = w.op("Transpose", w.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        x = w.op("Add", x, w.projection(w.op("Reshape", mixed, w.integers(0, 0, -1)), f"{encoder}.out"))
        inner = w.op("Gelu", w.projection(w.layer_norm(x, f"{encoder}.norm2"), f"{encoder}.perceptron.0"))
        x = w.op("Add", x, w.projection(inner, f"{encoder}.perceptron.2"))
    first = w.op("Gather", w.layer_norm(x, "norm"), w.constant(np.array(0, dtype=np.int64)), axis=1)
    return w.gemm(first, "head")


# -- ONNX, from torch's exporters -------------------------------------------------------------------------------------


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporters' own warnings (that one of them is old, that torchvision is not there)."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _by_hand(name: str, module: nn.Module) -> onnx.ModelProto:
    writer = Writer(module)
    return writer.finish(TWINS[name][1](writer))


def _exported(name: str, module: nn.Module) -> onnx.ModelProto:
    with _quietly():
        program = torch.onnx.export(module, (torch.zeros(1, 1, 8, 8),), dynamo=True, opset_version=OPSET, verbose=False)
    assert program is not None
    return program.model_proto


def _exported_dynamic(name: str, module: nn.Module) -> onnx.ModelProto:
    with _quietly():
        program = torch.onnx.export(
            module, (torch.zeros(2, 1, 8, 8),), dynamo=True, opset_version=OPSET, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
    assert program is not None
    return program.model_proto


def _traced(name: str, module: nn.Module) -> onnx.ModelProto:
    stream = io.BytesIO()
    with _quietly():
        torch.onnx.export(
            module, (torch.zeros(1, 1, 8, 8),), stream, dynamo=False, opset_version=OPSET,
            input_names=["image"], dynamic_axes={"image": {0: "batch"}},
        )  # fmt: skip
    return onnx.load_model_from_string(stream.getvalue())


ONNX_FORMS: dict[str, Callable[[str, nn.Module], onnx.ModelProto]] = {
    "by_hand": _by_hand,
    "exported": _exported,
    "exported_dynamic": _exported_dynamic,
    "traced": _traced,
}

TWINS: dict[str, tuple[Callable[[], nn.Module], Callable[[Writer], str]]] = {
    "mlp": (mlp, _mlp_by_hand),
    "cnn": (cnn, _cnn_by_hand),
    "residual": (residual, _residual_by_hand),
    "transformer": (VisionTransformer, _transformer_by_hand),
}


def onnx_form(form: str, name: str, module: nn.Module) -> onnx.ModelProto:
    """``module``, the twin ``name``, as an ONNX model of opset 20 for images [batch, 1, 8, 8]."""
    return ONNX_FORMS[form](name, module)


def images(count: int = 4) -> NDArray[np.float32]:
    """Random inputs of the twins."""
    return np.random.default_rng(0).uniform(-1, 1, (count, 1, 8, 8)).astype(np.float32)
