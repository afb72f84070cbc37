"""What is tested: a method over domains, run by the reference interpreter or an executor in one element type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.extension import Domain, Executor, Method
from boundflow_core.ir.evaluate import evaluator
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.program import BoundProgram
from boundflow_core.ir.types import DType
from boundflow_core.plugins import registry
from boundflow_core.runner import Planning
from boundflow_core.workshop import check_options, make_workshop, recipe_of, write_program

__all__ = ["Run", "Subject", "executor_of", "make_subject"]

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], Mapping[str, Any]]


@dataclass(frozen=True)
class Subject:
    """A method over domains.

    Attributes:
        domains: the domains that the method names, by name.
        executor: who runs; None: the reference interpreter, without a plan, or for a method of several programs the
            executor "reference".
        dtype: element type of the programs.
        options: the method's options.
    """

    method: Method
    domains: Mapping[str, Domain]
    executor: Executor | None = None
    dtype: DType = DType.FLOAT64
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def interpreted(self) -> bool:
        """Whether its program runs as it is written."""
        return self.executor is None and self.method.recipe is None

    def program(self, graph: PrimalGraph, spec: str | None, ball: float | None = None) -> BoundProgram:
        """The program of a method of one program."""
        options = check_options(self.method, self.options)
        return write_program(graph, self.method, self.domains, dtype=self.dtype, spec=spec, options=options, ball=ball)

    def compiled(self, graph: PrimalGraph, spec: str | None, ball: float | None = None) -> Run:
        """``run(inputs) -> outputs`` as of :class:`boundflow_core.workshop.Recipe`.

        Args:
            spec: form of the specification: None, "shared" or "per region".
            ball: the norm, 1 or 2, of regions that are balls; None: boxes.
        """
        if self.interpreted:
            return evaluator(self.program(graph, spec, ball))
        executor = self.executor or registry().executor("reference")
        workshop = make_workshop(
            graph,
            self.method,
            self.domains,
            dtype=self.dtype,
            spec=spec,
            options=check_options(self.method, self.options),
            ball=ball,
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

    def arguments(self) -> str:
        """Arguments of ``check_case`` after the case, as code. What is not registered: ``method``, ``domains``."""
        plugins = registry()
        ours = plugins.methods.get(self.method.name) is self.method and all(
            plugins.domains.get(name) is domain for name, domain in self.domains.items()
        )
        parts = [repr(self.method.name)] if ours else ["method", "domains"]
        if self.executor is not None:
            known = plugins.executors.get(self.executor.name) is self.executor
            parts.append(f"executor={self.executor.name!r}" if known else "executor=executor")
        parts.append(f"dtype={self.dtype.value!r}")
        if self.options:
            parts.append(f"options={dict(self.options)!r}")
        return ", ".join(parts)


def make_subject(
    method: str | Method,
    domains: Iterable[Domain] | None = None,
    *,
    executor: str | Executor | None = None,
    dtype: DType | str = DType.FLOAT64,
    options: Mapping[str, Any] | None = None,
) -> Subject:
    """The subject of these names or objects; domains that are not handed in are the registered ones.

    Raises:
        UnknownNameError: nothing of that name is registered.
        ValueError: the method does not use one of ``domains``.
    """
    own = {domain.name: domain for domain in domains or ()}
    method = registry().method(method) if isinstance(method, str) else method
    if unused := set(own) - set(method.domains):
        raise ValueError(f"method {method.name!r} uses {', '.join(method.domains)}, not {', '.join(sorted(unused))}")
    used = {name: own[name] if name in own else registry().domain(name) for name in method.domains}
    running = None if executor is None else executor_of(executor)
    return Subject(method, used, running, DType(dtype), options or {})


def executor_of(executor: str | Executor) -> Executor:
    """The executor, or the registered one of this name."""
    return registry().executor(executor) if isinstance(executor, str) else executor
