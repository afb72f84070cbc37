"""Which neuron to split: a score for all of them, and a look at what splits of the best would bring."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.extension import Branching, BranchingView

__all__ = ["BABSR", "INTERCEPT", "candidates", "gains"]

Array = NDArray[Any]


def _chord(view: BranchingView) -> tuple[Array, Array]:
    """Slope and bias of the line above, [B, N]."""
    low, high = np.minimum(view.lower, 0), np.maximum(view.upper, 0)
    slope = high / np.maximum(high - low, 1e-30)
    return slope, -slope * low


def intercept(view: BranchingView) -> Array:
    """What the bias of the line above takes from the lower bound; a split takes all of it back."""
    _, bias = _chord(view)
    return np.asarray((np.maximum(-view.rows, 0) * bias[:, None]).max(axis=1))


def babsr(view: BranchingView) -> Array:
    """By how much the bound changes if the neuron's line above is replaced by either side of the split, the weights
    before it left alone. Bunel et al., Branch and Bound for Piecewise Linear Neural Network Verification, 2020,
    section 5.1.2."""
    slope, bias = _chord(view)
    moved = view.rows * view.bias
    loss = np.minimum(view.rows, 0) * bias[:, None]
    either = np.maximum(moved * (slope - 1)[:, None], moved * slope[:, None])
    return np.asarray(np.abs(either + loss).max(axis=1))


INTERCEPT = Branching("intercept", "the neuron whose relaxation takes most from the bound", intercept)
BABSR = Branching("babsr", "the neuron whose relaxation, with the bias before it, takes most from the bound", babsr)


def candidates(score: Array, able: Array, count: int) -> Array:
    """Numbers [B, k] of the ``able`` neurons of the highest scores [B, N], the best first; -1 where there are fewer."""
    count = min(count, score.shape[1])
    held = np.where(able, np.nan_to_num(score, nan=0.0, posinf=1e30, neginf=0.0), -np.inf)
    some = np.argpartition(-held, count - 1, axis=1)[:, :count]
    worth = np.take_along_axis(held, some, axis=1)
    order = np.argsort(-worth, axis=1, kind="stable")
    some, worth = np.take_along_axis(some, order, axis=1), np.take_along_axis(worth, order, axis=1)
    return np.where(worth == -np.inf, -1, some)


def gains(before: Array, after: Array) -> Array:
    """How good splits are, [B, k], whose children have the bounds ``after`` [B, k, 2] instead of ``before`` [B]: the
    product of what both gain, of which nothing counts above zero. De Palma et al., Improved Branch and Bound for Neural
    Network Verification via Lagrangian Decomposition, 2021, section 5, look ahead in this way."""
    open_ = np.maximum(-before, 1e-12)[:, None, None]
    gain = np.clip(after - before[:, None, None], 0, open_) / open_
    return np.asarray((gain + 1e-3).prod(axis=2))
