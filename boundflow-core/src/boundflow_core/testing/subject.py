"""What is tested: a method over domains, run by an executor in one element type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.extension import Domain, Executor, Method
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.program import BoundProgram
from boundflow_core.ir.types import DType
from boundflow_core.runner import Planning, ProgramRunner, RunStats
from boundflow_core.workshop import check_options, make_workshop, recipe_of, write_program

__all__ = ["Evaluate", "Run", "Subject", "executor_evaluate"]

Array = NDArray[Any]
Evaluate = Callable[[BoundProgram, Mapping[str, Array]], Mapping[str, Array]]
Run = Callable[[Mapping[str, Array]], Mapping[str, Any]]


@dataclass(frozen=True)
class Subject:
    """A method over domains.

    Attributes:
        domains: the domains that the method names, by name.
        evaluate: ``evaluate(program, inputs) -> outputs``, arrays by name: the reference interpreter or an executor.
            The programs of a method with several are planned: for those it must be an executor, or the executor
            "reference" runs them.
        dtype: element type of the programs.
        options: the method's options.
    """

    method: Method
    domains: Mapping[str, Domain]
    evaluate: Evaluate = evaluate
    dtype: DType = DType.FLOAT64
    options: Mapping[str, Any] = field(default_factory=dict)

    def compiled(self, graph: PrimalGraph, spec: str | None) -> Run:
        """``run(inputs) -> outputs`` as of :class:`boundflow_core.workshop.Recipe`.

        Args:
            spec: form of the specification: None, "shared" or "per region".
        """
        options = check_options(self.method, self.options)
        if self.method.recipe is None:
            program = write_program(graph, self.method, self.domains, dtype=self.dtype, spec=spec, options=options)
            return lambda inputs: self.evaluate(program, inputs)
        executor = self.evaluate.executor if isinstance(self.evaluate, _OnExecutor) else _reference()
        workshop = make_workshop(
            graph,
            self.method,
            self.domains,
            dtype=self.dtype,
            spec=spec,
            options=options,
            planning=Planning(executor, method=self.method.name),
        )
        recipe = recipe_of(self.method, workshop)
        return lambda inputs: recipe.run(inputs, None)

    def run(self, compiled: Run, inputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Lower and upper bounds, flat [B, n] and in float64."""
        kind = self.dtype.numpy
        results = compiled({name: np.asarray(array, dtype=kind) for name, array in inputs.items()})
        flat = [np.asarray(results[name], dtype=np.float64) for name in ("lower", "upper")]
        return flat[0].reshape(flat[0].shape[0], -1), flat[1].reshape(flat[1].shape[0], -1)


@dataclass(frozen=True)
class _OnExecutor:
    executor: Executor

    def __call__(self, program: BoundProgram, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        runner = ProgramRunner(lambda: program, Planning(self.executor), RunStats())
        return {name: np.asarray(array) for name, array in runner(inputs).items()}


def executor_evaluate(executor: Executor) -> Evaluate:
    """Runs programs on an executor as the reference interpreter does."""
    return _OnExecutor(executor)


def _reference() -> Executor:
    from boundflow_core.plugins import registry

    return registry().executor("reference")
