"""A lowering: code of one's own for one composite, on an executor that somebody else brings.

``interval_matmul`` is the interval product of boundflow-interval. Without a kernel the executor ``reference`` runs its
decomposition into primitives; this one computes ``c W^T + b`` and ``r |W|^T``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from boundflow_core.extension import LoweringStrategy
from boundflow_core.ir.program import Op
from boundflow_core.plugins import hookimpl

BOUNDFLOW_API = (1, 2)


def supports(op: Op, known: Sequence[bool]) -> str | None:
    """Why it cannot run ``op``; None where it can."""
    if op.name != "interval_matmul":
        return "it runs interval_matmul alone"
    return None if op.attrs["side"] == "right" else "the weight must be on the right"


def estimate(op: Op, known: Sequence[bool]) -> float:
    """Seconds; the planner compares strategies by it."""
    return 1e-5


def kernel(op: Op) -> Callable[..., tuple[Any, Any]]:
    """From (lower, upper [..., n], W, bias?) to (lower, upper), both new arrays."""
    transposed = op.attrs["transpose"]

    def interval_matmul(lower: Any, upper: Any, weight: Any, bias: Any = None) -> tuple[Any, Any]:
        weight = weight.T if transposed else weight
        centre, radius = (lower + upper) * 0.5 @ weight, (upper - lower) * 0.5 @ np.abs(weight)
        if bias is not None:
            centre += bias
        return centre - radius, np.add(centre, radius, out=radius)

    return interval_matmul


@hookimpl
def boundflow_register_lowerings() -> list[LoweringStrategy]:
    return [
        LoweringStrategy(
            "numpy-pair", "interval products as two", "reference", lambda: None, supports, estimate, kernel
        )
    ]
