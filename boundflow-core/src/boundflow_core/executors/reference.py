"""Executor ``reference``: the primitives' own NumPy meanings one after another: slow, and the measure of all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from boundflow_core.executors.steps import Kernel, make_runner
from boundflow_core.ir.constants import Constant, as_numpy
from boundflow_core.ir.program import Op, Primitive, Value
from boundflow_core.planner.plan import PlanBundle

__all__ = ["prepare"]


def prepare(plan: PlanBundle) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """A runner of ``plan`` from arrays (NumPy or torch) by name to NumPy arrays by name."""
    runner = make_runner(plan.program, _kernel, _load, _convert)

    def run(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        with np.errstate(all="ignore"):
            return runner(inputs)

    return run


def _kernel(op: Op) -> Kernel:
    assert isinstance(op.spec, Primitive)
    reference, attrs = op.spec.reference, op.attrs
    return lambda *arrays: reference(arrays, attrs)


def _load(constant: Constant, value: Value) -> Any:
    return np.asarray(constant.numpy(), dtype=value.type.dtype.numpy)


def _convert(value: Value) -> Callable[[Any], Any]:
    dtype = value.type.dtype.numpy
    return lambda array: np.asarray(as_numpy(array), dtype=dtype)
