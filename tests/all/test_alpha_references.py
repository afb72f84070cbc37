"""Bounds of alpha-crown on benchmark networks against recorded ones, where the folders are present."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import boundflow_core as bf

FILES = {
    "mnist_fc4": "mnist_fc/onnx/mnist-net_256x4.onnx",
    "oval_base": "oval21/onnx/cifar_base_kw.onnx",
    "acas_1_1": "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx",
}


@pytest.mark.parametrize("name", FILES)
def test_reaches_recorded_values(shared_dir: Path, name: str) -> None:
    """Or misses them by at most a thousandth of their distance from crown's; never below crown's own."""
    with np.load(shared_dir / "references" / f"{name}.npz") as file:
        recorded = dict(file)
    graph = bf.load(shared_dir / "benchmarks" / FILES[name])
    box, rows = bf.Box(recorded["x_L"], recorded["x_U"]), bf.LinearSpec(recorded["C"])
    options = {"executor": "torch", "dtype": "float64", "intersect": False, "side": "lower", "cache": False}
    ours, crown = (
        bf.bound(graph, box, spec=rows, method=method, **options).lower for method in ("alpha-crown", "crown")
    )
    theirs, start = recorded["alpha20_fixinterm.f64.lb"], recorded["CROWN.f64.lb"]
    rounding = 1e-9 * np.abs(theirs).max()
    gap = theirs - start
    assert gap.max() > 1e3 * rounding, "there is something to reach"
    assert (ours >= crown).all()
    assert (ours >= theirs - 1e-3 * gap - rounding).all()


@pytest.mark.parametrize("name", ["oval_base", "acas_1_1"])
def test_optimised_inside_it_comes_near_recorded_values(shared_dir: Path, name: str) -> None:
    """Above what fixed bounds inside gave; a hundredth of the way from crown to the recorded values may be missing."""
    with np.load(shared_dir / "references" / f"{name}.npz") as file:
        recorded = dict(file)
    graph = bf.load(shared_dir / "benchmarks" / FILES[name])
    box, rows = bf.Box(recorded["x_L"], recorded["x_U"]), bf.LinearSpec(recorded["C"])
    options = {"executor": "torch", "dtype": "float64", "intersect": False, "side": "lower", "cache": False}
    ours = bf.bound(graph, box, spec=rows, method="alpha-crown", intermediate="optimized", **options).lower
    theirs, fixed = recorded["alpha20.f64.lb"], recorded["alpha20_fixinterm.f64.lb"]
    assert (ours >= fixed - 1e-9).all()
    assert (ours - theirs).mean() >= -1e-2 * (theirs - recorded["CROWN.f64.lb"]).mean()
