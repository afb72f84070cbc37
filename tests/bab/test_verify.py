"""Verdicts against what is true: exact enumeration of small networks, planted faults, limits of time."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import least_margin, network, random_layers

from boundflow_bab import Options, Verdict, bounds, cells, verify
from boundflow_bab.activation_split import ActivationSearch
from boundflow_bab.bounds import Bounder, suited_executor
from boundflow_bab.clock import Clock
from boundflow_bab.problem import Rows
from boundflow_bab.verify import Story
from boundflow_core.errors import OptionError, PropertyError
from boundflow_core.forward import evaluate_graph
from boundflow_core.plugins import registry
from boundflow_core.property import Case, LinearConstraints, Property

OPTIONS = Options(timeout=60, executor="reference")
CLEAR = 1e-5  # margins nearer to zero than this may be decided either way by float32 and the LP's tolerance


def prop_of(lower, upper, *unsafe, n_out):
    return Property(len(lower), n_out, (Case(lower, upper, tuple(unsafe)),), "test")


# Thin margins on either side of zero, none, and wide ones.
SHIFTS = [0.0, 1e-4, -1e-4, 1e-3, -1e-3, 0.01, -0.01, 0.3, -0.3]
SLOW_CHECK = [HealthCheck.too_slow]


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW_CHECK)
@given(seed=st.integers(0, 2**20), shift=st.sampled_from(SHIFTS), rows=st.integers(1, 3))
def test_verdicts_equal_exact_enumeration(seed, shift, rows):
    check_against_enumeration(seed, shift, rows, "auto")


@pytest.mark.slow
@pytest.mark.parametrize("split", ["input", "activation"])
@settings(max_examples=400, deadline=None, suppress_health_check=SLOW_CHECK)
@given(seed=st.integers(2**20, 2**30), shift=st.sampled_from(SHIFTS), rows=st.integers(1, 3))
def test_hundreds_of_verdicts_equal_exact_enumeration(split, seed, shift, rows):
    check_against_enumeration(seed, shift, rows, split)


def check_against_enumeration(seed, shift, rows, split):
    numbers = np.random.default_rng(seed)
    layers = random_layers(numbers, int(numbers.integers(1, 4)), (int(numbers.integers(1, 5)), 3), 2)
    inputs = layers[0][0].shape[1]
    lower = np.round(numbers.normal(size=inputs) * 8) / 8
    upper = lower + np.round(numbers.random(inputs) * 16) / 8
    C, d = np.round(numbers.normal(size=(rows, 2)) * 8) / 8, np.zeros(rows)
    true = least_margin(layers, lower, upper, C, d)
    # Moved so that the property holds, or does not, by a margin of ``shift``.
    d = d - true + shift
    prop = prop_of(lower, upper, LinearConstraints(C, d), n_out=2)
    report = verify(network(layers), prop, replace(OPTIONS, split=split))
    # Where rows tie along a face, boxes must be as small as the margin: halving boxes alone may not get there in time.
    if split == "input" and 0 < shift < 1e-3:
        assert report.verdict in (Verdict.VERIFIED, Verdict.TIMEOUT)
    elif shift > CLEAR:
        assert report.verdict is Verdict.VERIFIED
    elif shift < -CLEAR:
        assert report.verdict is Verdict.FALSIFIED
    # With a margin of zero up to the LP's tolerance either may be true, but counterexamples are always what they say.
    found = report.counterexample
    assert (found is not None) == (report.verdict is Verdict.FALSIFIED)
    if found is not None:
        assert np.all(C @ found.y.astype(np.float64) + d <= 0)
        assert np.all((lower <= found.x) & (found.x <= upper))


def test_verdicts_of_activation_splits_equal_exact_enumeration():
    """Boxes so wide that most neurons are undecided and most properties need a search."""
    searched = 0
    for seed in range(12):
        numbers = np.random.default_rng(seed)
        layers = random_layers(numbers, int(numbers.integers(2, 4)), (4, 4), 2)
        inputs = layers[0][0].shape[1]
        lower = np.round(numbers.normal(size=inputs) * 8) / 8 - 1.5
        upper = lower + 3
        C = np.round(numbers.normal(size=(1, 2)) * 8) / 8
        shift = (0.02, -0.02, 0.2)[seed % 3]
        d = shift - least_margin(layers, lower, upper, C, np.zeros(1))
        prop = prop_of(lower, upper, LinearConstraints(C, np.atleast_1d(d)), n_out=2)
        starts = (0, 0) if seed % 2 else (2, 2)  # without them attacks on the way must find what there is
        report = verify(network(layers), prop, replace(OPTIONS, split="activation", starts=starts))
        assert report.verdict is (Verdict.VERIFIED if shift > 0 else Verdict.FALSIFIED), (seed, report)
        searched += report.subproblems > 1
    assert searched > 6


@pytest.mark.parametrize("trust", [False, True])
def test_verdicts_of_cells_equal_exact_enumeration(monkeypatch, trust):
    """Cells are split as soon as they can be, so that most of a search is in them."""
    for name in ("LEAST_SECONDS", "LEAST_CELLS", "PATIENCE"):
        monkeypatch.setattr(cells, name, 0)
    met = 0
    for seed in range(9):
        numbers = np.random.default_rng(seed)
        layers = random_layers(numbers, 3, (4, 3, 3), 2)
        lower = np.round(numbers.normal(size=3) * 8) / 8 - 1.5
        C = np.round(numbers.normal(size=(1, 2)) * 8) / 8
        shift = (0.02, -0.02, 0.2)[seed % 3]
        d = shift - least_margin(layers, lower, lower + 3, C, np.zeros(1))
        unsafe = LinearConstraints(C, np.atleast_1d(d)), LinearConstraints(C, np.atleast_1d(d) + 0.3)
        options = replace(OPTIONS, split="activation", starts=(0, 0), trust_float32=trust)
        report = verify(network(layers), prop_of(lower, lower + 3, *unsafe, n_out=2), options)
        assert report.verdict is (Verdict.VERIFIED if shift > 0 else Verdict.FALSIFIED), (seed, report)
        assert report.open == 0 or report.verdict is Verdict.FALSIFIED
        met += "cells" in report.seconds
    assert met > 4


def test_what_waits_for_confirmation_in_a_cell_is_confirmed_where_the_cell_is_not_split(monkeypatch):
    """Cells time out at once, and their splits are never worth while: the search goes on with what it had."""
    put, confirmed = [], []
    settle, confirm = ActivationSearch._settle, ActivationSearch._confirm

    def settled(self, leaves):
        put.append(int((leaves.bound > 0).sum()))
        settle(self, leaves)

    def confirming(self):
        confirmed.append(sum(map(len, self._waiting)))
        confirm(self)

    monkeypatch.setattr(ActivationSearch, "_settle", settled)
    monkeypatch.setattr(ActivationSearch, "_confirm", confirming)
    monkeypatch.setattr(cells.CellSearch, "_split", lambda self, cell, rise: None)
    for name, value in (("LEAST_SECONDS", 0.05), ("LEAST_CELLS", 0), ("PATIENCE", 0)):
        monkeypatch.setattr(cells, name, value)
    kept = []
    give_up = ActivationSearch.give_up
    monkeypatch.setattr(ActivationSearch, "give_up", lambda self: kept.append(give_up(self)) or kept[-1])
    for seed in range(6):
        numbers = np.random.default_rng(seed)
        layers = random_layers(numbers, 6, (12, 12, 12), 2)
        lower, C = np.round(numbers.normal(size=6) * 8) / 8 - 0.5, np.array([[1.0, 0.0]])
        points = evaluate_graph(network(layers), lower + numbers.random((20000, 6)))[:, 0]
        d = np.array([0.3 * (points.max() - points.min()) - points.min()])
        options = replace(OPTIONS, split="activation", starts=(0, 0), timeout=30)
        report = verify(network(layers), prop_of(lower, lower + 1, LinearConstraints(C, d), n_out=2), options)
        if report.verdict is Verdict.VERIFIED:
            assert sum(put) == sum(confirmed), seed
        put.clear()
        confirmed.clear()
    assert any(sum(map(len, waiting)) for _, waiting in kept)


def tent():
    """|x|-like: two hidden neurons; the least value over [-1, 1] is 0 at 0."""
    return network([(np.array([[1.0], [-1.0]]), np.zeros(2)), (np.array([[1.0, 1.0]]), np.zeros(1))])


ONE = np.ones((1, 1))


def test_a_property_that_just_holds_and_one_that_just_does_not():
    graph, low, high = tent(), np.array([-1.0]), np.array([1.0])
    assert verify(graph, prop_of(low, high, LinearConstraints(ONE, np.array([1e-3])), n_out=1), OPTIONS).verdict is (
        Verdict.VERIFIED
    )
    report = verify(graph, prop_of(low, high, LinearConstraints(ONE, np.array([-1e-3])), n_out=1), OPTIONS)
    assert report.verdict is Verdict.FALSIFIED and abs(report.counterexample.x[0]) <= 1e-3


def test_every_conjunction_and_every_box_counts():
    graph = tent()
    never, sometimes = LinearConstraints(ONE, np.array([1.0])), LinearConstraints(-ONE, np.array([0.9]))
    near, far = Case([-0.5], [0.5], (never, sometimes)), Case([0.5], [1.0], (never, sometimes))
    assert verify(graph, Property(1, 1, (near,), "p"), OPTIONS).verdict is Verdict.VERIFIED
    report = verify(graph, Property(1, 1, (near, far), "p"), OPTIONS)
    assert report.verdict is Verdict.FALSIFIED and report.counterexample.x[0] >= 0.9


def test_the_sum_of_rows_shows_what_none_of_them_does():
    """y = (x, -x) with rows y + 0.1: one of them is positive everywhere, none of them on all of [-1, 1]."""
    graph = network([(np.array([[1.0], [-1.0]]), np.zeros(2))])
    unsafe = LinearConstraints(np.eye(2), np.full(2, 0.1))
    prop = prop_of([-1.0], [1.0], unsafe, n_out=2)
    report = verify(graph, prop, replace(OPTIONS, split="input"))
    assert report.verdict is Verdict.VERIFIED and report.subproblems == 1
    rows = Rows.of((unsafe, LinearConstraints(np.array([[2.0, 0.0]]), np.zeros(1)))).mixed()
    np.testing.assert_array_equal(rows.C, [[1, 0], [0, 1], [1, 1], [2, 0]])
    np.testing.assert_array_equal(rows.starts, [0, 3])
    np.testing.assert_array_equal(rows.group, [0, 0, 0, 1])


def test_what_is_always_or_never_unsafe():
    graph = tent()
    always = LinearConstraints(np.zeros((0, 1)), np.zeros(0))
    assert verify(graph, prop_of([0.0], [1.0], always, n_out=1), OPTIONS).verdict is Verdict.FALSIFIED
    assert verify(graph, prop_of([0.0], [1.0], n_out=1), OPTIONS).verdict is Verdict.VERIFIED


def test_a_proof_that_rounding_alone_makes_is_not_given():
    """y = x / 3 computed as x * w: the exact product lies below the threshold by less than rounding in float32."""
    w = float(np.float32(1 / 3))
    graph = network([(np.array([[1.0]]), np.zeros(1)), (np.array([[w]]), np.zeros(1))])
    exact = Fraction(w) * Fraction(3)
    threshold = float(exact) + 1e-9  # above the exact value, so y - threshold <= 0 holds: a counterexample exists
    prop = prop_of([3.0], [3.0], LinearConstraints(ONE, np.array([-threshold])), n_out=1)
    report = verify(graph, prop, OPTIONS)
    assert report.verdict is not Verdict.VERIFIED


def test_bounds_that_are_too_tight_are_caught(monkeypatch):
    """An unsound rule in float32 (1 % too tight): the confirmation takes other bounds, so nothing wrong is said."""
    graph = tent()
    prop = prop_of([-1.0], [1.0], LinearConstraints(ONE, np.array([-1e-3])), n_out=1)
    plain = Bounder.__call__

    def tight(self, lower, upper, rows):
        found = plain(self, lower, upper, rows)
        return found + (0.0 if self.exact else 10.0)

    monkeypatch.setattr(Bounder, "__call__", tight)
    no_attack = replace(OPTIONS, starts=(0, 0), timeout=5)
    assert verify(graph, prop, no_attack).verdict is not Verdict.VERIFIED
    trusting = verify(graph, prop, replace(no_attack, trust_float32=True))
    assert trusting.verdict is Verdict.VERIFIED and "not confirmed" in trusting.line


def test_time_ends_a_search():
    numbers = np.random.default_rng(0)
    layers = random_layers(numbers, 12, (40, 40, 40), 2)
    graph, lower, upper = network(layers), -np.ones(12), np.ones(12)
    y = evaluate_graph(graph, numbers.uniform(-1, 1, (4000, 12)))[:, 0]
    threshold = y.min() - (y.max() - y.min())  # out of reach for attacks, and for bounds
    hard = LinearConstraints(np.array([[1.0, 0.0]]), np.array([-threshold]))
    prop = prop_of(lower, upper, hard, n_out=2)
    started = time.perf_counter()
    options = replace(OPTIONS, timeout=4, starts=(1, 1), methods=("ibp",))
    story = Story(Clock(options.timeout), options)
    report = verify(graph, prop, options, story=story)
    assert report.verdict is Verdict.TIMEOUT
    assert report.open > 0 or not story.searches  # a slow machine may not get that far
    assert time.perf_counter() - started < 60  # not a matter of speed: it does end


def test_wrong_requests():
    with pytest.raises(PropertyError, match="2 inputs"):
        verify(tent(), prop_of([0.0, 0.0], [1.0, 1.0], n_out=1), OPTIONS)
    with pytest.raises(OptionError, match="timeout"):
        Options(timeout=0)


def test_what_is_confirmed_runs_on_an_executor_that_states_how_exactly_it_computes(monkeypatch):
    plain = registry().executors
    quick = replace(plain["reference"], name="quick", exact=False)
    monkeypatch.setattr(bounds, "registry", lambda: replace(registry(), executors={**plain, "quick": quick}))
    assert [bounds.exact_executor(name) for name in ("reference", "quick", "auto")] == ["reference", "auto", "auto"]


def test_one_set_of_programs_bounds_any_number_of_boxes_of_a_small_network():
    graph = network(random_layers(np.random.default_rng(0), 2, (5, 5), 2))
    bounder = Bounder(graph, "crown", "reference", Clock(None))
    rows = Rows(np.eye(2), np.array([0.5, -0.25]), np.arange(2))
    lower = np.random.default_rng(1).uniform(-1, 1, (5, 2))
    alone = np.concatenate([bounder(lower[one : one + 1], lower[one : one + 1] + 0.5, rows) for one in range(5)])
    plans = bounder._run.stats.plans
    together = bounder(lower, lower + 0.5, rows)
    assert bounder._run.stats.plans == plans
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    known = bounder.inside(lower[:1], lower[:1] + 0.5, rows)
    assert all(low.shape[0] == high.shape[0] == 1 for low, high in known.values()) and len(known) == 2


def test_small_networks_run_on_what_starts_at_once(monkeypatch):
    graph = network(random_layers(np.random.default_rng(0), 2, (5, 5), 2))
    assert suited_executor(graph, "auto") == "reference"
    assert suited_executor(graph, "torch") == "torch"
    monkeypatch.setattr(bounds, "FIRST_PARAMETERS", graph.parameter_count())
    assert suited_executor(graph, "auto") == "auto"
