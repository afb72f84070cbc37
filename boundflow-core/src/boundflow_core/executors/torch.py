"""Executor ``torch``: primitives as torch calls, on the device of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
    is differentiable. Products of float32 numbers are full float32 products, whatever short cut (TF32, bfloat16) torch
    is set to: their errors are a thousand times float32's.
    """
    runners: dict[torch.device, StepRunner] = {}

    def run(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        device = next((x.device for x in inputs.values() if isinstance(x, torch.Tensor)), torch.device("cpu"))
        with torch.set_grad_enabled(plan.differentiable and torch.is_grad_enabled()), _full_precision():
            if device not in runners:
                runners[device] = _runner(plan, device)
            return runners[device](inputs)

    return run


@contextmanager
def _full_precision() -> Iterator[None]:
    backends = torch.backends
    switches: list[tuple[Any, str, Any]]
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        modules = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
        switches = [(module, "fp32_precision", "ieee") for module in modules]
    else:  # before torch 2.9
        switches = [(backends.cuda.matmul, "allow_tf32", False), (backends.cudnn, "allow_tf32", False)]
    before = [getattr(module, name) for module, name, _ in switches]
    try:
        for module, name, value in switches:
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), value in zip(switches, before, strict=True):
            setattr(module, name, value)


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

        def converted(array: Any) -> torch.Tensor:
            if not isinstance(array, torch.Tensor):
                array = np.asarray(array)
                # Torch takes no arrays of other byte orders or negative strides, and warns of read-only ones.
                array = torch.from_numpy(array if _shareable(array) else np.array(array, array.dtype.newbyteorder("=")))
            return torch.as_tensor(array, dtype=dtype, device=device)

        return converted

    def kernel(op: Op) -> Callable[..., torch.Tensor]:
        return KERNELS[op.name](op)

    return make_runner(plan.program, kernel, load, convert)


def _shareable(array: np.ndarray[Any, Any]) -> bool:
    return array.flags.writeable and array.dtype.isnative and min(array.strides, default=0) >= 0
