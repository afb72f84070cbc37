"""Interval bounds against recorded ones of auto_LiRPA, where the folder of references is present."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder

Array = NDArray[Any]
Ibp = Callable[..., tuple[Array, Array]]


def _mlp(arrays: Mapping[str, Array]) -> PrimalGraph:
    """Linear-ReLU three times, Linear; the image is flattened first."""
    g = PrimalBuilder("mlp_rand", "x", (1, 28, 28))
    y = g.op("reshape", g.input, shape=(784,))
    for layer in (1, 3, 5, 7):
        y = g.op("linear", y, arrays[f"w.mods.m{layer}.weight"], arrays[f"w.mods.m{layer}.bias"])
        y = g.op("relu", y) if layer != 7 else y
    return g.finish(y)


def _cnn(arrays: Mapping[str, Array]) -> PrimalGraph:
    """Two convolutions (kernel 4, stride 2, padding 1) and two linear layers, ReLU between."""
    window = {"stride": (2, 2), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    g = PrimalBuilder("cnn_rand", "x", (1, 28, 28))
    y = g.input
    for layer in (0, 2):
        weight, bias = arrays[f"w.mods.m{layer}.weight"], arrays[f"w.mods.m{layer}.bias"]
        y = g.op("relu", g.op("conv2d", y, weight, bias, **window))
    y = g.op("reshape", y, shape=(1568,))
    y = g.op("relu", g.op("linear", y, arrays["w.mods.m5.weight"], arrays["w.mods.m5.bias"]))
    return g.finish(g.op("linear", y, arrays["w.mods.m7.weight"], arrays["w.mods.m7.bias"]))


@pytest.mark.parametrize("name,build", [("mlp_rand", _mlp), ("cnn_rand", _cnn)])
@pytest.mark.parametrize("dtype,tag,tolerance", [("float64", "f64", 1e-9), ("float32", "f32", 1e-5)])
def test_recorded_interval_bounds(
    name: str,
    build: Callable[[Mapping[str, Array]], PrimalGraph],
    dtype: str,
    tag: str,
    tolerance: float,
    shared_dir: Path,
    ibp: Ibp,
) -> None:
    with np.load(shared_dir / "references" / f"{name}.npz") as file:
        arrays = dict(file)
    graph = build(arrays)
    np.testing.assert_allclose(evaluate_graph(graph, arrays["x"]), arrays["clean"], rtol=1e-4, atol=1e-5)
    lower, upper = ibp(graph, arrays["x_L"], arrays["x_U"], arrays["C"], dtype=dtype)
    np.testing.assert_allclose(lower, arrays[f"IBP.{tag}.lb"], rtol=tolerance)
    np.testing.assert_allclose(upper, arrays[f"IBP.{tag}.ub"], rtol=tolerance)
