"""The CROWN family against recorded bounds of auto_LiRPA on networks read from ONNX files, on the torch executor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import boundflow_core as bf
from boundflow_core.ir.primal import PrimalGraph

Array = NDArray[Any]
FILES = {
    "mnist_fc4": "mnist_fc/onnx/mnist-net_256x4.onnx",
    "oval_base": "oval21/onnx/cifar_base_kw.onnx",
    "acas_1_1": "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx",
}
VARIANTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "CROWN-IBP": ("crown-ibp", {}),
    "CROWN_batch1": ("crown", {}),
    "CROWN_dense": ("crown", {"refine": "all"}),
    "CROWN_same-slope": ("crown", {"slope": "same"}),
    "CROWN_zero-lb": ("crown", {"slope": "zero"}),
    "CROWN_one-lb": ("crown", {"slope": "one"}),
}

# Recorded for both inputs together, with bounds that hang on neurons which only the other input wanted refined. These
# choices of slopes are compared one input at a time with auto_LiRPA itself, in tests/lirpa.
COMPANY = {("mnist_fc4", "CROWN_one-lb"), ("acas_1_1", "CROWN_same-slope"), ("acas_1_1", "CROWN_one-lb")}

names = pytest.mark.parametrize("name", FILES)


@pytest.fixture(scope="module")
def recorded(shared_dir: Path) -> dict[str, tuple[PrimalGraph, Mapping[str, Array]]]:
    found = {}
    for name, path in FILES.items():
        with np.load(shared_dir / "references" / f"{name}.npz") as file:
            found[name] = bf.load(shared_dir / "benchmarks" / path), dict(file)
    return found


def run(
    graph: PrimalGraph, arrays: Mapping[str, Array], method: str, dtype: str = "float64", count: int = 2, **options: Any
) -> bf.Bounds:
    kind = np.dtype(dtype)
    box = bf.Box(arrays["x_L"][:count].astype(kind), arrays["x_U"][:count].astype(kind))
    rows = bf.LinearSpec(arrays["C"][:count].astype(kind))
    return bf.bound(graph, box, spec=rows, method=method, dtype=dtype, executor="torch", **options)


def close(found: Array, expected: Array, tolerance: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "tag"), [(name, tag) for name in FILES for tag in VARIANTS if (name, tag) not in COMPANY]
)
def test_float64(recorded: Any, name: str, tag: str) -> None:
    graph, arrays = recorded[name]
    method, options = VARIANTS[tag]
    found = run(graph, arrays, method, intersect=False, **options)
    close(found.lower, arrays[f"{tag}.f64.lb"], 1e-6)
    if f"{tag}.f64.ub" in arrays:
        close(found.upper, arrays[f"{tag}.f64.ub"], 1e-6)


@names
@pytest.mark.parametrize("tag", ["CROWN-IBP", "CROWN"])
def test_float32(recorded: Any, name: str, tag: str) -> None:
    graph, arrays = recorded[name]
    found = run(graph, arrays, tag.lower(), "float32", intersect=False)
    exact = arrays["CROWN_batch1.f64.lb" if tag == "CROWN" else "CROWN-IBP.f64.lb"]
    close(found.lower, exact, 1e-4)


@names
def test_intermediate_bounds(recorded: Any, name: str) -> None:
    """Equal where ours straddle zero; the recorded run has refined neurons too that intervals had decided here."""
    graph, arrays = recorded[name]
    found = run(graph, arrays, "crown", intersect=False)
    values = [node.inputs[0] for node in graph.nodes if node.op == "relu"]
    for number, value in enumerate(values):
        low, high = (arrays[f"CROWN.f64.relu{number}.{side}"] for side in "lu")
        lower, upper = (array.reshape(low.shape) for array in found.intermediate[value])
        straddles = (lower < 0) & (upper > 0)
        assert ((low < 0) & (high > 0))[straddles].all()
        close(lower[straddles], low[straddles], 1e-6)
        close(upper[straddles], high[straddles], 1e-6)


@names
def test_never_looser_than_recorded_nor_than_intervals(recorded: Any, name: str) -> None:
    graph, arrays = recorded[name]
    intervals = run(graph, arrays, "ibp")
    for method, tag in (("crown-ibp", "CROWN-IBP"), ("crown", "CROWN_batch1")):
        found, expected = run(graph, arrays, method), arrays[f"{tag}.f64.lb"]
        slack = 1e-9 * np.abs(expected).max()
        assert (found.lower >= expected - slack).all() and (found.lower <= found.upper).all()
        assert (found.lower >= intervals.lower - slack).all() and (found.upper <= intervals.upper + slack).all()
