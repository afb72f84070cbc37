"""crown-ibp on public networks with many kinds of operators: finite, no looser than ibp, sampled points inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import boundflow_core as bf
from boundflow_core.forward import evaluate_graph

NETWORKS = {
    "vit/onnx/pgd_2_3_16.onnx": 1e-4,
    "ml4acopf/onnx/14_ieee_ml4acopf-linear-nonresidual.onnx": 1e-3,
    "eran_sigmoid/onnx/ffnnSIGMOID__Point_6x200.onnx": 1e-3,
    "cgan/onnx/cGAN_imgSz32_nCh_1.onnx": 1e-3,
}


@pytest.mark.parametrize("path", NETWORKS)
def test_bounds_are_finite_tighter_than_ibp_and_hold(shared_dir: Path, path: str) -> None:
    file, eps = shared_dir / "benchmarks" / path, NETWORKS[path]
    if not file.is_file():
        pytest.skip(f"no {path} here")
    graph, rng = bf.load(file), np.random.default_rng(0)
    shape = tuple(int(dim) for dim in graph.input_type.shape)  # type: ignore[arg-type]
    centre = rng.uniform(0.3, 0.7, size=(2, *shape))
    region = bf.LpBall(centre, eps)
    ibp = bf.bound(graph, region, method="ibp", executor="torch", dtype="float64")
    alone = bf.bound(graph, region, method="crown-ibp", executor="torch", dtype="float64", intersect=False)
    both = bf.bound(graph, region, method="crown-ibp", executor="torch", dtype="float64")

    assert np.all(np.isfinite(alone.lower)) and np.all(np.isfinite(alone.upper))
    assert np.all(both.lower >= ibp.lower) and np.all(both.upper <= ibp.upper)
    assert np.mean(both.upper - both.lower) < 0.75 * np.mean(ibp.upper - ibp.lower)
    x = centre[:, None] + eps * rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], size=(2, 50, *shape))
    y = evaluate_graph(graph, x.reshape(-1, *shape)).reshape(2, 50, *both.lower.shape[1:])
    slack = 1e-9 * (1.0 + np.abs(y))
    assert np.all(y >= alone.lower[:, None] - slack) and np.all(y <= alone.upper[:, None] + slack)
