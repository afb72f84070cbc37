"""Bounds inside of the network that are tightened hold, and are tighter."""

from __future__ import annotations

import numpy as np
import pytest
from networks import network, random_layers

import boundflow_core as bf
from boundflow_bab.clock import Clock
from boundflow_bab.tighten import Tightener, outward32
from boundflow_core.forward import forward_values
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.splits import SplitState


@pytest.mark.parametrize("exact", [False, True])
def test_values_of_points_lie_within(exact):
    numbers = np.random.default_rng(0)
    graph = network(random_layers(numbers, 4, (8, 8, 8), 2))
    lower, upper = -np.ones((1, 4)), np.ones((1, 4))
    how = {"dtype": "float64", "rounding": "outward"} if exact else {}
    found = bf.bound(graph, bf.Box(lower, upper), method="crown", executor="reference", **how).intermediate
    better = Tightener(graph, "reference", Clock(), exact=exact)(lower, upper, found)
    assert list(better) == list(found)
    b = Builder(DType.FLOAT64, "values")
    x = b.input("x", (SymDim.of("P"), 4))
    values = evaluate(b.finish(dict(forward_values(b, graph, x))), {"x": numbers.uniform(-1, 1, (20000, 4))})
    gained = 0
    for name, (low, high) in better.items():
        slack = 0 if exact else 1e-5
        assert np.all(values[name] >= low - slack) and np.all(values[name] <= high + slack)
        assert np.all(low >= found[name][0]) and np.all(high <= found[name][1])
        gained += np.sum(low > found[name][0] + 1e-2)
        if exact:
            down, up = outward32(better)[name]
            assert down.dtype == np.float32 and np.all(down <= low) and np.all(up >= high)
    assert gained > 3


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_assumed_tightens_the_values_behind_it(exact):
    numbers = np.random.default_rng(1)
    graph = network(random_layers(numbers, 4, (8, 8, 8), 2))
    lower, upper = -np.ones((1, 4)), np.ones((1, 4))
    how = {"dtype": "float64", "rounding": "outward"} if exact else {}
    found = bf.bound(graph, bf.Box(lower, upper), method="crown", executor="reference", **how).intermediate
    tighten = Tightener(graph, "reference", Clock(), exact=exact)
    before = tighten(lower, upper, found)
    b = Builder(DType.FLOAT64, "values")
    x = b.input("x", (SymDim.of("P"), 4))
    values = evaluate(b.finish(dict(forward_values(b, graph, x))), {"x": numbers.uniform(-1, 1, (20000, 4))})
    first, second, _ = (name for name in before if before[name][0].size == 8)
    nothing = SplitState.undecided({name: before[name][0].shape[1:] for name in before}, 1)
    gained = 0
    for name, sign in ((first, 1), (first, -1), (second, 1), (second, -1)):
        low, high = (side[0] for side in before[name])
        neuron = int(np.argmax(np.minimum(-low, high)))
        split = nothing.child(name, np.array([neuron]), sign)
        after = tighten(lower, upper, before, split=split, behind=name)
        there = values[name][:, neuron] * sign >= 0
        assert there.any()
        for other, (low, high) in after.items():
            slack = 0 if exact else 1e-5
            assert np.all(values[other][there] >= low - slack) and np.all(values[other][there] <= high + slack)
            gained += other != name and np.sum((before[other][1] - before[other][0]) > (high - low) + 1e-2)
    assert gained > 3
