"""Small random ReLU networks, and what is true of them: activation patterns enumerated, an LP for each."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.normalize import normalize

Array = NDArray[Any]
Layers = list[tuple[Array, Array]]


def random_layers(numbers: np.random.Generator, inputs: int, hidden: tuple[int, ...], outputs: int) -> Layers:
    sizes = (inputs, *hidden, outputs)
    # Numbers of few digits, exact in float32, so that the network in float32 is the network that is enumerated.
    return [
        (np.round(numbers.normal(size=(m, n)) * 8) / 8, np.round(numbers.normal(size=m) * 4) / 8)
        for n, m in pairwise(sizes)
    ]


def network(layers: Layers) -> PrimalGraph:
    g = PrimalBuilder("net", "x", (layers[0][0].shape[1],))
    y = g.input
    for number, (weight, bias) in enumerate(layers):
        y = g.op("linear", y, weight, bias)
        if number < len(layers) - 1:
            y = g.op("relu", y)
    return normalize(g.finish(y), batch_axis=False)


def least_margin(layers: Layers, lower: Array, upper: Array, C: Array, d: Array) -> float:
    """The least value over the box of the largest row ``C y + d``, exactly but for the LP's tolerance."""
    hidden = [len(bias) for _, bias in layers[:-1]]
    best = np.inf
    for pattern in product((0.0, 1.0), repeat=sum(hidden)):
        gates = np.split(np.array(pattern), np.cumsum(hidden)[:-1])
        rows, right = [], []
        A, c = np.eye(len(lower)), np.zeros(len(lower))
        for (weight, bias), gate in zip(layers, [*gates, None], strict=True):
            A, c = weight @ A, weight @ c + bias
            if gate is None:
                break
            sign = np.where(gate > 0, -1.0, 1.0)
            rows.append(sign[:, None] * A)  # on: -(A x) <= c, off: A x <= -c
            right.append(-sign * c)
            A, c = gate[:, None] * A, gate * c
        objective = np.zeros(len(lower) + 1)
        objective[-1] = 1.0
        # The largest row lies below t.
        top = np.hstack([C @ A, -np.ones((len(C), 1))])
        inside = np.hstack([np.concatenate(rows), np.zeros((len(pattern), 1))])
        found = linprog(
            objective,
            A_ub=np.vstack([top, inside]),
            b_ub=np.concatenate([-(C @ c + d), *right]),
            bounds=[*zip(lower, upper, strict=True), (None, None)],
            method="highs",
        )
        if found.status == 0:
            best = min(best, float(found.fun))
    return best
