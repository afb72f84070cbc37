"""Subproblems of small networks, and the points that meet their assumptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import boundflow_core as bf
from boundflow_core.forward import evaluate_graph, forward_values
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.splits import ACTIVE, INACTIVE, SplitState
from boundflow_crown import BetaCrown, Subproblems

Array = NDArray[Any]


def root(graph: PrimalGraph, count: int, *, exact: bool, radius: float = 0.5, rows: int = 2, seed: int = 0) -> Any:
    """The network's bounder, and ``count`` subproblems of one box that assume nothing."""
    rng = np.random.default_rng(seed)
    center = rng.normal(size=graph.input_type.shape)
    lower, upper = (np.repeat((center + s * radius)[None], count, axis=0) for s in (-1, 1))
    C = np.repeat(rng.normal(size=(1, rows, *graph.output_type.shape)), count, axis=0)
    rounding = {"dtype": "float64", "rounding": "outward"} if exact else {}
    found = bf.bound(graph, bf.Box(lower[:1], upper[:1]), method="crown", executor="reference", **rounding)
    bounder = BetaCrown(graph, "reference", exact=exact)
    bounds = {n: tuple(np.repeat(np.asarray(s), count, axis=0) for s in found.intermediate[n]) for n in bounder.needed}
    return bounder, Subproblems(lower, upper, C, np.zeros((count, rows)), bounds, bounder.undecided(count), {}, {}, {})


def values_at(graph: PrimalGraph, points: Array) -> Mapping[str, Array]:
    """All values of the network at the points [P, *input]."""
    b = Builder(DType.FLOAT64, "values")
    x = b.input("x", (SymDim.of("P"), *graph.input_type.shape))
    return evaluate(b.finish(dict(forward_values(b, graph, x))), {"x": points})


def random_split(graph: PrimalGraph, problems: Subproblems, rng: np.random.Generator, depth: int) -> SplitState:
    """Of each subproblem what one of its points has, for ``depth`` neurons: of those split at zero such that are
    undecided, of others any, also the same again, at places between the ends that are left."""
    held = values_at(graph, rng.uniform(problems.lower, problems.upper))
    split, count = problems.split, len(problems)
    able = {n: (problems.bounds[n][0][0] < 0) & (problems.bounds[n][1][0] > 0) for n in split.signs}
    able |= {n: problems.bounds[n][0][0] < problems.bounds[n][1][0] for n in split.ends}
    loose = [(n, int(i)) for n in able for i in np.flatnonzero(able[n])]
    parts = []
    for number in range(count):
        one = split[[number]]
        again = [loose[i] for i in rng.integers(0, len(loose), size=depth)]
        for name, neuron in again if split.ends else [loose[i] for i in rng.permutation(len(loose))[:depth]]:
            low, high = one.clip(name, *(side[[number]] for side in problems.bounds[name]))
            share = rng.uniform(0.2, 0.8)
            point = low.flat[neuron] * share + high.flat[neuron] * (1 - share) if name in split.ends else 0.0
            point = np.float32(point)
            sign = ACTIVE if held[name][number].flat[neuron] >= point else INACTIVE
            one = one.child(name, np.array([neuron]), sign, np.array([point]))
        parts.append(one)
    return SplitState.joined(*parts)


def meeting(problems: Subproblems, held: Mapping[str, Array]) -> Array:
    """Which of values [P, B, *value] at points meet the assumptions, [P, B]."""
    split = problems.split
    found = np.ones((1, len(problems)), dtype=bool)
    for name, signs in split.signs.items():
        value = held[name].reshape(-1, *signs.shape)
        found = found & (value * signs >= 0).reshape(len(value), len(problems), -1).all(axis=2)
    for name, (low, high) in split.ends.items():
        value = held[name].reshape(-1, *low.shape)
        found = found & ((low <= value) & (value <= high)).reshape(len(value), len(problems), -1).all(axis=2)
    return found


def margins_of_points(
    graph: PrimalGraph, problems: Subproblems, rng: np.random.Generator, count: int = 3000
) -> tuple[Array, Array]:
    """Margins [P, B, S] of points, and whether they meet the assumptions [P, B]."""
    box = problems.lower.shape
    points = rng.uniform(problems.lower, problems.upper, size=(count, *box)).reshape(-1, *box[1:])
    meets = meeting(problems, values_at(graph, points))
    outputs = evaluate_graph(graph, points).reshape(count, box[0], -1)
    return np.einsum("bsn,pbn->pbs", problems.C, outputs), meets
