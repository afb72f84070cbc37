"""The public benchmark networks load, and compute what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.types import DType
from boundflow_onnx import load_onnx

_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "benchmarks"
_NETWORKS = sorted(str(path.relative_to(_FOLDER)) for path in _FOLDER.glob("*/onnx/*.onnx"))


def test_benchmarks_are_here(shared_dir: Path) -> None:
    """Says that the tests below have nothing to do where there are no benchmarks."""
    assert len(_NETWORKS) >= 39, f"only {len(_NETWORKS)} networks in {shared_dir.name}/benchmarks"


@pytest.mark.parametrize("name", _NETWORKS)
def test_network_equals_onnxruntime(name: str) -> None:
    path = _FOLDER / name
    graph = load_onnx(path)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    shape = [dim if isinstance(dim, int) and dim > 0 else 1 for dim in entry.shape]
    rng = np.random.default_rng(0)
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (-0.1, 0.1)):
        points = rng.uniform(low, high, (4, *shape)).astype(np.float32)
        want = np.stack([session.run(None, {entry.name: point})[0] for point in points])
        got = evaluate_graph(graph, points.reshape(4, *graph.input_type.shape), DType.FLOAT32)
        assert got.size == want.size
        error = np.abs(got.reshape(want.shape) - want).max()
        assert error <= 1e-4 * np.abs(want).max(), f"inputs in [{low}, {high}]"
