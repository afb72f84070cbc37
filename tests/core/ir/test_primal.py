from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boundflow_core.ir.primal import canonical, same_graph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.verify import verify_graph


def graph(weight=1.0, exponent=3.0, op="relu", name="n", shape=(3,), swap=False, condition=True):
    g = PrimalBuilder("net", f"input_{name}", shape)
    with g.at(name):
        c = np.full((2, shape[-1]), weight)
        y = g.op("linear", g.input, c, np.arange(2.0))
        one, two = g.op(op, y), g.op("pow", y, exponent=exponent)
        z = g.op("add", *((two, one) if swap else (one, two)))
        return g.finish(g.op("where", np.array([condition, False]), z, np.zeros(2)))


def test_names_do_not_matter():
    assert same_graph(graph(), graph(name="other"))
    text = str(canonical(graph(name="other"))).replace("other", "n")
    assert text == str(canonical(graph())) and "%v1" in text and "%c1" in text
    verify_graph(canonical(graph()))


def test_order_of_independent_nodes_does_not_matter():
    one = graph()
    a, b, c, *rest = one.nodes
    assert same_graph(one, replace(one, nodes=(a, c, b, *rest)))


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": 1.001},
        {"exponent": 4.0},
        {"op": "exp"},
        {"shape": (4,)},
        {"shape": (1, 3)},
        {"swap": True},
        {"condition": False},
    ],
)
def test_each_difference_is_seen(changes):
    assert not same_graph(graph(), graph(**changes)) and not same_graph(graph(**changes), graph())


def test_constants_may_differ_by_a_tolerance():
    assert same_graph(graph(), graph(weight=1.001), rtol=1e-2)
    assert not same_graph(graph(), graph(weight=1.001), rtol=1e-4)


def test_canonical_drops_dead_nodes():
    one = graph()
    first = replace(one, output=one.nodes[0].output)
    assert [node.op for node in canonical(first).nodes] == ["linear"] and len(canonical(first).constants) == 2


def test_questions_to_a_graph():
    one = graph()
    linear, relu, power, *_ = one.nodes
    assert one.users(linear.output) == (relu, power) and one.users(one.output) == ()
    assert one.producer(linear.output) is linear and one.producer(one.input) is None
    assert dict(one.operators()) == {"linear": 1, "relu": 1, "pow": 1, "add": 1, "where": 1}
    assert one.parameter_count() == 6 + 2 + 2
