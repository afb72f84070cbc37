"""Searches that split neurons of sigmoids, tanh and gelu at points: verdicts against fine grids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from networks import random_layers
from numpy.typing import NDArray

import boundflow_core as bf
from boundflow_bab import Options, Verdict, verify
from boundflow_bab.clock import Clock
from boundflow_bab.neurons import Neurons
from boundflow_bab.scores import bends, middles
from boundflow_bab.tighten import Tightener
from boundflow_bab.verify import Story
from boundflow_core.forward import evaluate_graph, forward_values
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.normalize import normalize
from boundflow_core.property import Case, LinearConstraints, Property
from boundflow_core.testing import mutated
from boundflow_crown import BetaCrown

Array = NDArray[Any]
OPTIONS = Options(timeout=120, executor="reference", split="activation", starts=(0, 0))
KINDS = (("sigmoid", "sigmoid"), ("tanh", "tanh"), ("relu", "sigmoid"), ("gelu", "relu"))


def drawn(seed: int, activations: tuple[str, ...]) -> tuple[PrimalGraph, Array, Array]:
    """A network of 2 inputs and a box."""
    numbers = np.random.default_rng(seed)
    layers = random_layers(numbers, 2, (5, 4), 1)
    g = PrimalBuilder("net", "x", (2,))
    y = g.input
    for (weight, bias), activation in zip(layers, (*activations, None), strict=True):
        y = g.op("linear", y, weight, bias)
        if activation is not None:
            y = g.op(activation, y, **({"approximate": "none"} if activation == "gelu" else {}))
    lower = np.round(numbers.normal(size=2) * 8) / 8 - 1
    return normalize(g.finish(y), batch_axis=False), lower, lower + 2


def decided(graph: PrimalGraph, lower: Array, upper: Array, share: float, options: Options) -> tuple[Any, Story]:
    """The verdict on: the output is above the least that a grid meets, less a share of what the grid covers."""
    axes = [np.linspace(low, high, 301) for low, high in zip(lower, upper, strict=True)]
    met = evaluate_graph(graph, np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2))
    unsafe = LinearConstraints(np.ones((1, 1)), np.array([share * np.ptp(met) - met.min()]))
    story = Story(Clock(options.timeout), options)
    prop = Property(2, 1, (Case(lower, upper, (unsafe,)),), "test")
    return verify(graph, prop, options, story=story), story


@pytest.mark.parametrize("activations", KINDS, ids="-".join)
@pytest.mark.parametrize("trust", [True, False])
def test_splits_show_what_bounds_leave_open(activations: tuple[str, ...], trust: bool) -> None:
    """Without trust, every leaf is confirmed in exact arithmetic, with its ends and multipliers."""
    report, story = decided(*drawn(0, activations), 0.05, replace(OPTIONS, trust_float32=trust))
    assert report.verdict is Verdict.VERIFIED and report.subproblems > 3 and report.open == 0
    assert ("confirm" in report.seconds) is not trust
    assert story.searches[0].bounds.quick.curves


@pytest.mark.parametrize("seed", range(1, 4))
def test_verdicts_never_contradict_a_grid(seed: int) -> None:
    options = replace(OPTIONS, trust_float32=True, timeout=20)
    graph, lower, upper = drawn(seed, KINDS[seed % len(KINDS)])
    assert decided(graph, lower, upper, -0.02, options)[0].verdict is not Verdict.VERIFIED
    assert decided(graph, lower, upper, 0.1, options)[0].verdict is not Verdict.FALSIFIED


def test_children_on_one_side_alone_are_seen() -> None:
    """Else the test above could not fail: with both children above the point, what lies below is lost."""
    options = replace(OPTIONS, trust_float32=True, timeout=20)
    with mutated(Neurons.child, "0 if sign > 0 else 1", "0"):
        found = [decided(*drawn(seed, KINDS[1]), -0.02, options)[0].verdict for seed in range(3)]
    assert Verdict.VERIFIED in found


def test_neurons_of_both_kinds() -> None:
    shapes = {"a": (2, 2), "b": (3,), "c": (2,)}
    bounds = {"a": (-np.ones((1, 2, 2)), np.array([[[1, 1], [-1, 1]]])), "b": (np.zeros((1, 3)), np.array([[1, 0, 2]]))}
    bounds["c"] = -np.ones((1, 2)), np.ones((1, 2))
    neurons = Neurons.undecided(shapes, bounds, {"b"})
    assert len(neurons) == 7 and neurons.bent.tolist() == [False] * 3 + [True] * 2 + [False] * 2
    signs, ends = np.zeros((2, 7), dtype=np.int8), neurons.nowhere(2)
    point = np.full(2, 0.25, np.float32)
    signs, ends = neurons.child(signs, ends, np.array([1, 4]), 1, point)
    signs, ends = neurons.child(signs, ends, np.array([4, 6]), -1, 2 * point)
    state = neurons.split(signs, ends)
    assert state.signs["a"].tolist() == [[[0, 1], [0, 0]], [[0, 0], [0, 0]]]
    assert state.signs["c"].tolist() == [[0, 0], [0, -1]] and set(state.signs) == {"a", "c"}
    low, high = state.ends["b"]
    assert low.tolist() == [[-np.inf] * 3, [-np.inf, -np.inf, 0.25]]
    assert high.tolist() == [[np.inf, np.inf, 0.5], [np.inf] * 3] and high.dtype == np.float32
    assert list(state.depth) == [2, 2]
    plain = Neurons.undecided(shapes, bounds)
    assert not plain.bent.any() and plain.nowhere(3).shape == (3, 2, 0) and len(plain) == 5
    assert set(plain.split(np.zeros((1, 5), np.int8), plain.nowhere(1)).signs) == set(shapes)


def test_where_curves_are_split() -> None:
    lower = np.array([[-1, 2, -np.inf, 0, 1, np.nan]], dtype=np.float32)
    upper = np.array([[3, 2, 5, 1e-7, np.inf, 1]], dtype=np.float32)
    point, able = middles(lower, upper)
    assert able.tolist() == [[True, False, True, False, True, False]] and point[0, 0] == 1
    assert point.dtype == np.float32 and np.all((lower < point) & (point < upper) | ~able)
    score = bends(np.array([[[1.0, -2.0], [-1.0, 0.0]]]), np.array([[0.5, 0.25]]), np.array([[2.0, 9.0]]))
    assert score.tolist() == [[2.0, 0.5]]  # the line below counts where the coefficient is positive


def test_what_is_assumed_of_a_curve_tightens_the_values_behind_it() -> None:
    graph, lower, upper = drawn(0, ("sigmoid", "relu"))
    box = lower[None], upper[None]
    before = bf.bound(graph, bf.Box(*box), method="crown", executor="reference").intermediate
    before = {name: tuple(np.asarray(side) for side in pair) for name, pair in before.items()}
    bounder = BetaCrown(graph, "reference")
    tighten = Tightener(graph, "reference", Clock(), exact=False, curves=bounder.curves)
    (first,) = bounder.curves
    low, high = before[first]
    neuron = (high - low).argmax(axis=1)
    point = ((low + high) / 2).astype(np.float32)[:, neuron[0]]
    b = Builder(DType.FLOAT64, "values")
    x = b.input("x", (SymDim.of("P"), 2))
    points = np.random.default_rng(0).uniform(lower, upper, (20000, 2))
    values = evaluate(b.finish(dict(forward_values(b, graph, x))), {"x": points})
    for sign in (1, -1):
        split = bounder.undecided(1).child(first, neuron, sign, point)
        after = tighten(*box, before, split=split, behind=first)
        there = (values[first][:, neuron[0]] - point) * sign >= 0
        assert there.any() and not there.all()
        for name, (low, high) in after.items():
            assert np.all(values[name][there] >= low - 1e-5) and np.all(values[name][there] <= high + 1e-5)
            assert name == first or np.sum((before[name][1] - before[name][0]) > (high - low) + 1e-3)
