"""Executor ``torch``: primitives as torch calls, on the device of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from boundflow_core.executors.steps import StepRunner, make_runner
from boundflow_core.executors.torch_kernels import DTYPES, KERNELS
from boundflow_core.ir.constants import Constant
from boundflow_core.ir.program import Op, Value
from boundflow_core.planner.plan import PlanBundle

__all__ = ["prepare"]


def prepare(plan: PlanBundle) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """A runner of ``plan`` from arrays (torch or NumPy) by name to torch tensors by name.

    It runs where the first torch input lies; weights are brought there once. Gradients are recorded only where the plan
    is differentiable.
    """
    runners: dict[torch.device, StepRunner] = {}

    def run(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        device = next((x.device for x in inputs.values() if isinstance(x, torch.Tensor)), torch.device("cpu"))
        with torch.set_grad_enabled(plan.differentiable and torch.is_grad_enabled()):
            if device not in runners:
                runners[device] = _runner(plan, device)
            return runners[device](inputs)

    return run


def _runner(plan: PlanBundle, device: torch.device) -> StepRunner:
    def load(constant: Constant, value: Value) -> torch.Tensor:
        data = constant.data
        if isinstance(data, torch.Tensor):
            data = data if plan.differentiable else data.detach()
        else:
            data = torch.from_numpy(np.array(data))
        return data.to(device=device, dtype=DTYPES[value.type.dtype])

    def convert(value: Value) -> Callable[[Any], torch.Tensor]:
        dtype = DTYPES[value.type.dtype]
        return lambda array: torch.as_tensor(array, dtype=dtype, device=device)

    def kernel(op: Op) -> Callable[..., torch.Tensor]:
        return KERNELS[op.name](op)

    return make_runner(plan.program, kernel, load, convert)
