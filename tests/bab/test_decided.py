"""Subproblems without undecided neurons, and conjunctions as the network of their largest row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import least_margin, network, random_layers
from scipy.optimize import linprog

from boundflow_bab import Options, Verdict, verify
from boundflow_bab.decided import optimum
from boundflow_bab.largest import with_largest
from boundflow_bab.neurons import Neurons
from boundflow_bab.problem import Rows
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.property import Case, LinearConstraints, Property
from boundflow_crown import BetaCrown, Subproblems


@given(seed=st.integers(0, 2**20), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_one_row_for_each_conjunction_is_its_largest(seed, sizes):
    numbers = np.random.default_rng(seed)
    graph = network(random_layers(numbers, 2, (3,), 3))
    C, d = numbers.normal(size=(sum(sizes), 3)), numbers.normal(size=sum(sizes))
    rows = Rows(C, d, np.cumsum([0, *sizes[:-1]]))
    whole, single = with_largest(graph, rows)
    x = numbers.normal(size=(7, 2))
    want = rows.best(evaluate_graph(graph, x) @ C.T + d)
    np.testing.assert_allclose(evaluate_graph(whole, x) @ single.C.T + single.offset, want, atol=1e-9)
    assert single.groups == len(single.offset) == len(sizes)
    assert (whole is graph) == (max(sizes) == 1)


@pytest.mark.parametrize("seed", range(12))
def test_the_best_multipliers_reach_what_the_network_takes_where_it_is_linear(seed):
    """Against the linear program of the points that meet the assumptions, in terms of the input."""
    numbers = np.random.default_rng(seed)
    (W, b), (V, c) = layers = random_layers(numbers, 3, (4,), 1)
    graph, lower, upper = network(layers), -np.ones(3), np.ones(3)
    quick = BetaCrown(graph, "reference")
    (name,) = quick.values
    reach = np.abs(W).sum(axis=1)
    bounds = {name: ((b - reach)[None].astype(np.float32), (b + reach)[None].astype(np.float32))}
    neurons = Neurons.undecided(quick.values, bounds)
    signs = np.where(numbers.random(len(neurons)) < 0.5, -1, 1).astype(np.int8)
    gate = ((b - reach) >= 0).astype(float)
    gate[neurons.places[name]] = signs > 0
    problem = Subproblems(
        lower[None], upper[None], np.ones((1, 1, 1)), np.zeros((1, 1)), bounds,
        neurons.split(signs[None], neurons.nowhere(1)), {name: np.full(1, 0.5)},
        neurons.spread(np.zeros((1, 1, len(neurons)))), neurons.spread(np.zeros((1, 1, len(neurons)))),
    )  # fmt: skip
    sides = -signs[:, None] * W[neurons.places[name]]
    A = (V * gate) @ W
    true = linprog(A[0], sides, (signs * b[neurons.places[name]]), bounds=[(-1, 1)] * 3)
    found = optimum(quick, neurons, problem, signs)
    best = replace(problem, multipliers=neurons.spread(found.multipliers[None, None]))
    reached = quick.bounds(best)[0, 0]
    if true.status == 2:  # no point meets the assumptions
        assert reached > 10 or quick.bounds(problem)[0, 0] == np.inf
        return
    want = true.fun + float((V * gate)[0] @ b + c[0])
    np.testing.assert_allclose([reached, found.bound], want, atol=1e-4)
    np.testing.assert_allclose(evaluate_graph(graph, found.point[None])[0, 0], want, atol=1e-4)


def test_a_margin_of_zero_is_said_to_be_undecidable_at_once():
    numbers = np.random.default_rng(4)
    layers = random_layers(numbers, 2, (4, 3), 2)
    lower = np.array([-1.0, -1.0])
    C = np.array([[1.0, -0.5], [-0.25, 1.0]])
    true = least_margin(layers, lower, lower + 2, C, np.zeros(2))
    unsafe = LinearConstraints(C, np.full(2, 1e-9 - true))
    prop = Property(2, 2, (Case(lower, lower + 2, (unsafe,)),), "p")
    report = verify(network(layers), prop, Options(split="activation", executor="reference", timeout=60))
    assert report.verdict is not Verdict.TIMEOUT and report.subproblems < 200


def test_the_largest_row_of_a_network_whose_output_has_no_axes():
    numbers = np.random.default_rng(0)
    g = PrimalBuilder("sum", "x", (2,))
    y = g.op("relu", g.op("linear", g.input, numbers.normal(size=(3, 2)), numbers.normal(size=3)))
    graph = g.finish(g.op("reduce_sum", y, axes=(0,), keepdims=False))
    C, d, x = np.array([[1.0], [-1.0]]), np.array([-1.0, 0.5]), numbers.normal(size=(9, 2))
    whole, single = with_largest(graph, Rows(C, d, np.zeros(1, dtype=np.int64)))
    want = (evaluate_graph(graph, x)[:, None] @ C.T + d).max(axis=1, keepdims=True)
    np.testing.assert_allclose(evaluate_graph(whole, x) @ single.C.T + single.offset, want, atol=1e-9)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_makes_no_linear_program(number):
    class Endless:
        def linear(self, problems):
            return np.full((len(problems), 3), number), np.zeros(len(problems))

    value = {"v": (2,)}
    neurons = Neurons(value, {"v": np.arange(2)})
    signs, zeros = np.array([1, -1], dtype=np.int8), neurons.spread(np.zeros((1, 1, 2)))
    split = neurons.split(signs[None], neurons.nowhere(1))
    box, bounds = np.ones((1, 3)), {"v": (-np.ones((1, 2)), np.ones((1, 2)))}
    problem = Subproblems(-box, box, np.ones((1, 1, 1)), np.zeros((1, 1)), bounds, split, {}, zeros, zeros)
    assert optimum(Endless(), neurons, problem, signs) is None
