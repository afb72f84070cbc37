"""What tests of templates share: one composite compiled by executor `tvm`, against its decomposition in NumPy."""

from __future__ import annotations

import numpy as np

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import bind_symbols, evaluate
from boundflow_core.ir.types import Attrs, DType
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.plugins import registry
from boundflow_core.scheduler import RunCounts, Schedule
from boundflow_tvm.kernels import template_of


def program_of(composite, operands, constants, attrs, dtype):
    """A program of one operation.

    Args:
        operands: name -> (shape, element type or None for the program's).
        constants: name -> array.
    """
    b = Builder(dtype, "one")
    values = []
    for name, (shape, kind) in operands.items():
        values.append(b.constant(constants[name]) if name in constants else b.input(name, shape, kind or dtype))
    outputs = b.write(composite, values, Attrs(attrs))
    return b.finish({f"y{i}": value for i, value in enumerate(outputs)})


def compiled(program, arrays):
    """Results of the compiled program, and the names of the operations that ran."""
    executor = registry().executor("tvm")
    plan = bind_plan(make_plan(program, executor), bind_symbols(program, {n: a.shape for n, a in arrays.items()}))
    results = Schedule(plan, executor.open(plan, None), "").run(arrays, RunCounts())
    return results, [op.name for task in plan.graph.tasks for op in task.ops]


def check(composite, operands, constants, attrs, dtype, arrays, magnitudes=None):
    """Asserts that a kernel of the composite's own gives what its decomposition does.

    Args:
        magnitudes: arrays for which the composite gives the sum of its terms' magnitudes, to which errors are
            compared; without, the largest result counts.
    """
    program = program_of(composite, operands, constants, attrs, dtype)
    (op,) = program.ops
    assert template_of(op, [name in constants for name in operands]) is not None
    results, names = compiled(program, arrays)
    assert names == [composite.name]
    expected = evaluate(program, arrays)
    scales = expected
    if magnitudes is not None:
        fixed = {name: np.abs(array) for name, array in constants.items()}
        scales = evaluate(program_of(composite, operands, fixed, attrs, DType.FLOAT64), magnitudes)
    tolerance = 1e-12 if dtype is DType.FLOAT64 else 1e-5
    for name, value in expected.items():
        assert results[name].dtype == value.dtype and results[name].shape == value.shape
        finite = np.abs(scales[name][np.isfinite(scales[name])]).max(initial=0.0)
        np.testing.assert_allclose(results[name], value, rtol=tolerance, atol=tolerance * finite)
