"""Executor ``torch``: primitives as torch calls, on the device of the inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from boundflow_core.executors.steps import Kernel, StepSession
from boundflow_core.executors.torch_kernels import DTYPES, INTO, KERNELS
from boundflow_core.ir.constants import Constant
from boundflow_core.ir.program import Op, Value
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.planner.storage import MemoryTraits

__all__ = ["TRAITS", "open_session"]

TRAITS = MemoryTraits(into=INTO)


def open_session(plan: PlanBundle, device: Any = None) -> StepSession:
    """``plan`` ready to run on torch tensors of ``device``.

    Gradients are recorded only where the plan is differentiable.
    """
    target = torch.device(device) if device is not None else torch.device("cpu")
    with torch.set_grad_enabled(False):
        return _TorchSession(plan, _TorchBackend(target, plan.differentiable))


class _TorchSession(StepSession):
    def run_task(self, name: str) -> None:
        with torch.set_grad_enabled(not self._planned and torch.is_grad_enabled()):
            super().run_task(name)

    def start(self, inputs: Mapping[str, Any]) -> None:
        with torch.set_grad_enabled(not self._planned and torch.is_grad_enabled()):
            super().start(inputs)


class _TorchBackend:
    def __init__(self, device: torch.device, differentiable: bool) -> None:
        self._device, self._differentiable = device, differentiable

    def allocate(self, count: int) -> Any:
        return torch.empty(count, dtype=torch.uint8, device=self._device)

    def view(
        self, memory: Any, start: int, value: Value, shape: Sequence[int], strides: Sequence[int], offset: int
    ) -> Any:
        dtype = DTYPES[value.type.dtype]
        whole = memory[start : start + (len(memory) - start) // dtype.itemsize * dtype.itemsize].view(dtype)
        return whole.as_strided(tuple(shape), tuple(strides), whole.storage_offset() + offset)

    def load(self, constant: Constant, value: Value) -> Any:
        data = constant.data
        if isinstance(data, torch.Tensor):
            data = data if self._differentiable else data.detach()
        else:
            data = torch.from_numpy(np.array(data))
        return data.to(device=self._device, dtype=DTYPES[value.type.dtype])

    def convert(self, array: Any, value: Value) -> Any:
        return torch.as_tensor(array, dtype=DTYPES[value.type.dtype], device=self._device)

    def copy(self, target: Any, source: Any) -> None:
        target.copy_(source)

    def clone(self, array: Any) -> Any:
        return array.clone(memory_format=torch.contiguous_format)

    def kernel(self, op: Op) -> Kernel:
        return KERNELS[op.name](op)
