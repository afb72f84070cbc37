"""Executor ``torch``: primitives as torch calls, on the device of the inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from boundflow_core.executors.convolution import PIECE
from boundflow_core.executors.steps import Kernel, StepSession
from boundflow_core.executors.torch_convolution import ONEDNN, conv2d_input_grad
from boundflow_core.executors.torch_kernels import DTYPES, INTO, KERNELS
from boundflow_core.executors.workspace import TORCH_WORKING, torch_workspace
from boundflow_core.ir.constants import Constant
from boundflow_core.ir.program import Op, Value
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.planner.storage import MemoryTraits

__all__ = ["TRAITS", "TorchBackend", "TorchSession", "full_precision", "open_session"]

TRAITS = MemoryTraits(
    into=INTO,
    arranged=frozenset({"conv2d", "conv2d_input_grad"}),
    workspace=partial(torch_workspace, onednn=ONEDNN),
    working=TORCH_WORKING,
)


def open_session(plan: PlanBundle, device: Any = None) -> StepSession:
    """``plan`` ready to run on torch tensors of ``device``.

    Gradients are recorded only where the plan is differentiable. Products of float32 numbers are full float32 products,
    whatever short cut (TF32, bfloat16) torch is set to: their errors are a thousand times float32's.
    """
    target = torch.device(device) if device is not None else torch.device("cpu")
    _keep_freed_memory()
    with torch.no_grad(), full_precision():
        return TorchSession(plan, TorchBackend(target, plan.differentiable))


def _keep_freed_memory() -> None:
    """Has the C library keep what kernels free, to hand it out again.

    glibc gives memory back to the system once more than twice the largest block is free that it ever saw freed, and
    the next kernel pays for every page anew: two fifths of the time of ``crown`` on cifar_base_kw. So it sees a block
    larger than any that a kernel allocates (its limit for such blocks is 32 MiB). Nobody writes to this one, so it
    takes no memory. Elsewhere this changes nothing.
    """
    torch.empty(4 * PIECE, dtype=torch.uint8)


class TorchSession(StepSession):
    """A plan with its memory on a device of torch. Not for use by two threads at once."""

    @contextmanager
    def running(self) -> Iterator[None]:
        with torch.set_grad_enabled(not self._planned and torch.is_grad_enabled()), full_precision():
            yield


@contextmanager
def full_precision() -> Iterator[None]:
    """Products of float32 numbers are full float32 products, on every device."""
    backends = torch.backends
    switches: list[tuple[Any, str, Any]]
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        modules = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
        switches = [(module, "fp32_precision", "ieee") for module in modules]
    else:  # before torch 2.9
        switches = [(backends.cuda.matmul, "allow_tf32", False), (backends.cudnn, "allow_tf32", False)]
    before = [getattr(module, name) for module, name, _ in switches]
    changed = [(switch, old) for switch, old in zip(switches, before, strict=True) if old != switch[2]]
    try:
        for (module, name, value), _ in changed:
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), old in changed:
            setattr(module, name, old)


class TorchBackend:
    """Tensors on a device; ``differentiable``: gradients may be recorded."""

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
        if not isinstance(array, torch.Tensor):
            array = np.asarray(array)
            # Torch takes no arrays of other byte orders or negative strides, and warns of read-only ones.
            array = torch.from_numpy(array if _shareable(array) else np.array(array, array.dtype.newbyteorder("=")))
        elif not self._differentiable:
            array = array.detach() if array.requires_grad else array
            if array.dtype is DTYPES[value.type.dtype] and array.device == self._device:
                return array
        return torch.as_tensor(array, dtype=DTYPES[value.type.dtype], device=self._device)

    def copy(self, target: Any, source: Any) -> None:
        target.copy_(source)

    def clone(self, array: Any) -> Any:
        return array.clone(memory_format=torch.contiguous_format)

    def kernel(self, op: Op, fixed: Mapping[int, Any]) -> Kernel:
        if op.name == "conv2d_input_grad" and not self._differentiable:
            return conv2d_input_grad(op, fixed.get(1))
        return KERNELS[op.name](op)


def _shareable(array: np.ndarray[Any, Any]) -> bool:
    return array.flags.writeable and array.dtype.isnative and min(array.strides, default=0) >= 0
