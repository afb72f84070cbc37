"""A branching heuristic: which neurons a search by branch and bound should split.

It scores whole batches of subproblems; ``boundflow_bab.Options(branching="triangle")`` chooses it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from boundflow_core.extension import Branching, BranchingView
from boundflow_core.plugins import hookimpl

BOUNDFLOW_API = (1, 1)


def score(view: BranchingView) -> Any:
    """What the triangle of the relaxation costs the bound, [B, N]: its area, weighted by the rows that it lowers.

    Only rows with a negative coefficient take the line above, which is where a relu loses.
    """
    area = np.maximum(-view.lower, 0) * np.maximum(view.upper, 0)
    return area * np.maximum(-view.rows, 0).max(axis=1)


@hookimpl
def boundflow_register_branching() -> list[Branching]:
    return [Branching("triangle", "the neuron whose triangle costs most", score)]
