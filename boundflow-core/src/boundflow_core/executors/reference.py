"""Executor ``reference``: the primitives' own NumPy meanings one after another: slow, and the measure of all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from boundflow_core.executors.numpy_kernels import KERNELS
from boundflow_core.executors.steps import Kernel, StepSession
from boundflow_core.executors.workspace import NUMPY_WORKING, numpy_workspace
from boundflow_core.ir.constants import Constant, as_numpy
from boundflow_core.ir.program import Op, Primitive, Value
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.planner.storage import ALIGNMENT, MemoryTraits

__all__ = ["TRAITS", "NumpyBackend", "open_session"]

TRAITS = MemoryTraits(into=frozenset(KERNELS), workspace=numpy_workspace, working=NUMPY_WORKING)


def open_session(plan: PlanBundle, device: Any = None) -> StepSession:
    """``plan`` ready to run on NumPy arrays."""
    with np.errstate(all="ignore"):
        return _QuietSession(plan, NumpyBackend())


class _QuietSession(StepSession):
    @contextmanager
    def running(self) -> Iterator[None]:
        with np.errstate(all="ignore"):
            yield


class NumpyBackend:
    """NumPy arrays for sessions by steps."""

    def allocate(self, count: int) -> Any:
        memory = np.empty(count + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + count]

    def view(
        self, memory: Any, start: int, value: Value, shape: Sequence[int], strides: Sequence[int], offset: int
    ) -> Any:
        dtype = value.type.dtype.numpy
        bytewise = [stride * dtype.itemsize for stride in strides]
        return np.ndarray(tuple(shape), dtype, memory, start + offset * dtype.itemsize, bytewise)

    def load(self, constant: Constant, value: Value) -> Any:
        return np.asarray(constant.numpy(), dtype=value.type.dtype.numpy)

    def convert(self, array: Any, value: Value) -> Any:
        return np.asarray(as_numpy(array), dtype=value.type.dtype.numpy)

    def copy(self, target: Any, source: Any) -> None:
        target[...] = source

    def clone(self, array: Any) -> Any:
        return np.array(array)

    def kernel(self, op: Op, fixed: Mapping[int, Any]) -> Kernel:
        if op.name in KERNELS:
            return KERNELS[op.name](op)
        assert isinstance(op.spec, Primitive)
        reference, attrs = op.spec.reference, op.attrs
        return lambda *arrays: reference(arrays, attrs)
