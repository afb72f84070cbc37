"""Subproblems in which no neuron is undecided: a linear program says what multipliers give the best bound.

There the network is linear. For fixed slopes the bound is the least value on the box of a linear function of the input
that multipliers of splits add to, so the best ones solve a linear program, the dual of minimising the network over the
points that meet the assumptions. Ascent comes near to them; thin margins need them exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.neurons import Neurons
from boundflow_crown import BetaCrown, Subproblems

__all__ = ["Optimum", "optimum"]

Array = NDArray[Any]

# Of multipliers, in their unit: where no point meets all assumptions bounds rise without end.
MOST = 1e4
# Coefficients of splits on inputs, all together, of linear programs that are not too large.
LARGEST = 1 << 22
# Splits that are measured at once.
AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Optimum:
    """Of one subproblem.

    Attributes:
        multipliers: the best ones, [N] float32, 0 for neurons that are not split.
        bound: what they give, up to rounding.
        point: [*input], in the box: where the network takes that value, if any point meets the assumptions.
    """

    multipliers: Array
    bound: float
    point: Array


def optimum(
    quick: BetaCrown, neurons: Neurons, problem: Subproblems, signs: Array, seconds: float = math.inf
) -> Optimum | None:
    """The best multipliers for the only row of ``problem``, a batch of one; None: the linear program was not solved, is
    too large, or not made of finite numbers.

    Args:
        signs: what is assumed, [N].
        seconds: that the linear program may take.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, hstack, identity, vstack

    split = np.flatnonzero(signs)
    if len(split) * problem.lower[0].size > LARGEST:
        return None
    A, c = _measured(quick, neurons, problem, split)
    if not (np.isfinite(A).all() and np.isfinite(c).all()):
        return None
    lower, upper = (side[0].reshape(-1).astype(np.float64) for side in (problem.lower, problem.upper))
    count, size = len(split), A.shape[1]
    # The greatest sum of z, where z <= a x at both ends of each input, and a is A[0] and what multipliers add to it.
    change, cost = A[1:] - A[0], np.concatenate([c[0] - c[1:], np.full(size, -1.0)])
    ends = [hstack([csr_matrix(-(change * end).T), identity(size)]) for end in (lower, upper)]
    found = linprog(
        cost,
        A_ub=vstack(ends, format="csr"),
        b_ub=np.concatenate([A[0] * lower, A[0] * upper]),
        bounds=[(0, MOST)] * count + [(None, None)] * size,
        method="highs",
        options={"time_limit": seconds} if math.isfinite(seconds) else {},
    )
    if found.status != 0:
        return None
    multipliers = np.zeros(len(signs), dtype=np.float32)
    multipliers[split] = np.maximum(found.x[:count], 0)
    at_upper = -np.asarray(found.ineqlin.marginals)[size:]
    point = np.clip(lower + at_upper * (upper - lower), lower, upper)
    return Optimum(multipliers, float(c[0] - found.fun), point.reshape(problem.lower.shape[1:]))


def _measured(quick: BetaCrown, neurons: Neurons, problem: Subproblems, split: Array) -> tuple[Array, Array]:
    """Coefficients [1 + k, n] and constants [1 + k] of the bound without multipliers, and with each of the k neurons'
    alone, of 1."""
    row = np.zeros((1 + len(split), 1, len(neurons)), dtype=np.float32)
    row[1 + np.arange(len(split)), 0, split] = 1.0
    found = []
    for start in range(0, len(row), AT_ONCE):
        rows = row[np.minimum(np.arange(start, start + AT_ONCE), len(row) - 1)] if len(row) > AT_ONCE else row
        found.append(quick.linear(_repeated(problem, neurons, rows)))
    A, c = (np.concatenate(parts)[: len(row)] for parts in zip(*found, strict=True))
    return A.reshape(len(row), -1), c


def _repeated(problem: Subproblems, neurons: Neurons, multipliers: Array) -> Subproblems:
    """The batch of one with each of ``multipliers`` [B, 1, N]."""
    index = np.zeros(len(multipliers), dtype=np.int64)
    return replace(
        problem,
        lower=problem.lower[index],
        upper=problem.upper[index],
        C=problem.C[index],
        offset=problem.offset[index],
        bounds={name: (low[index], high[index]) for name, (low, high) in problem.bounds.items()},
        split=problem.split[index],
        unit={name: np.broadcast_to(unit, (1,))[index] for name, unit in problem.unit.items()},
        slopes={name: slopes[index] for name, slopes in problem.slopes.items()},
        multipliers=neurons.spread(multipliers),
    )
