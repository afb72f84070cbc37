"""Tighter bounds inside of the network: each undecided neuron's own, with slopes optimised for it alone.

What goes on to the search must hold wherever the search's own bounds do. So slopes are found in float32 and, unless
float32 is trusted, the bounds that they give are computed in exact arithmetic and rounded outwards for the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.bounds import batch_size, exact_executor
from boundflow_bab.clock import Clock
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.splits import SplitState
from boundflow_crown import BetaCrown, Settings, Subproblems

__all__ = ["outward32", "tightened"]

Array = NDArray[Any]
Bounds = Mapping[str, tuple[Array, Array]]

STEPS = Settings(20, 0.3, 0.9, None)
# Slopes of one run, all rows and neurons counted.
RUN_SLOPES = 1 << 20


def tightened(
    graph: PrimalGraph,
    executor: str,
    lower: Array,
    upper: Array,
    bounds: Bounds,
    clock: Clock,
    seconds: float,
    *,
    exact: bool,
) -> dict[str, tuple[Array, Array]]:
    """``bounds`` (lower, upper) [1, *value] of values inside of the network on one box, tightened value by value.

    Args:
        graph: the network, in the operators that the bounds know.
        seconds: after which no other value is begun with.
        exact: ``bounds`` hold in exact arithmetic, and so will the results, float64; else float32.

    Raises:
        OutOfTime: the time is up.
    """
    found, until = dict(bounds), clock.elapsed + seconds
    for name in bounds:
        sub = _until(graph, name)
        if clock.elapsed > until:
            break
        quick = BetaCrown(sub, executor)
        low, high = (side.reshape(-1).copy() for side in found[name])
        undecided = np.flatnonzero((low < 0) & (high > 0))
        if not quick.values or not len(undecided):
            continue
        sure = BetaCrown(sub, exact_executor(executor), exact=True) if exact else quick
        slopes = sum(int(np.prod(shape)) for shape in quick.values.values())
        length = max(min(batch_size(len(undecided)), RUN_SLOPES // (2 * slopes)), 1)
        for start in range(0, len(undecided), length):
            clock.check()
            if clock.elapsed > until:
                break
            neurons = undecided[start : start + length]
            filled = neurons[np.minimum(np.arange(batch_size(len(neurons))), len(neurons) - 1)]
            least = _least(quick, sure, lower, upper, found, filled, len(low))
            below, above = least[: len(neurons)], -least[len(filled) : len(filled) + len(neurons)]
            better_low, better_high = np.maximum(low[neurons], below), np.minimum(high[neurons], above)
            sound = better_low <= better_high  # rounding alone lets them cross, in float32
            low[neurons] = np.where(sound, better_low, low[neurons])
            high[neurons] = np.where(sound, better_high, high[neurons])
        found[name] = low.reshape(found[name][0].shape), high.reshape(found[name][1].shape)
    return found


def _until(graph: PrimalGraph, name: str) -> PrimalGraph:
    """The part of the network that computes the value ``name``."""
    needed, kept = {name}, []
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            kept.append(node)
    constants = {key: constant for key, constant in graph.constants.items() if key in needed}
    return replace(graph, nodes=tuple(reversed(kept)), output=name, constants=constants)


def _least(
    quick: BetaCrown, sure: BetaCrown, lower: Array, upper: Array, known: Bounds, neurons: Array, count: int
) -> Array:
    """Lower bounds [2 R] of the flat neurons [R], and of their negatives, of the output."""
    C = np.zeros((1, 2 * len(neurons), count), dtype=np.float32)
    C[0, np.arange(len(neurons)), neurons] = 1
    C[0, len(neurons) + np.arange(len(neurons)), neurons] = -1
    problems = Subproblems(
        lower,
        upper,
        C,
        np.zeros(C.shape[:2], dtype=np.float32),
        {name: known[name] for name in quick.needed},
        SplitState.undecided(quick.values, 1),
        {},
        {},
        {},
    )
    best = quick.optimised(problems, STEPS, beta_rate=STEPS.rate)
    if sure is quick:
        return np.asarray(np.nan_to_num(best.lower[0], nan=-np.inf, neginf=-np.inf, posinf=-np.inf))
    return np.asarray(sure.bounds(replace(problems, slopes=best.slopes))[0])


def outward32(bounds: Bounds) -> dict[str, tuple[Array, Array]]:
    """``bounds`` in float32, no narrower."""
    found = {}
    for name, (low, high) in bounds.items():
        down, up = low.astype(np.float32), high.astype(np.float32)
        down = np.where(down > low, np.nextafter(down, np.float32(-np.inf)), down)
        up = np.where(up < high, np.nextafter(up, np.float32(np.inf)), up)
        found[name] = down, up
    return found
