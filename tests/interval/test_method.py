"""The method ibp as a plugin and as a program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from boundflow_core.errors import UnsupportedOpError
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.plugins import registry
from boundflow_core.walk import forward_states
from boundflow_interval import COMPOSITES, IBP, INTERVAL, Interval

Array = NDArray[Any]
Ibp = Callable[..., tuple[Array, Array]]


def test_plugin_registers_domain_method_and_composites() -> None:
    assert set(registry().domain("interval").rules) >= set(INTERVAL.rules)
    assert registry().method("ibp") is IBP
    assert {name: registry().composite(name) for name in (c.name for c in COMPOSITES)} == {
        c.name: c for c in COMPOSITES
    }


def test_importing_the_plugin_is_light() -> None:
    heavy = {"torch", "onnx", "tvm", "hypothesis"}
    code = f"import sys, boundflow_interval.plugin; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def _residual() -> PrimalGraph:
    """A network of convolutions, a skip connection, pooling and attention-like products."""
    rng = np.random.default_rng(0)
    same = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    pool = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    g = PrimalBuilder("residual", "x", (2, 6, 6))
    first = g.op("relu", g.op("conv2d", g.input, rng.normal(size=(3, 2, 3, 3)) / 4, rng.normal(size=3), **same))
    second = g.op("conv2d", first, rng.normal(size=(3, 3, 3, 3)) / 5, **same)
    tokens = g.op("reshape", g.op("max_pool2d", g.op("relu", g.add(first, second)), **pool), shape=(3, 9))
    scores = g.op("softmax", g.op("matmul", tokens, g.op("permute", tokens, axes=(1, 0))), axis=1)
    mixed = g.op("gelu", g.op("matmul", scores, tokens), approximate="none")
    return g.finish(g.op("linear", g.op("reshape", mixed, shape=(27,)), rng.normal(size=(4, 27)), rng.normal(size=4)))


@pytest.mark.parametrize("eps", [0.0, 0.001, 0.05, 1.0])
def test_sampled_points_lie_within_the_bounds(eps: float, ibp: Ibp) -> None:
    graph, rng = _residual(), np.random.default_rng(1)
    x = rng.normal(size=(3, 2, 6, 6))
    lower, upper = ibp(graph, x - eps, x + eps)
    assert np.isfinite(lower).all() and np.isfinite(upper).all() and (lower <= upper).all()
    for _ in range(100):
        outputs = evaluate_graph(graph, x + eps * rng.uniform(-1, 1, x.shape).round(rng.integers(0, 2)))
        assert (lower <= outputs + 1e-10).all() and (outputs <= upper + 1e-10).all()


def test_a_point_gives_its_image(ibp: Ibp) -> None:
    x = np.random.default_rng(2).normal(size=(3, 2, 6, 6))
    for bound in ibp(_residual(), x, x):
        np.testing.assert_allclose(bound, evaluate_graph(_residual(), x), rtol=1e-11)


def test_regions_in_a_batch_have_the_bounds_that_they_have_alone(ibp: Ibp) -> None:
    x = np.random.default_rng(3).normal(size=(4, 2, 6, 6))
    eps = np.array([0.0, 0.01, 0.3, 5.0]).reshape(4, 1, 1, 1)
    batch = ibp(_residual(), x - eps, x + eps)
    for i in range(4):
        one = slice(i, i + 1)
        alone = ibp(_residual(), (x - eps)[one], (x + eps)[one])
        np.testing.assert_allclose((batch[0][one], batch[1][one]), alone, rtol=1e-11)


def test_operator_without_a_rule_is_named() -> None:
    g = PrimalBuilder("net", "x", (3,))
    with g.at("/head/Foo_1"):
        graph = g.finish(g.op(replace(PRIMAL_OPS["relu"], name="foo"), g.input))
    b = Builder()
    x = b.input("x", (1, 3))
    with pytest.raises(
        UnsupportedOpError, match=r"'foo' at node '/head/Foo_1' .*'interval'.*boundflow_register_op_rules"
    ):
        forward_states(b, graph, INTERVAL.rules, Interval(x, x), domain="interval")


def test_operations_carry_the_node_that_they_were_written_for() -> None:
    g = PrimalBuilder("net", "x", (3,))
    with g.at("/act"):
        graph = g.finish(g.op("tanh", g.input))
    b = Builder()
    lower, upper = b.input("l", (1, 3)), b.input("u", (1, 3))
    state = forward_states(b, graph, INTERVAL.rules, Interval(lower, upper), domain="interval")[graph.output]
    assert {op.origin for op in b.finish({"l": state.lower, "u": state.upper}).ops} == {"/act"}
