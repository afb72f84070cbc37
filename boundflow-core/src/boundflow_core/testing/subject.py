"""What is tested: a method over domains, run by an executor in one element type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.assemble import check_options, write_program
from boundflow_core.extension import Domain, Executor, Method
from boundflow_core.ir.evaluate import bind_symbols, evaluate
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.program import BoundProgram
from boundflow_core.ir.types import DType

__all__ = ["Subject", "executor_evaluate"]

Array = NDArray[Any]
Evaluate = Callable[[BoundProgram, Mapping[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True)
class Subject:
    """A method over domains.

    Attributes:
        domains: the domains that the method names, by name.
        evaluate: ``evaluate(program, inputs) -> outputs``, arrays by name: the reference interpreter or an executor.
        dtype: element type of the programs.
        options: the method's options.
    """

    method: Method
    domains: Mapping[str, Domain]
    evaluate: Evaluate = evaluate
    dtype: DType = DType.FLOAT64
    options: Mapping[str, Any] = field(default_factory=dict)

    def program(self, graph: PrimalGraph, spec: str | None) -> BoundProgram:
        """The program of the method; ``spec`` as of :func:`boundflow_core.assemble.write_program`."""
        options = check_options(self.method, self.options)
        return write_program(graph, self.method, self.domains, dtype=self.dtype, spec=spec, options=options)

    def run(self, program: BoundProgram, inputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Lower and upper bounds, flat [B, n] and in float64."""
        kind = self.dtype.numpy
        results = self.evaluate(program, {name: np.asarray(array, dtype=kind) for name, array in inputs.items()})
        flat = [np.asarray(results[name], dtype=np.float64) for name in ("lower", "upper")]
        return flat[0].reshape(flat[0].shape[0], -1), flat[1].reshape(flat[1].shape[0], -1)


def executor_evaluate(executor: Executor) -> Evaluate:
    """Runs programs on an executor as the reference interpreter does."""
    from boundflow_core.planner.pipeline import bind_plan, make_plan
    from boundflow_core.scheduler import RunCounts, Schedule

    def run(program: BoundProgram, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        sizes = bind_symbols(program, {name: array.shape for name, array in inputs.items()})
        plan = bind_plan(make_plan(program, executor), sizes)
        results = Schedule(plan, executor.open(plan, None), program.name).run(inputs, RunCounts())
        return {name: np.asarray(array) for name, array in results.items()}

    return run
