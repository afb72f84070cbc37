from __future__ import annotations

import numpy as np
import pytest

from boundflow_core.errors import UnsupportedOpError
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.primal_ops import PRIMAL_OPS, PrimalOp
from boundflow_core.ir.verify import verify_graph
from boundflow_core.normalize import legalize, unsupported


def graph_of(op, **attributes):
    g = PrimalBuilder("net", "x", (3,))
    with g.at("the_node"):
        return g.finish(g.op(op, g.input, **attributes))


def test_operators_with_a_rule_stay_even_where_they_could_be_written_out():
    graph = graph_of("softmax", axis=0)
    assert legalize(graph, {"softmax"}, "domain 'd'") is graph


def test_others_are_written_out_again_and_again():
    halves = PrimalOp(
        "halves", ("x",), "", PRIMAL_OPS["softmax"].emit, decompose=lambda g, a, x: g.op("softmax", x, **a)
    )
    graph = graph_of(halves, axis=0)
    legal = verify_graph(legalize(graph, {"exp", "reduce_sum", "mul", "reciprocal"}, "d"))
    assert [node.op for node in legal.nodes] == ["exp", "reduce_sum", "reciprocal", "mul"]
    x = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(evaluate_graph(legal, x), evaluate_graph(graph, x))


def test_an_operator_without_rule_and_decomposition_is_named():
    graph = graph_of("tanh")
    assert [node.op for node in unsupported(graph, {"relu"})] == ["tanh"]
    with pytest.raises(
        UnsupportedOpError, match=r"'tanh' at node 'the_node'.*domain 'd'.*boundflow_register_op_rules"
    ) as e:
        legalize(graph, {"relu"}, "domain 'd'")
    assert (e.value.op, e.value.node, e.value.where) == ("tanh", "the_node", "domain 'd'")


def test_parts_without_a_rule_are_named_too():
    with pytest.raises(UnsupportedOpError, match="'exp' at node 'the_node'"):
        legalize(graph_of("softmax", axis=0), {"mul", "reciprocal", "reduce_sum"}, "d")


def test_decompositions_that_never_end():
    endless = PrimalOp("endless", ("x",), "", PRIMAL_OPS["exp"].emit)
    object.__setattr__(endless, "decompose", lambda g, a, x: g.op(endless, x))
    g = PrimalBuilder("net", "x", (3,))
    graph = g.finish(g.op(endless, g.op("exp", g.input)))
    with pytest.raises(UnsupportedOpError, match=r"'endless'.*never end"):
        legalize(graph, {"exp"}, "d")
