"""Evaluation of graphs: every value against NumPy, points of another shape refused."""

from __future__ import annotations

import numpy as np
import pytest

from boundflow_core.errors import InputError
from boundflow_core.forward import evaluate_graph, forward_program
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.types import DType

WEIGHT = np.random.default_rng(0).normal(size=(4, 6))


def _net() -> PrimalGraph:
    g = PrimalBuilder("net", "x", (2, 3))
    with g.at("/fc"):
        y = g.op("linear", g.op("reshape", g.input, shape=(6,)), WEIGHT)
    with g.at("/act"):
        return g.finish(g.op("relu", y))


def test_a_batch_of_points_is_evaluated() -> None:
    x = np.random.default_rng(1).normal(size=(5, 2, 3))
    np.testing.assert_allclose(evaluate_graph(_net(), x), np.maximum(x.reshape(5, 6) @ WEIGHT.T, 0), rtol=1e-14)


def test_the_element_type_is_chosen() -> None:
    x = np.ones((1, 2, 3))
    assert evaluate_graph(_net(), x).dtype == np.float64
    assert evaluate_graph(_net(), x, DType.FLOAT32).dtype == np.float32


def test_operations_carry_their_node() -> None:
    assert {op.origin.split(".")[0] for op in forward_program(_net(), DType.FLOAT64).ops} == {"/fc", "/act"}


@pytest.mark.parametrize("shape", [(2, 3), (1, 3, 2), (6,), ()])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"net takes points of shape \[B, 2, 3\]"):
        evaluate_graph(_net(), np.zeros(shape))
