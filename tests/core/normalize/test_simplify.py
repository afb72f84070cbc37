"""Each rule of simplification: what it makes, where it must not fire, and that the function stays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.constants import live
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.verify import verify_graph
from boundflow_core.normalize import simplify

RNG = np.random.default_rng(0)
CONV = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}


class Parameter:
    """A live constant's array that needs no torch."""

    def __init__(self, values):
        self.values = np.array(values, dtype=np.float32)
        self.dtype, self.shape = self.values.dtype, self.values.shape

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.values


def parameter(values):
    return live(Parameter(values))


def simplified(shape, write):
    """The graph after simplification, tested to be legal and to have the same function."""
    g = PrimalBuilder("g", "x", shape)
    graph = verify_graph(g.finish(write(g, g.input)))
    result = verify_graph(simplify(graph))
    x = RNG.normal(size=(4, *shape))
    assert result.output_type == graph.output_type
    np.testing.assert_allclose(evaluate_graph(result, x), evaluate_graph(graph, x), rtol=1e-12, atol=1e-12)
    return result


def ops(shape, write):
    return [node.op for node in simplified(shape, write).nodes]


def linear(g, x, bias=True):
    out = 3
    weight = RNG.normal(size=(out, x.shape[-1]))
    return g.op("linear", x, weight, *([RNG.normal(size=out)] if bias else []))


def conv(g, x, op="conv2d", groups=1, bias=True):
    c = x.shape[-3]
    if op == "conv2d":
        shape, more = (2 * groups, c // groups, 2, 2), {}
    else:
        shape, more = (c, 2, 2, 2), {"output_padding": (0, 0)}
    biases = [RNG.normal(size=2 * groups)] if bias else []
    return g.op(op, x, RNG.normal(size=shape), *biases, **{**CONV, "groups": groups}, **more)


@pytest.mark.parametrize(
    "write",
    [
        lambda g, x: g.op("reshape", x, shape=(2, 3)),
        lambda g, x: g.op("permute", x, axes=(0, 1)),
        lambda g, x: g.op("expand", x, shape=(2, 3)),
        lambda g, x: g.op("slice", x, starts=(0, 0), stops=(2, 3), steps=(1, 1)),
        lambda g, x: g.op("pad", x, low=(0, 0), high=(0, 0), value=1.0),
        lambda g, x: g.op("concat", x, axis=1),
        lambda g, x: g.op("reduce_sum", x, axes=(), keepdims=False),
        lambda g, x: g.op("add", x, np.zeros(3)),
        lambda g, x: g.op("add", np.zeros(()), x),
        lambda g, x: g.op("mul", x, np.ones((1, 1))),
        lambda g, x: g.op("clip", x, min=-math.inf, max=math.inf),
        lambda g, x: g.op("reshape", g.op("reshape", x, shape=(6,)), shape=(2, 3)),
        lambda g, x: g.op("permute", g.op("permute", x, axes=(1, 0)), axes=(1, 0)),
    ],
)
def test_what_changes_nothing_is_dropped(write):
    assert ops((2, 3), write) == []


@pytest.mark.parametrize(
    "write, expected",
    [
        (lambda g, x: g.op("reshape", g.op("reshape", x, shape=(6,)), shape=(3, 2)), ["reshape"]),
        (lambda g, x: g.op("mul", x, x), ["pow"]),
        (lambda g, x: g.op("clip", x, min=0.0, max=math.inf), ["relu"]),
        (lambda g, x: g.op("maximum", np.zeros(()), x), ["relu"]),
        (lambda g, x: g.op("maximum", x, np.zeros(3)), ["relu"]),
        (lambda g, x: g.add(g.add(x, np.ones(3)), np.ones((2, 1))), ["add"]),
        (lambda g, x: g.mul(g.mul(x, np.full(3, 2.0)), np.full((2, 1), 3.0)), ["mul"]),
        (lambda g, x: g.mul(g.add(linear(g, x), np.ones(3)), np.full(3, 2.0)), ["linear"]),
        (lambda g, x: g.add(linear(g, x, bias=False), np.ones(())), ["linear"]),
        (lambda g, x: g.add(np.ones((1, 3)), g.mul(np.full(1, 2.0), linear(g, x))), ["linear"]),
    ],
)
def test_what_can_be_written_shorter(write, expected):
    assert ops((2, 3), write) == expected


@pytest.mark.parametrize(
    "write, expected",
    [
        (lambda g, x: g.op("maximum", x, np.full(3, -1.0)), ["maximum"]),
        (lambda g, x: g.op("clip", x, min=0.0, max=1.0), ["clip"]),
        (lambda g, x: g.op("add", x, np.zeros((4, 1, 1))), ["reshape", "add"]),
        (lambda g, x: g.op("mul", x, np.ones((4, 1, 1))), ["reshape", "mul"]),
        (lambda g, x: g.op("maximum", x, np.zeros((4, 1, 1))), ["reshape", "maximum"]),
        (lambda g, x: g.add(x, np.array([0.0, 0.0, 1e-300])), ["add"]),
        (lambda g, x: g.add(linear(g, x), np.ones((2, 1)) * [[1.0], [2.0]]), ["linear", "add"]),
        (lambda g, x: g.mul(linear(g, x), np.array([[1.0], [2.0]])), ["linear", "mul"]),
        (lambda g, x: g.op("permute", x, axes=(1, 0)), ["permute"]),
        (lambda g, x: g.op("slice", x, starts=(0, 0), stops=(2, 2), steps=(1, 1)), ["slice"]),
    ],
)
def test_what_must_stay(write, expected):
    assert ops((2, 3), write) == expected


def test_permutations_of_units_are_reshapes():
    assert ops((1, 2, 3), lambda g, x: g.op("permute", x, axes=(1, 0, 2))) == ["reshape"]
    assert ops((1, 2, 3), lambda g, x: g.op("permute", x, axes=(2, 0, 1))) == ["permute"]


@pytest.mark.parametrize(
    "op, groups, folded",
    [("conv2d", 1, True), ("conv2d", 2, True), ("conv_transpose2d", 1, True), ("conv_transpose2d", 2, False)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_scales_and_shifts_of_channels_join_convolutions(op, groups, folded, bias):
    def write(g, x):
        y = conv(g, x, op, groups, bias)
        channels = y.shape[0]
        return g.add(g.mul(y, RNG.normal(size=(channels, 1, 1))), RNG.normal(size=(channels, 1, 1)))

    assert ops((2, 4, 4), write) == ([op] if folded else [op, "mul", "add"])


def test_scales_of_rows_do_not_join_convolutions():
    assert ops((2, 4, 4), lambda g, x: g.mul(conv(g, x), RNG.normal(size=(2, 3, 1)))) == ["conv2d", "mul"]


@pytest.mark.parametrize("op", ["add", "mul"])
def test_nothing_joins_a_value_that_others_read(op):
    def write(g, x):
        y = linear(g, x)
        return g.op("matmul", g.op(op, y, np.full(3, 2.0)), g.op("permute", y, axes=(1, 0)))

    assert ops((2, 3), write).count("linear") == 1
    assert ops((2, 3), write).count(op) == 1


def test_nor_one_that_others_read_through_what_is_dropped():
    def write(g, x):
        y = linear(g, x)
        return g.op("matmul", g.add(g.op("reshape", y, shape=y.shape), np.ones(3)), g.op("permute", y, axes=(1, 0)))

    assert ops((2, 3), write).count("linear") == 1


def test_constants_are_not_merged_through_a_value_that_others_read():
    def write(g, x):
        y = g.add(x, np.ones(3))
        return g.op("maximum", g.mul(y, y), g.add(y, np.full(3, 2.0)))

    assert sorted(ops((2, 3), write)) == ["add", "add", "maximum", "pow"]


@pytest.mark.parametrize("op, neutral", [("add", 0.0), ("mul", 1.0), ("maximum", 0.0)])
def test_live_constants_that_are_neutral_now_stay(op, neutral):
    assert ops((2, 3), lambda g, x: g.op(op, x, parameter([neutral] * 3))) == [op]


def test_live_weights_are_folded_as_derivations_that_follow_them():
    weight, scale = Parameter(RNG.normal(size=(3, 3))), Parameter(np.ones(3))
    g = PrimalBuilder("g", "x", (3,))
    y = g.mul(g.op("linear", g.input, live(weight)), live(scale))
    graph = verify_graph(simplify(g.finish(y)))
    assert [node.op for node in graph.nodes] == ["linear"]
    x = RNG.normal(size=(4, 3))
    np.testing.assert_allclose(evaluate_graph(graph, x), x @ weight.values.T)
    scale.values *= 3
    weight.values += 1
    np.testing.assert_allclose(evaluate_graph(graph, x), 3 * (x @ weight.values.astype(np.float64).T), rtol=1e-6)


def test_simplification_is_stable():
    result = simplified((2, 3), lambda g, x: g.add(g.mul(linear(g, x), np.full(3, 2.0)), np.ones(3)))
    assert str(simplify(result)) == str(result)
