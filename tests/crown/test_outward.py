"""Bounds rounded outwards hold in exact arithmetic, where computed ones do not."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from crown_networks import residual, sigmoid_softmax, small_mlp, tanh_net

import boundflow_core as bf
from boundflow_core.errors import OptionError
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.normalize import normalize

METHODS = ("ibp", "crown-ibp", "crown")

# Errors grow from layer to layer by the sizes of the weights, in crown-ibp with the widths of its intervals too.
HARDLY = 1e-10


def exact_value(graph, x):
    """The outputs of a network of linear and relu at the point ``x``, in fractions."""
    value = [Fraction(float(v)) for v in x]
    for node in graph.nodes:
        if node.op == "relu":
            value = [max(v, Fraction(0)) for v in value]
            continue
        assert node.op == "linear"
        weight, *bias = (graph.constants[name].numpy() for name in node.inputs[1:])
        shift = [Fraction(float(v)) for v in bias[0]] if bias else [Fraction(0)] * len(weight)
        rows = [sum(Fraction(float(w)) * v for w, v in zip(row, value, strict=True)) for row in weight]
        value = [row + start for row, start in zip(rows, shift, strict=True)]
    return value


@pytest.mark.parametrize("executor", ["reference", "torch"])
@pytest.mark.parametrize("method", METHODS)
def test_exact_values_of_points_lie_within(method, executor):
    if executor == "torch":
        pytest.importorskip("torch")
    lost = 0
    for seed in range(8):
        graph = small_mlp(seed)
        x = np.random.default_rng(seed).normal(size=(6, 5))
        options = {"method": method, "executor": executor, "dtype": "float64"}
        outward = bf.bound(graph, bf.Box(x, x), rounding="outward", **options)
        plain = bf.bound(graph, bf.Box(x, x), **options)
        for i, point in enumerate(x):
            for j, value in enumerate(exact_value(graph, point)):
                assert Fraction(float(outward.lower[i, j])) <= value <= Fraction(float(outward.upper[i, j]))
                lost += not Fraction(float(plain.lower[i, j])) <= value <= Fraction(float(plain.upper[i, j]))
        assert np.all(outward.upper - outward.lower < HARDLY)
    assert lost > 10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [small_mlp, residual])
def test_bounds_move_outwards_and_hardly(make, method):
    graph = make(3)
    x = np.random.default_rng(0).normal(size=(4, *graph.input_type.shape))
    region = bf.LpBall(x, 0.1)
    plain = bf.bound(graph, region, method=method, dtype="float64", executor="reference")
    outward = bf.bound(graph, region, method=method, dtype="float64", executor="reference", rounding="outward")
    for one, other in ((outward.lower, plain.lower), (plain.upper, outward.upper)):
        assert np.all(one < other) and np.all(other - one < HARDLY)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [sigmoid_softmax, tanh_net])
def test_curves_move_outwards_and_hardly(make, method):
    """Relaxations that search for slopes and tangent points: these are free choices."""
    graph = make()
    x = np.random.default_rng(0).normal(size=(4, 5))
    radius = np.array([0.0, 1e-9, 0.05, 0.3])[:, None]
    region = bf.Box(x - radius, x + radius)
    plain = bf.bound(graph, region, method=method, dtype="float64", executor="reference")
    outward = bf.bound(graph, region, method=method, dtype="float64", executor="reference", rounding="outward")
    for one, other in ((outward.lower, plain.lower), (plain.upper, outward.upper)):
        assert np.all(one < other) and np.all(other - one < HARDLY)


def test_what_cannot_be_said_is_infinite_and_never_wrong():
    """Lines above waves are found by comparing numbers that rounding may change."""
    graph = small_mlp(0, "sin")
    x = np.random.default_rng(0).normal(size=(4, 5))
    plain = bf.bound(graph, bf.LpBall(x, 0.1), method="crown", dtype="float64")
    outward = bf.bound(graph, bf.LpBall(x, 0.1), method="crown", dtype="float64", rounding="outward")
    assert np.all(outward.lower < plain.lower) and np.all(outward.upper > plain.upper)


def test_wrong_requests_are_refused():
    graph = small_mlp()
    with pytest.raises(OptionError, match="float64"):
        bf.compile(graph, method="crown", rounding="outward")
    with pytest.raises(OptionError, match="'nearest' or 'outward'"):
        bf.compile(graph, method="crown", dtype="float64", rounding="up")
    with pytest.raises(OptionError, match="alpha-crown"):
        bf.compile(graph, method="alpha-crown", dtype="float64", rounding="outward")


def lattice(depth):
    """The least of many values, pair by pair; some are pairs of a value and itself, so that neurons are at 0."""
    numbers = np.random.default_rng(3)
    width = 2**depth
    g = PrimalBuilder("lattice", "x", (2,))
    y = g.op("linear", g.input, numbers.normal(size=(4, 2)), numbers.normal(size=4))
    y = g.op("linear", y, np.eye(4)[[0, 0, 1, 1, *numbers.integers(0, 4, width - 4)]])
    while width > 1:
        one, other = np.eye(width)[0::2], np.eye(width)[1::2]
        over = g.op("relu", g.op("linear", y, one - other))
        y = g.op("add", g.op("linear", y, one), g.op("mul", over, np.array(-1.0)))  # min(a, b) = a - relu(a - b)
        width //= 2
    return normalize(g.finish(y), batch_axis=False)


@pytest.mark.parametrize("method", ["crown-ibp", "crown"])
def test_neurons_at_zero_cost_nothing(method):
    """Their bounds are a rounding error to either side: which line lies below is a free choice, no error of rows."""
    x = np.random.default_rng(1).normal(size=(5, 2))
    options = {"method": method, "executor": "reference", "dtype": "float64"}
    region = bf.Box(x - 1e-3, x + 1e-3)
    outward = bf.bound(lattice(5), region, rounding="outward", **options)
    plain = bf.bound(lattice(5), region, **options)
    np.testing.assert_allclose(outward.lower, plain.lower, atol=1e-9)
    np.testing.assert_allclose(outward.upper, plain.upper, atol=1e-9)
    assert (outward.lower <= plain.lower).all() and (outward.upper >= plain.upper).all()
