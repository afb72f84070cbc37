"""Scores of all neurons of a batch of subproblems: the heuristic's of those split at zero, and those of curves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.neurons import Neurons
from boundflow_core.extension import Branching, BranchingView
from boundflow_crown import BetaCrown, Subproblems

__all__ = ["bends", "middles", "scored"]

Array = NDArray[Any]

# Neurons of curves whose bounds are no further apart are not split.
NARROWEST = 1e-5
# Where bounds are looked for at most; curves are flat, or straight, beyond.
FAR = 100.0


def bends(rows: Array, above: Array, below: Array) -> Array:
    """The score [B, M] of neurons that are split at points: what the distances ``above`` and ``below`` [B, M] of lines
    from the curve, times the coefficients ``rows`` [B, S, M], take from the lower bound."""
    lost = np.maximum(-rows, 0) * above[:, None] + np.maximum(rows, 0) * below[:, None]
    return np.asarray(lost.max(axis=1))


def middles(lower: Array, upper: Array) -> tuple[Array, Array]:
    """Where neurons with these bounds are split at points, float32, and whether they can be."""
    point = (np.clip(lower, -FAR, FAR) * 0.5 + np.clip(upper, -FAR, FAR) * 0.5).astype(np.float32)
    return point, (lower < point) & (point < upper) & (upper - lower > NARROWEST)


def scored(
    branching: Branching, quick: BetaCrown, neurons: Neurons, problems: Subproblems, signs: Array, bias: Array
) -> tuple[Array, Array, Array]:
    """Scores of all neurons, which can be split, and at what points, if not at zero, [B, N].

    Args:
        signs: what is assumed already, [B, N].
        bias: what the operator before the activation adds, [N].
    """
    _, met, gaps = quick.loosest(problems)
    lower, upper = (
        neurons.picked({name: problems.split.clip(name, *problems.bounds[name])[side] for name in quick.values})
        for side in (0, 1)
    )
    rows, undecided = neurons.picked(met), (signs == 0) & (lower < 0) & (upper > 0)
    if not neurons.curves:
        view = BranchingView(lower, upper, rows, bias)
        return np.asarray(branching.score(view)), undecided, np.zeros_like(lower)
    bent, (point, room) = neurons.bent, middles(lower, upper)
    score = np.zeros_like(lower)
    if not bent.all():
        view = BranchingView(lower[:, ~bent], upper[:, ~bent], rows[..., ~bent], bias[~bent])
        score[:, ~bent] = branching.score(view)
    above, below = (neurons.bends.picked({name: pair[side] for name, pair in gaps.items()}) for side in (0, 1))
    score[:, bent] = bends(rows[..., bent], above, below)
    return score, np.where(bent, room, undecided), point
