"""Networks through the public functions: sound, tighter than intervals, the same on every executor, in batches."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import boundflow_core as bf
from boundflow_core.errors import OptionError
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.plugins import registry

FOLDER = Path(__file__).resolve().parents[4] / "shared" / "benchmarks"
NETWORKS = [
    "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx",
    "mnist_fc/onnx/mnist-net_256x2.onnx",
    "eran_sigmoid/onnx/ffnnSIGMOID__Point_6x200.onnx",
    "cifar10_resnet/onnx/resnet_2b.onnx",
]
EXECUTORS = [name for name, executor in registry().executors.items() if executor.unavailable() is None]
METHODS = [
    "zonotope",
    pytest.param(
        "zonotope-crown",
        marks=pytest.mark.skipif("crown" not in registry().methods, reason="boundflow-crown is not installed"),
    ),
]


def residual(seed: int = 0) -> PrimalGraph:
    """x + tanh(W relu(V x)), a product of two values, and a last layer."""
    rng = np.random.default_rng(seed)
    g = PrimalBuilder("residual", "x", (5,))
    y = g.op("relu", g.op("linear", g.input, rng.normal(size=(6, 5)), rng.normal(size=6)))
    y = g.op("add", g.input, g.op("tanh", g.op("linear", y, rng.normal(size=(5, 6)))))
    y = g.op("mul", y, g.op("sigmoid", y))
    return g.finish(g.op("linear", y, rng.normal(size=(3, 5)), rng.normal(size=3)))


def boxes(graph: PrimalGraph, count: int, eps: float) -> bf.Box:
    center = np.random.default_rng(1).random((count, *graph.input_type.shape))
    return bf.Box(center - eps, center + eps)


def check_sound(graph: PrimalGraph, region: bf.Box, found: bf.Bounds) -> None:
    rng = np.random.default_rng(2)
    lower, upper = (np.asarray(end, float) for end in (found.lower, found.upper))
    assert np.isfinite(lower).all() and np.isfinite(upper).all()
    slack = 1e-9 * (1 + np.abs(lower) + np.abs(upper))
    for turn in range(40):
        share = rng.random(np.shape(region.lower)).round(turn % 2)
        outputs = evaluate_graph(graph, region.lower + share * (region.upper - region.lower))
        assert (outputs >= lower - slack).all() and (outputs <= upper + slack).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_batches_on_executors(method: str, executor: str) -> None:
    graph = residual()
    region = boxes(graph, 5, 0.1)
    together = bf.bound(graph, region, method=method, executor=executor, dtype="float64")
    check_sound(graph, region, together)
    reference = bf.bound(graph, region, method=method, executor="reference", dtype="float64")
    np.testing.assert_allclose(together.lower, reference.lower, rtol=1e-9, atol=1e-9)
    for i in range(5):
        one = bf.Box(region.lower[i : i + 1], region.upper[i : i + 1])
        alone = bf.bound(graph, one, method=method, executor=executor, dtype="float64")
        np.testing.assert_allclose(alone.upper, together.upper[i : i + 1], rtol=1e-9, atol=1e-9)


def test_what_depends_on_one_value_cancels_out() -> None:
    """x + V relu(x) - (x + V relu(x)) is zero, which intervals do not know."""
    rng = np.random.default_rng(3)
    g = PrimalBuilder("difference", "x", (4,))
    y = g.op("add", g.input, g.op("linear", g.op("relu", g.input), rng.normal(size=(4, 4))))
    graph = g.finish(g.op("add", y, g.op("mul", y, g.scalar(-1.0))))
    found = bf.bound(graph, boxes(graph, 2, 0.5), method="zonotope", executor="reference", dtype="float64")
    np.testing.assert_allclose([found.lower, found.upper], 0.0, atol=1e-12)


def test_fewer_generators_are_looser_and_take_less_memory() -> None:
    graph = residual()
    region = boxes(graph, 2, 0.3)
    widths, peaks = [], []
    for order in (0, 5, 4096):
        run = bf.compile(graph, method="zonotope", order=order, executor="reference", dtype="float64")
        found = run(region)
        check_sound(graph, region, found)
        widths.append(float((found.upper - found.lower).sum()))
        peaks.append(run.plan.storage.peak_bytes)
    assert widths[0] > widths[1] > widths[2] and peaks[0] < peaks[2]
    with pytest.raises(OptionError, match="order"):
        bf.bound(graph, region, method="zonotope", order=-1, executor="reference")


def test_the_backward_pass_names_what_is_missing() -> None:
    if "crown" in registry().methods:
        pytest.skip("boundflow-crown is installed")
    with pytest.raises(LookupError, match="pip install boundflow-"):
        bf.bound(residual(), boxes(residual(), 1, 0.1), method="zonotope-crown", executor="reference")


@pytest.mark.parametrize("network", NETWORKS)
def test_tighter_than_intervals(network: str) -> None:
    if not (FOLDER / network).exists() or "onnx" not in registry().frontends or "ibp" not in registry().methods:
        pytest.skip("no benchmarks, or boundflow-onnx or boundflow-interval is not installed")
    with (FOLDER / "instances.csv").open(newline="") as stream:
        rules = next(row["path_to_vnnlib"] for row in csv.DictReader(stream) if row["path_to_onnx"] == network)
    graph = bf.load(FOLDER / network)
    lower, upper = (end[:1].reshape(1, *graph.input_type.shape) for end in bf.read_property(FOLDER / rules).boxes())
    middle, width = (lower + upper) / 2, upper - lower
    region = bf.Box(middle - 0.05 * width, middle + 0.05 * width)  # a tenth of the property's, where both say something
    found, loose = (
        bf.bound(graph, region, method=method, executor="reference", dtype="float64") for method in ("zonotope", "ibp")
    )
    check_sound(graph, region, found)
    slack = 1e-9 * (1 + np.abs(loose.upper) + np.abs(loose.lower))
    assert (found.lower >= loose.lower - slack).all() and (found.upper <= loose.upper + slack).all()
    assert (found.upper - found.lower).mean() < 0.5 * (loose.upper - loose.lower).mean()
