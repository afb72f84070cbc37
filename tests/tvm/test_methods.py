"""Whole methods on compiled kernels, against the reference executor."""

from __future__ import annotations

import numpy as np
import pytest
from crown_networks import small_mlp
from tvm_networks import GRAPHS, check_close, region_of

import boundflow_core as bf
from boundflow_core.errors import OptionError


def compare(graph, method, dtype, batches=(1, 3), rows=None, **options):
    runs = {
        executor: bf.compile(graph, method=method, executor=executor, dtype=dtype, cache=False, **options)
        for executor in ("reference", "tvm")
    }
    outputs = int(np.prod(graph.output_type.shape))
    spec = None if rows is None else bf.LinearSpec(np.random.default_rng(5).standard_normal((rows, outputs)))
    for batch in batches:
        region = region_of(graph, batch, batch)
        want, got = (run(region, spec) for run in runs.values())
        check_close((got.lower, got.upper), (want.lower, want.upper), dtype)
    return runs["tvm"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_interval_bounds_equal_the_reference(graph, dtype):
    compare(GRAPHS[graph](), "ibp", dtype, rows=2)
    compare(GRAPHS[graph](), "ibp", dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", ["crown-ibp", "crown"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_linear_bounds_equal_the_reference(graph, method, dtype):
    compare(GRAPHS[graph](), method, dtype, batches=(1, 1, 3), rows=2)  # the second time crown is one program


# What rows go through, where a template leaves it to generated code: ten times as slow for convolutions.
LEFT = {"relu_backsubstitute", "backsubstitute", "conv2d_input_grad", "concretize_box"}


@pytest.mark.parametrize("graph", ["cnn", "residual"])
@pytest.mark.parametrize("method", ["crown-ibp", "crown", "alpha-crown"])
def test_rows_go_through_one_operation(method, graph):
    """Whatever operations a method writes for its walks back, the reading of rows must know them."""
    options = {"iterations": 2} if method == "alpha-crown" else {}
    run = compare(GRAPHS[graph](), method, "float32", batches=(1, 1), rows=2, **options)
    names = [entry.op.name for part in run.plan.lowering.entries.values() for entry in part]
    assert "row_program" in names
    # Slopes of alpha-crown are asked for at the relu before the last layer, which stays by itself.
    allowed = {"relu_backsubstitute"} if method == "alpha-crown" else set()
    assert LEFT & set(names) <= allowed
    if method == "crown":
        assert {"running_count", "first_reaching"} <= set(names)


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["mlp", "cnn"])
def test_optimised_bounds_equal_the_reference(graph):
    compare(GRAPHS[graph](), "alpha-crown", "float64", batches=(2,), rows=2, iterations=3)


def test_sizes_do_not_compile_anew_and_strategies_are_shown():
    run = compare(small_mlp(3), "ibp", "float64", batches=(1, 2, 5, 17))
    assert run.stats.kernels["compiled"] + run.stats.kernels["loaded"] <= 1 and run.stats.kernels["hits"] >= 3
    assert set(run.stats.lowering) <= {"tvm", "call_tir", "blas"} and run.stats.lowering["call_tir"] > 0
    reasons = {entry.lowering.reason for part in run.plan.lowering.entries.values() for entry in part}
    assert any("call_tir is estimated" in reason for reason in reasons)


def test_what_needs_exact_rounding_or_gradients_is_refused():
    for options in ({"rounding": "outward", "dtype": "float64"}, {"differentiable": True}):
        with pytest.raises(OptionError, match="tvm"):
            bf.compile(small_mlp(1), method="ibp", executor="tvm", **options)


def test_torch_tensors_come_back_as_torch_tensors():
    torch = pytest.importorskip("torch")
    graph = small_mlp(1)
    region = region_of(graph, 2, 0)
    as_torch = bf.Box(torch.from_numpy(np.asarray(region.lower)), torch.from_numpy(np.asarray(region.upper)))
    run = bf.compile(graph, method="ibp", executor="tvm", dtype="float64")
    assert isinstance(run(as_torch).lower, torch.Tensor)
    np.testing.assert_array_equal(run(as_torch).lower.numpy(), run(region).lower)
