"""Bounds of the CROWN family against recorded ones of auto_LiRPA, where the folder of references is present."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crown_networks import cnn_rand, mlp_rand, relu_inputs
from numpy.typing import NDArray

import boundflow_core as bf
from boundflow_core.ir.primal import PrimalGraph

Array = NDArray[Any]
BUILDERS = {"mlp_rand": mlp_rand, "cnn_rand": cnn_rand}
OPTIONS = {
    "CROWN_dense": {"refine": "all"},
    "CROWN_same-slope": {"slope": "same"},
    "CROWN_zero-lb": {"slope": "zero"},
    "CROWN_one-lb": {"slope": "one"},
}
BITS = {"float64": "f64", "float32": "f32"}

names = pytest.mark.parametrize("name", BUILDERS)


@pytest.fixture(scope="module")
def references(shared_dir: Path) -> dict[str, tuple[PrimalGraph, Mapping[str, Array]]]:
    found = {}
    for name, build in BUILDERS.items():
        with np.load(shared_dir / "references" / f"{name}.npz") as file:
            arrays = dict(file)
        found[name] = build(arrays), arrays
    return found


def run(
    graph: PrimalGraph, arrays: Mapping[str, Array], method: str, dtype: str = "float64", **options: Any
) -> bf.Bounds:
    """Bounds of both inputs; nothing is shared between the regions of a batch."""
    kind = np.dtype(dtype)
    box = bf.Box(arrays["x_L"].astype(kind), arrays["x_U"].astype(kind))
    rows = bf.LinearSpec(arrays["C"].astype(kind))
    return bf.bound(graph, box, spec=rows, method=method, dtype=dtype, executor="reference", **options)


def close(found: Array, expected: Array, tolerance: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@names
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4)])
def test_crown_ibp(references: Any, name: str, dtype: str, tolerance: float) -> None:
    graph, arrays = references[name]
    found = run(graph, arrays, "crown-ibp", dtype, intersect=False)
    close(found.lower, arrays[f"CROWN-IBP.{BITS[dtype]}.lb"], tolerance)
    close(found.upper, arrays[f"CROWN-IBP.{BITS[dtype]}.ub"], tolerance)


@names
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4)])
def test_crown_one_input_at_a_time(references: Any, name: str, dtype: str, tolerance: float) -> None:
    """Ours take both inputs at once and give what the other gives each of them alone."""
    graph, arrays = references[name]
    found = run(graph, arrays, "crown", dtype, intersect=False)
    close(found.lower, arrays["CROWN_batch1.f64.lb"], tolerance)


@names
def test_intermediate_bounds(references: Any, name: str) -> None:
    """Equal wherever a relaxation uses them, which is where both bounds straddle zero.

    The recorded run has also refined neurons that are decided in one of its two inputs and not in the other.
    """
    graph, arrays = references[name]
    found = run(graph, arrays, "crown", intersect=False)
    assert set(relu_inputs(graph)) == set(found.intermediate)
    for number, value in enumerate(relu_inputs(graph)):
        low, high = (arrays[f"CROWN.f64.relu{number}.{side}"] for side in "lu")
        lower, upper = found.intermediate[value]
        straddles = (low < 0) & (high > 0)
        np.testing.assert_array_equal(straddles, (lower < 0) & (upper > 0))
        assert straddles.any() and not straddles.all()
        close(lower[straddles], low[straddles], 1e-6)
        close(upper[straddles], high[straddles], 1e-6)


@names
@pytest.mark.parametrize("tag", OPTIONS)
def test_slopes_and_the_dense_variant(references: Any, name: str, tag: str) -> None:
    """The slopes were recorded for both inputs together: here no bound hangs on what the other input had refined."""
    graph, arrays = references[name]
    found = run(graph, arrays, "crown", intersect=False, **OPTIONS[tag])
    close(found.lower, arrays[f"{tag}.f64.lb"], 1e-6)
    close(found.upper, arrays[f"{tag}.f64.ub"], 1e-6)


@names
@pytest.mark.parametrize("method", ["crown-ibp", "crown"])
def test_with_intersection_never_looser_than_recorded(references: Any, name: str, method: str) -> None:
    graph, arrays = references[name]
    found = run(graph, arrays, method)
    expected = {"crown-ibp": arrays["CROWN-IBP.f64.lb"], "crown": arrays["CROWN_batch1.f64.lb"]}[method]
    assert (found.lower >= np.maximum(expected, arrays["IBP.f64.lb"]) - 1e-9 * np.abs(expected).max()).all()
    assert (found.lower <= found.upper).all()
