"""How fast the core's executors are: measured on two-core machines (``benchmarks/choice.py``), and rounded.

Light: the choice of an executor imports none.
"""

from __future__ import annotations

import sys

from boundflow_core.planner.cost import Cost, Rates, step_seconds
from boundflow_core.planner.plan import PlanBundle

__all__ = ["reference_cost", "torch_cost", "torch_startup"]

REFERENCE = Rates(
    call=1.5e-6,
    bytes=1e10,
    arithmetic={"matmul": 8e10, "conv2d": 1e10, "conv2d_input_grad": 5e9, "conv2d_weight_grad": 5e9},
    elements=dict.fromkeys(("exp", "log", "log1p", "tanh", "sin", "cos", "sigmoid", "pow"), 1e8) | {"erf": 5e6},
)
TORCH = Rates(
    call=4e-6,
    bytes=1.6e10,
    arithmetic={"matmul": 8e10, "conv2d": 5e10, "conv2d_input_grad": 3e10, "conv2d_weight_grad": 2e10},
    elements=dict.fromkeys(("exp", "log", "log1p", "tanh", "sin", "cos", "sigmoid", "pow", "erf"), 3e8),
)
IMPORT_TORCH = 1.5  # seconds


def reference_cost(plan: PlanBundle) -> Cost:
    return Cost(0.0, step_seconds(plan, REFERENCE))


def torch_cost(plan: PlanBundle) -> Cost:
    return Cost(0.0, step_seconds(plan, TORCH))


def torch_startup() -> float:
    return 0.0 if "torch" in sys.modules else IMPORT_TORCH
