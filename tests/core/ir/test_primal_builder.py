from __future__ import annotations

import numpy as np
import pytest

from boundflow_core.errors import IRError, LoadError
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.constants import frozen, live
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.verify import verify_graph


class Parameter:
    def __init__(self, values):
        self.values = np.array(values, dtype=np.float32)
        self.dtype, self.shape = self.values.dtype, self.values.shape

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.values


def builder(shape=(2, 3)):
    return PrimalBuilder("net", "x", shape)


def test_operators_on_frozen_constants_are_computed_now():
    g = builder()
    c = g.op("add", np.float32([1, 2]), np.float32([[3], [4]]))
    assert not c.is_live and c.numpy().tolist() == [[4, 5], [5, 6]] and not g.nodes_by_output


def test_layout_of_constants_keeps_the_type_and_arithmetic_is_in_float64():
    g = builder()
    assert g.op("reshape", np.float32([1, 2]), shape=(2, 1)).numpy().dtype == np.float32
    assert g.op("exp", np.float32([1, 2])).numpy().dtype == np.float64
    assert g.op("gather", np.array([5, 6, 7]), np.array([2, 0]), axis=0).numpy().tolist() == [7, 5]


def test_operators_on_live_constants_are_remembered():
    g, weight = builder(), Parameter([1, 2])
    c = g.op("mul", g.op("reshape", live(weight), shape=(2, 1)), np.array([10.0]))
    assert c.is_live and c.shape == (2, 1) and c.sources()[0].data is weight
    assert c.numpy().tolist() == [[10], [20]]
    weight.values[:] = 5
    assert c.numpy().tolist() == [[50], [50]] and c.numpy().dtype == c.type.dtype.numpy
    assert g.op("reshape", live(weight), shape=(2, 1)).numpy().dtype == np.float64


def test_folding_to_what_is_not_finite_names_the_node():
    g = builder()
    with g.at("div_1"), pytest.raises(LoadError, match=r"reciprocal at node 'div_1'.*not finite"):
        g.op("reciprocal", np.zeros(2))


@pytest.mark.parametrize("op, other", [("add", (3,)), ("add", (4, 1, 1)), ("mul", (1, 1, 1, 3)), ("add", ())])
def test_constants_broadcast_as_in_numpy(op, other):
    g = builder()
    c = np.random.default_rng(0).normal(size=other)
    y = g.op(op, c, g.input)
    x = np.random.default_rng(1).normal(size=(5, 2, 3))
    expected = np.stack([(np.add if op == "add" else np.multiply)(c, sample) for sample in x])
    assert y.shape == expected.shape[1:]
    np.testing.assert_allclose(evaluate_graph(verify_graph(g.finish(y)), x), expected)


def test_tensors_of_unequal_ranks_are_aligned():
    g = builder()
    y = g.op("add", g.op("reduce_max", g.input, axes=(0,), keepdims=False), g.input)
    graph = verify_graph(g.finish(y))
    x = np.random.default_rng(1).normal(size=(5, 2, 3))
    np.testing.assert_allclose(evaluate_graph(graph, x), x + x.max(axis=1, keepdims=True))


def test_products_of_tensors_of_unequal_ranks_do_not_mix_regions():
    g = builder((4, 2, 2))
    y = g.op("matmul", g.op("reduce_max", g.input, axes=(0,), keepdims=False), g.input)
    x = np.random.default_rng(1).normal(size=(4, 4, 2, 2))
    expected = np.stack([sample.max(axis=0) @ sample for sample in x])
    np.testing.assert_allclose(evaluate_graph(verify_graph(g.finish(y)), x), expected)


def test_names_are_unique_and_tell_the_source():
    g = builder()
    with g.at("block"):
        y = g.op("relu", g.op("exp", g.input))
    with g.at("x"):
        y = g.op("add", y, np.ones(3))
    nodes = verify_graph(g.finish(y)).nodes
    assert [n.name for n in nodes] == ["block", "block.1", "x"]
    assert [n.output for n in nodes] == ["block", "block.1", "x.1"]


def test_one_constant_has_one_name_and_vanished_ones_share_none():
    g, c = builder(), frozen(np.ones(3))
    y = g.op("add", g.op("add", g.input, c), c)
    for i in range(50):
        y = g.op("add", y, np.full(3, float(i)))  # each Constant would die at once
    graph = g.finish(y)
    assert len(graph.constants) == 51
    np.testing.assert_allclose(evaluate_graph(graph, np.zeros((1, 2, 3))), 2 + sum(range(50)))


@pytest.mark.parametrize(
    "write, match",
    [
        (lambda g: g.op("nonsense", g.input), "no operator 'nonsense'"),
        (lambda g: g.op("add", g.input), "add at node 'here' takes"),
        (lambda g: g.op("add", g.input, np.ones(4)), "add at node 'here'.*do not broadcast"),
        (lambda g: g.op("clip", g.input, min=float("nan"), max=1.0), "clip at node 'here'.*NaN"),
        (lambda g: g.op("clip", g.input, min=2.0, max=1.0), "nothing lies between"),
        (lambda g: g.op("linear", g.input, g.input), "linear at node 'here'"),
        (lambda g: g.finish(frozen(1.0)), "does not depend on its input"),
    ],
)
def test_errors_name_operator_and_node(write, match):
    g = builder()
    with g.at("here"), pytest.raises(IRError, match=match):
        write(g)


def test_arithmetic_without_an_operator_of_its_own():
    g = builder((2,))
    y = g.op("concat", g.neg(g.input), g.sub(g.input, frozen([1.0, 1.0])), g.div(frozen(1.0), g.input), axis=0)
    assert evaluate_graph(g.finish(y), np.array([[2.0, 4.0]])).tolist() == [[-2, -4, 1, 3, 0.5, 0.25]]
