"""Beta-CROWN where neurons with curves are split at points, against points that meet the assumptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from beta_cases import margins_of_points, meeting, random_split, root, values_at
from crown_networks import sigmoid_softmax, small_mlp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import boundflow_core as bf
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.normalize import normalize
from boundflow_core.splits import ACTIVE, INACTIVE, SplitState
from boundflow_core.testing import mutated
from boundflow_crown import BetaCrown, Settings, Subproblems, beta_programs

SETTINGS = Settings(40, 0.2, 0.97, None)


def gelus(approximate: str) -> PrimalGraph:
    return chain(["gelu", "gelu"], approximate=approximate)


def chain(activations: list[str], **attrs: Any) -> PrimalGraph:
    rng = np.random.default_rng(5)
    g = PrimalBuilder("chain", "x", (3,))
    y, width = g.input, 3
    for activation in activations:
        inner = g.op("linear", y, rng.normal(size=(6, width)), rng.normal(size=6) / 3)
        y, width = g.op(activation, inner, **(attrs if activation == "gelu" else {})), 6
    return normalize(g.finish(g.op("linear", y, rng.normal(size=(3, width)))), batch_axis=False)


def shared() -> PrimalGraph:
    """A value with a relu and a tanh; a convolution before a sigmoid."""
    rng = np.random.default_rng(6)
    geometry = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    g = PrimalBuilder("shared", "x", (1, 4, 4))
    first = g.op("conv2d", g.input, rng.normal(size=(2, 1, 3, 3)), rng.normal(size=2), **geometry)
    both = g.add(g.op("relu", first), g.op("tanh", first))
    second = g.op("sigmoid", g.op("conv2d", both, rng.normal(size=(2, 2, 3, 3)) / 2, rng.normal(size=2), **geometry))
    flat = g.op("reshape", second, shape=(32,))
    return normalize(g.finish(g.op("linear", flat, rng.normal(size=(3, 32)))), batch_axis=False)


NETWORKS: dict[str, Callable[[], PrimalGraph]] = {
    "sigmoid": lambda: small_mlp(0, "sigmoid"),
    "tanh": lambda: small_mlp(0, "tanh"),
    "erf": lambda: small_mlp(0, "erf"),
    "gelu": lambda: gelus("none"),
    "gelu by tanh": lambda: gelus("tanh"),
    "relu and sigmoid": lambda: chain(["relu", "sigmoid", "relu"]),
    "sigmoid and softmax": sigmoid_softmax,
    "shared": shared,
}

networks = pytest.mark.parametrize("name", NETWORKS)


def wild(bounder: BetaCrown, problems: Subproblems, rng: np.random.Generator) -> Subproblems:
    """With slopes that must be brought to sound ones, and multipliers of any sign and size."""
    shapes = {n: (*problems.offset.shape, *shape) for n, shape in bounder.values.items()}
    return replace(
        problems,
        slopes={n: rng.normal(size=shapes[n]) for n in bounder.sloped},
        multipliers={n: rng.normal(size=s) * rng.choice([0, 0.1, 3], size=s) for n, s in shapes.items()},
    )


def worst_excess(bounder: BetaCrown, graph: PrimalGraph, problems: Subproblems, rng: np.random.Generator) -> float:
    """By how much bounds lie above points that meet the assumptions, at most."""
    margins, meets = margins_of_points(graph, problems, rng, 1000)
    assert meets.any(axis=0).sum() > 3 and not meets.all()
    best = bounder.optimised(problems, SETTINGS, beta_rate=0.2)
    found = []
    for lower in (best.lower, bounder.bounds(problems), bounder.bounds(wild(bounder, problems, rng))):
        found.append(np.where(meets[:, :, None], lower - margins, -np.inf).max())
    return float(max(found))


def split_problems(name: str, *, exact: bool, seed: int = 1, depth: int = 8) -> Any:
    graph, rng = NETWORKS[name](), np.random.default_rng(seed)
    bounder, problems = root(graph, 8, exact=exact, radius=1.0)
    return bounder, graph, replace(problems, split=random_split(graph, problems, rng, depth)), rng


@pytest.mark.parametrize(
    ("name", "exact"), [*((name, False) for name in NETWORKS), ("sigmoid", True), ("gelu", True), ("shared", True)]
)
def test_points_that_meet_the_assumptions_lie_above(name: str, exact: bool) -> None:
    bounder, graph, problems, rng = split_problems(name, exact=exact)
    assert bounder.curves and problems.split.depth.max() > 3
    assert worst_excess(bounder, graph, problems, rng) <= (0 if exact else 1e-5)


# What a multiplier takes off the bound, the ends that it is for, and what is assumed of the interval.
PLANTED = [
    (beta_programs._cut, "b.maximum(beta * low, beta * high)", "beta * low"),
    (beta_programs._cut, "b.maximum(beta * low, beta * high)", "b.minimum(beta * low, beta * high)"),
    (beta_programs._ends, "b.where(split, x.upper, 0.0)", "b.where(split, x.lower, 0.0)"),
    (SplitState.clip, "np.maximum(lower, low)", "np.minimum(upper, high)"),
]


@pytest.mark.parametrize(("function", "text", "instead"), PLANTED)
def test_what_is_planted_wrong_is_seen(function: Any, text: str, instead: str) -> None:
    """Else the test above could not fail."""
    case = split_problems("tanh", exact=False)
    with mutated(function, text, instead):
        assert worst_excess(*case) > 1e-2


@networks
def test_both_children_together_hold_all_points(name: str) -> None:
    """Splits of splits: whatever the place, points of the parent are in a child, and its bounds hold there."""
    graph = NETWORKS[name]()
    bounder, whole = root(graph, 1, exact=False, radius=1.0)
    names = sorted(bounder.curves)

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32 - 1))
    def check(seed: int) -> None:
        rng = np.random.default_rng(seed)
        leaves = [whole.split]
        for _ in range(3):
            leaf = leaves.pop(int(rng.integers(len(leaves))))
            value = names[rng.integers(len(names))]
            low, high = leaf.clip(value, *whole.bounds[value])
            neuron = rng.integers(low.size, size=1)
            share = rng.uniform(0, 1)
            point = np.float32(low.flat[neuron] * share + high.flat[neuron] * (1 - share))
            leaves += [leaf.child(value, neuron, sign, point) for sign in (ACTIVE, INACTIVE)]
        split = SplitState.joined(*leaves)
        count = len(leaves)
        problems = replace(
            whole,
            lower=np.repeat(whole.lower, count, axis=0),
            upper=np.repeat(whole.upper, count, axis=0),
            C=np.repeat(whole.C, count, axis=0),
            offset=np.repeat(whole.offset, count, axis=0),
            bounds={n: tuple(np.repeat(side, count, axis=0) for side in pair) for n, pair in whole.bounds.items()},
            split=split,
        )
        points = rng.uniform(whole.lower[0], whole.upper[0], size=(400, *whole.lower.shape[1:]))
        held = {n: np.repeat(v[:, None], count, axis=1) for n, v in values_at(graph, points).items()}
        meets = meeting(problems, held)
        assert meets.any(axis=1).all()
        margins = np.einsum("bsn,pbn->pbs", problems.C, held[graph.output].reshape(400, count, -1))
        for lower in (bounder.bounds(problems), bounder.bounds(wild(bounder, problems, rng))):
            assert np.all((margins >= lower - 1e-5) | ~meets[:, :, None])

    check()


@networks
def test_without_splits_it_is_crown_and_multipliers_change_nothing(name: str) -> None:
    graph, rng = NETWORKS[name](), np.random.default_rng(2)
    bounder, problems = root(graph, 4, exact=False)
    crown = bf.compile(graph, method="crown", executor="reference", intersect=False)(
        bf.Box(problems.lower, problems.upper), bf.LinearSpec(problems.C), intermediate=problems.bounds
    )
    before = bounder.bounds(problems)
    np.testing.assert_allclose(before, crown.lower, rtol=1e-5, atol=1e-5)
    shaken = replace(wild(bounder, problems, rng), slopes={})
    np.testing.assert_array_equal(bounder.bounds(shaken), before)
    assert all(not m.any() for m in bounder.optimised(problems, SETTINGS, beta_rate=0.2).multipliers.values())


@networks
def test_what_the_optimisation_gave_is_given_again_and_multipliers_help(name: str) -> None:
    bounder, graph, problems, _ = split_problems(name, exact=False, seed=3)
    problems = replace(problems, unit=dict.fromkeys(bounder.values, 0.5))
    plain = bounder.bounds(problems)
    found = bounder.optimised(problems, SETTINGS, beta_rate=0.2)
    assert (found.lower >= plain - 1e-5).all() and (found.lower > plain + 1e-2).any()
    for name_ in bounder.curves:
        split = np.isfinite(problems.split.ends[name_]).any(axis=0)
        assert not (found.multipliers[name_] * ~split[:, None]).any()
    assert any((m > 0).any() and (m < 0).any() for m in found.multipliers.values())
    again = replace(problems, slopes=found.slopes, multipliers=found.multipliers)
    np.testing.assert_allclose(bounder.bounds(again), found.lower, atol=1e-5)
    exact, precise = root(graph, 8, exact=True, radius=1.0)
    np.testing.assert_allclose(exact.bounds(replace(again, bounds=precise.bounds)), found.lower, atol=1e-4)


def test_a_narrow_interval_is_as_good_as_a_line() -> None:
    """Split again and again where one point is, a network is bounded by its values near that point."""
    graph, rng = small_mlp(1, "sigmoid"), np.random.default_rng(4)
    bounder, problems = root(graph, 1, exact=False, rows=1, radius=1.0)
    place = rng.uniform(problems.lower, problems.upper)
    held, split = values_at(graph, place), problems.split
    for name in bounder.curves:
        ends = held[name] - 1e-2, held[name] + 1e-2
        low, high = (end.astype(np.float32) for end in ends)
        split = SplitState(split.signs, {**split.ends, name: (low, high)})
    value = float((problems.C[0] @ held[graph.output][0])[0])
    steps = Settings(300, 0.1, 0.98, None)
    found = bounder.optimised(replace(problems, split=split), steps, beta_rate=0.1).lower[0, 0]
    assert value - 0.02 < found <= value and bounder.bounds(problems)[0, 0] < value - 0.1


def test_infinite_bounds_take_no_multiplier() -> None:
    bounder, graph, problems, rng = split_problems("sigmoid", exact=False)
    name = next(iter(bounder.values))
    low, high = (side.copy() for side in problems.bounds[name])
    low[:], high[:] = -np.inf, np.inf
    open_ = replace(problems, bounds={**problems.bounds, name: (low, high)})
    assert worst_excess(bounder, graph, open_, rng) <= 1e-5
    assert np.isfinite(bounder.bounds(open_)).all() and np.isfinite(bounder.bounds(wild(bounder, open_, rng))).all()


def test_step_without_a_slope_to_move() -> None:
    """A network of sigmoids alone has none; its programs neither take nor give any."""
    bounder, problems = root(small_mlp(0, "sigmoid"), 2, exact=False)
    assert not bounder.sloped and bounder.start(problems) == {} and set(bounder.values) == set(bounder.curves)
    found = bounder.optimised(problems, SETTINGS, beta_rate=0.2)
    assert all(not slopes.any() for slopes in found.slopes.values())
