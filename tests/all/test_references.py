"""Interval bounds of benchmark networks equal those that auto_LiRPA gave, where its recorded values are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import boundflow_core as bf

NETWORKS = {
    "mnist_fc4": "mnist_fc/onnx/mnist-net_256x4.onnx",
    "oval_base": "oval21/onnx/cifar_base_kw.onnx",
    "acas_1_1": "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx",
}


@pytest.mark.parametrize("executor", ["reference", "torch"])
@pytest.mark.parametrize(("dtype", "tag", "tolerance"), [("float64", "f64", 1e-9), ("float32", "f32", 1e-5)])
@pytest.mark.parametrize("name", NETWORKS)
def test_ibp_equals_recorded_values(
    shared_dir: Path, name: str, dtype: str, tag: str, tolerance: float, executor: str
) -> None:
    recorded = np.load(shared_dir / "references" / f"{name}.npz")
    graph = bf.load(shared_dir / "benchmarks" / NETWORKS[name])
    region = bf.Box(*(recorded[key].astype(dtype) for key in ("x_L", "x_U")))
    spec = bf.LinearSpec(recorded["C"].astype(dtype))
    bounds = bf.bound(graph, region, method="ibp", spec=spec, executor=executor, dtype=dtype)
    for got, side in ((bounds.lower, "lb"), (bounds.upper, "ub")):
        want = recorded[f"IBP.{tag}.{side}"]
        assert np.abs(got - want).max() <= tolerance * np.abs(want).max()
