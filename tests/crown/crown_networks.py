"""Networks of the tests: those of the recorded references, and small random ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.normalize import normalize

__all__ = ["cnn_rand", "mlp_rand", "relu_inputs", "residual", "sigmoid_softmax", "small_mlp", "tanh_net"]

Array = NDArray[Any]


def mlp_rand(arrays: Mapping[str, Array]) -> PrimalGraph:
    """Linear-ReLU three times, Linear; the image is flattened first."""
    g = PrimalBuilder("mlp_rand", "x", (1, 28, 28))
    y = g.op("reshape", g.input, shape=(784,))
    for layer in (1, 3, 5, 7):
        y = g.op("linear", y, arrays[f"w.mods.m{layer}.weight"], arrays[f"w.mods.m{layer}.bias"])
        y = g.op("relu", y) if layer != 7 else y
    return normalize(g.finish(y), batch_axis=False)


def cnn_rand(arrays: Mapping[str, Array]) -> PrimalGraph:
    """Two convolutions (kernel 4, stride 2, padding 1) and two linear layers, ReLU between."""
    window = {"stride": (2, 2), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    g = PrimalBuilder("cnn_rand", "x", (1, 28, 28))
    y = g.input
    for layer in (0, 2):
        weight, bias = arrays[f"w.mods.m{layer}.weight"], arrays[f"w.mods.m{layer}.bias"]
        y = g.op("relu", g.op("conv2d", y, weight, bias, **window))
    y = g.op("reshape", y, shape=(1568,))
    y = g.op("relu", g.op("linear", y, arrays["w.mods.m5.weight"], arrays["w.mods.m5.bias"]))
    return normalize(
        g.finish(g.op("linear", y, arrays["w.mods.m7.weight"], arrays["w.mods.m7.bias"])), batch_axis=False
    )


def relu_inputs(graph: PrimalGraph) -> list[str]:
    """Names of the values before each ReLU, in the order of the network."""
    return [node.inputs[0] for node in graph.nodes if node.op == "relu"]


def small_mlp(seed: int = 0, activation: str = "relu", *constants: Any) -> PrimalGraph:
    rng = np.random.default_rng(seed)
    g = PrimalBuilder("small_mlp", "x", (5,))
    y, width = g.input, 5
    for count in (8, 7, 6):
        inner = g.op("linear", y, rng.normal(size=(count, width)) / 2, rng.normal(size=count) / 3)
        y, width = g.op(activation, inner, *constants), count
    return normalize(g.finish(g.op("linear", y, rng.normal(size=(3, width)))), batch_axis=False)


def tanh_net(seed: int = 0) -> PrimalGraph:
    return small_mlp(seed, "tanh")


def sigmoid_softmax(seed: int = 0) -> PrimalGraph:
    """A sigmoid, a softmax and a gelu, with linear layers between."""
    rng = np.random.default_rng(seed)
    g = PrimalBuilder("sigmoid_softmax", "x", (5,))
    y, width = g.input, 5
    activations = (("sigmoid", {}), ("softmax", {"axis": 0}), ("gelu", {"approximate": "none"}))
    for activation, attrs in activations:
        y, width = g.op("linear", y, rng.normal(size=(6, width)), rng.normal(size=6) / 3), 6
        y = g.op(activation, y, **attrs)
    return normalize(g.finish(g.op("linear", y, rng.normal(size=(3, width)))), batch_axis=False)


def residual(seed: int = 0) -> PrimalGraph:
    """Convolutions, one with stride and lopsided padding, and a skip connection."""
    rng = np.random.default_rng(seed)
    same = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    lopsided = {"stride": (2, 1), "padding": (1, 0, 0, 1), "dilation": (1, 1), "groups": 1}
    g = PrimalBuilder("residual", "x", (2, 6, 5))
    first = g.op("relu", g.op("conv2d", g.input, rng.normal(size=(3, 2, 3, 3)) / 3, rng.normal(size=3) / 4, **same))
    second = g.op("conv2d", first, rng.normal(size=(3, 3, 3, 3)) / 4, **same)
    third = g.op("relu", g.add(first, second))
    fourth = g.op("relu", g.op("conv2d", third, rng.normal(size=(2, 3, 2, 2)) / 2, **lopsided))
    count = int(np.prod(fourth.shape))
    flat = g.op("reshape", fourth, shape=(count,))
    return normalize(g.finish(g.op("linear", flat, rng.normal(size=(3, count)), rng.normal(size=3))), batch_axis=False)
