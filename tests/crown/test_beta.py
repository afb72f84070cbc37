"""Beta-CROWN: bounds under assumptions about neurons, against points that meet them and against linear programs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from beta_cases import margins_of_points, random_split, root
from crown_networks import residual, small_mlp
from scipy.optimize import linprog

import boundflow_core as bf
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.splits import ACTIVE, INACTIVE, SplitState
from boundflow_crown import Settings, Subproblems

NETWORKS = {"small_mlp": small_mlp, "residual": residual, "leaky": lambda: small_mlp(0, "leaky_relu", np.array(0.1))}
SETTINGS = Settings(60, 0.2, 0.97, None)

networks = pytest.mark.parametrize("name", NETWORKS)
kinds = pytest.mark.parametrize("exact", [False, True])


@networks
@kinds
def test_points_that_meet_the_assumptions_lie_above(name: str, exact: bool) -> None:
    graph, rng = NETWORKS[name](), np.random.default_rng(1)
    bounder, problems = root(graph, 12, exact=exact, radius=1.0, rows=2)
    problems = replace(problems, split=random_split(graph, problems, rng, 6))
    assert problems.split.depth.max() > 2
    margins, meets = margins_of_points(graph, problems, rng)
    assert (meets.any(axis=0)).sum() > 5 and not meets.all()
    best = bounder.optimised(problems, SETTINGS, beta_rate=0.2)
    assert any((beta > 0).any() for beta in best.multipliers.values())
    shapes = {n: (12, 2, *shape) for n, shape in bounder.values.items()}
    wild = replace(
        problems,
        slopes={n: rng.normal(size=s) for n, s in shapes.items()},  # brought to what is sound
        multipliers={n: rng.normal(size=s) for n, s in shapes.items()},
    )
    for lower in (best.lower, bounder.bounds(wild)):
        slack = 0 if exact else 1e-5
        assert np.all((margins >= lower - slack) | ~meets[:, :, None])


@networks
def test_never_below_crown_and_multipliers_help(name: str) -> None:
    graph, rng = NETWORKS[name](), np.random.default_rng(2)
    bounder, problems = root(graph, 8, exact=False)
    crown = bf.compile(graph, method="crown", executor="reference", intersect=False)(
        bf.Box(problems.lower, problems.upper), bf.LinearSpec(problems.C), intermediate=problems.bounds
    )
    np.testing.assert_allclose(bounder.bounds(problems), crown.lower, rtol=1e-5, atol=1e-5)
    split = replace(problems, split=random_split(graph, problems, rng, 4))
    free = bounder.optimised(problems, SETTINGS, beta_rate=0.2).lower
    assert (free >= bounder.bounds(problems)).all() and (free >= crown.lower - 1e-5).all()
    clipped = bounder.bounds(split)
    slopes_alone = bounder.optimised(split, SETTINGS, beta_rate=1e-9).lower
    both = bounder.optimised(split, SETTINGS, beta_rate=0.2).lower
    assert (slopes_alone >= clipped).all() and (both >= clipped).all()
    # The ways of two ascents differ a little, where multipliers gain nothing.
    assert (both >= slopes_alone - 2e-2).all() and (both > slopes_alone + 1e-1).any()


@kinds
def test_all_neurons_split_it_is_the_linear_program(exact: bool) -> None:
    """Strong duality: the best multipliers give the least value of the network, linear there, on the polytope."""
    graph, rng = small_mlp(3), np.random.default_rng(3)
    bounder, problems = root(graph, 6, exact=exact, radius=0.4, rows=1)
    split = random_split(graph, problems, rng, 999)
    problems = replace(problems, split=split)
    best = bounder.optimised(problems, Settings(600, 0.3, 0.99, None), beta_rate=0.3)
    for number in range(6):
        true = _program_value(graph, problems, number)
        assert best.lower[number, 0] <= true + 1e-5
        assert best.lower[number, 0] >= true - 2e-2 * max(1.0, abs(true))


def _program_value(graph: PrimalGraph, problems: Subproblems, number: int) -> float:
    A, c = np.eye(5), np.zeros(5)
    rows, right = [], []
    for node in graph.nodes:
        if node.op == "relu":
            low = problems.bounds[node.inputs[0]][0][number]
            sign = problems.split.signs[node.inputs[0]][number].astype(float)
            on = np.where(sign == 0, low >= 0, sign > 0)
            rows.append(-sign[:, None] * A)
            right.append(sign * c)
            A, c = on[:, None] * A, on * c
        else:
            weight, *bias = (graph.constants[name].numpy() for name in node.inputs[1:])
            A, c = weight @ A, weight @ c + (bias[0] if bias else 0.0)
    row = problems.C[number, 0]
    found = linprog(
        row @ A,
        A_ub=np.concatenate(rows),
        b_ub=np.concatenate(right),
        bounds=list(zip(problems.lower[number], problems.upper[number], strict=True)),
        method="highs",
    )
    return float(found.fun + row @ c)


@networks
def test_what_the_optimisation_gave_is_given_again(name: str) -> None:
    """Handed in, the best slopes and multipliers give the best bounds, in exact arithmetic slightly less."""
    graph, rng = NETWORKS[name](), np.random.default_rng(4)
    bounder, problems = root(graph, 5, exact=False)
    problems = replace(problems, split=random_split(graph, problems, rng, 3), unit=dict.fromkeys(bounder.values, 0.5))
    for stop in (None, 0.0):
        found = bounder.optimised(problems, replace(SETTINGS, stop=stop), beta_rate=0.2)
        again = replace(problems, slopes=found.slopes, multipliers=found.multipliers)
        np.testing.assert_allclose(bounder.bounds(again), found.lower, atol=1e-5)
        lower, rows = bounder.rows(again)
        np.testing.assert_allclose(lower, found.lower, atol=1e-5)
        assert {n: r.shape for n, r in rows.items()} == {n: (5, 2, *s) for n, s in bounder.values.items()}
    exact, precise = root(graph, 5, exact=True)
    precise = replace(again, bounds=precise.bounds)
    confirmed = exact.bounds(precise)
    np.testing.assert_allclose(confirmed, found.lower, atol=1e-4)


def test_patience_closes_what_is_about_to_be_closed_and_nothing_else_goes_on() -> None:
    graph, rng = small_mlp(), np.random.default_rng(7)
    bounder, problems = root(graph, 32, exact=False, rows=1)
    problems = replace(problems, split=random_split(graph, problems, rng, 5))
    few, many = replace(SETTINGS, iterations=6), replace(SETTINGS, iterations=46)
    early, late = (bounder.optimised(problems, one, beta_rate=0.2).lower[:, 0] for one in (few, many))
    # Half of them would be closed by more steps, the rest is far away.
    near = np.arange(len(early)) % 2 == 0
    goal = np.where(near, (early + late) / 2, late + 100)[:, None]
    shifted = replace(problems, offset=problems.offset - goal)
    closing = near & (late - early > 1e-3)
    assert closing.sum() > 4
    found = bounder.optimised(shifted, replace(few, stop=0.0), beta_rate=0.2, patience=40)
    lower = found.lower[:, 0]
    assert (lower[closing] > 0).sum() > closing.sum() / 2
    np.testing.assert_allclose(lower[~near], early[~near] - goal[~near, 0], atol=1e-4)
    again = replace(shifted, slopes=found.slopes, multipliers=found.multipliers)
    np.testing.assert_allclose(bounder.bounds(again), found.lower, atol=1e-4)
    at_once = bounder.optimised(shifted, replace(few, stop=0.0), beta_rate=0.2).lower[:, 0]
    assert not (at_once[closing] > 0).any()


def test_company_and_batches_that_shrink_change_nothing() -> None:
    graph, rng = small_mlp(), np.random.default_rng(5)
    bounder, problems = root(graph, 16, exact=False, rows=1)
    problems = replace(problems, split=random_split(graph, problems, rng, 5))
    free = bounder.optimised(problems, SETTINGS, beta_rate=0.2).lower[:, 0]
    goal = float(np.median(free))
    problems = replace(problems, offset=problems.offset - goal)
    together = bounder.optimised(problems, replace(SETTINGS, stop=0.0), beta_rate=0.2).lower[:, 0]
    decided = free > goal + 1e-4
    assert 4 < decided.sum() < 12
    assert (together[decided] > 0).all()
    undecided = free < goal - 1e-4
    np.testing.assert_allclose(together[undecided], free[undecided] - goal, atol=1e-4)


@kinds
def test_empty_subproblems_have_no_points(exact: bool) -> None:
    graph = small_mlp()
    bounder, problems = root(graph, 2, exact=exact)
    name = next(iter(bounder.values))
    low, high = (side.copy() for side in problems.bounds[name])
    low[0, 0], high[0, 0] = 0.5, 1.0
    problems = replace(
        problems,
        bounds={**problems.bounds, name: (low, high)},
        split=problems.split.child(name, np.zeros(2, dtype=int), INACTIVE),
    )
    assert problems.split.empty(problems.bounds)[0]
    for lower in (bounder.bounds(problems), bounder.optimised(problems, SETTINGS, beta_rate=0.2).lower):
        assert (lower[0] == np.inf).all()


def test_split_states() -> None:
    state = SplitState.undecided({"a": (2, 2), "b": (3,)}, 3)
    one = state.child("a", np.array([0, 3, 1]), ACTIVE)
    two = one.child("b", np.array([2, 2, 2]), INACTIVE)
    assert len(two) == 3 and list(state.depth) == [0] * 3 and list(two.depth) == [2] * 3
    assert two.signs["a"][1].tolist() == [[0, 0], [0, 1]]
    both = SplitState.joined(two[[0]], one[np.array([False, True, False])])
    assert list(both.depth) == [2, 1]
    low, high = two.clip("b", np.full((3, 3), -1.0, np.float32), np.full((3, 3), 2.0, np.float32))
    assert high.dtype == np.float32 and high[0].tolist() == [2, 2, 0] and (low == -1).all()
    assert two.clip("c", low, high) == (low, high)
    assert [a <= b for a, b in pairwise(two.depth)] == [True, True]


def test_split_states_with_ends() -> None:
    state = SplitState.undecided({"a": (2,), "b": (2, 2)}, 2, at_points={"b"})
    assert set(state.signs) == {"a"} and set(state.ends) == {"b"} and len(state) == 2 and list(state.depth) == [0, 0]
    half = np.full(2, 0.5, np.float32)
    one = state.child("b", np.array([0, 3]), ACTIVE, half)
    two = one.child("b", np.array([0, 0]), INACTIVE, half + 1).child("a", np.array([1, 1]), ACTIVE)
    assert list(one.depth) == [1, 1] and list(two.depth) == [3, 3]
    wider = two.child("b", np.array([0, 0]), INACTIVE, half + 2)
    assert (wider.ends["b"][1] == two.ends["b"][1]).all()  # an end never moves outwards
    low, high = two.clip("b", np.full((1, 2, 2), -1.0), np.full((1, 2, 2), 1.25))
    assert low.dtype == np.float64 and low.tolist() == [[[0.5, -1], [-1, -1]], [[-1, -1], [-1, 0.5]]]
    assert high.tolist() == [[[1.25, 1.25], [1.25, 1.25]]] * 2
    assert list(two.empty({"b": (low - 9, low)})) == [False, False]
    assert list(two.empty({"b": (np.zeros((2, 2, 2)), np.full((2, 2, 2), 0.25))})) == [True, True]
    both = SplitState.joined(state[[0]], two[[1]])
    assert list(both.depth) == [0, 3] and set(both.of({"a"}).signs) == {"a"} and not both.of({"a"}).ends
