"""Lowerings: what a strategy runs gives what the operation's decomposition gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.extension import Domain, Executor, LoweringStrategy, Method
from boundflow_core.ir.constants import as_numpy
from boundflow_core.ir.evaluate import call_op
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.program import Op
from boundflow_core.ir.types import DType
from boundflow_core.plugins import registry
from boundflow_core.runner import Planning, RunStats
from boundflow_core.testing.case import OpCase, as_code
from boundflow_core.testing.executor import close
from boundflow_core.testing.laws import ConformanceError, Gaps, check_subjects, declared, drive
from boundflow_core.testing.points import magnitudes, sample, tolerance_of
from boundflow_core.testing.run import op_cases, op_names
from boundflow_core.testing.subject import Run, Subject, make_subject
from boundflow_core.workshop import check_options, make_workshop, recipe_of

__all__ = ["LOWERING_LAWS", "check_lowered", "check_lowering"]

Array = NDArray[Any]
Bounds = tuple[Array, Array]
Report = Callable[[str, str], None]

LOWERING_LAWS: Mapping[str, str] = {
    "operands": "a kernel leaves its operands as they are",
    "outputs": "a kernel gives what the operation's decomposition gives for the same operands",
    "values": "bounds are those of the reference interpreter",
    "batch": "the bounds of a region do not depend on the others of its batch",
}


def check_lowering(
    lowering: str | LoweringStrategy,
    method: str | Method,
    domains: Iterable[Domain] | None = None,
    *,
    ops: Iterable[str] | None = None,
    dtypes: Iterable[str | DType] = ("float64", "float32"),
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    examples: int = 30,
    shrink: bool = True,
) -> None:
    """Checks that programs of ``method``, run with a lowering, give the bounds of the reference interpreter.

    Programs are for outputs and for specification rows. Each call of the strategy's kernel is compared with the
    decomposition on the same operands; of a strategy without a kernel, which its executor has the code of, only bounds
    are compared.

    Args:
        lowering: a strategy, or the name of a registered one. Its executor's plans are made with it among the others.
        method, domains, options: as of :func:`boundflow_core.testing.check_op_rule`.
        ops: operators around which networks are drawn; None: all of the kit that the method has rules for.
        expected_failures: known gaps with their reasons: "OP" or "OP:LAW", laws of :data:`LOWERING_LAWS`.
        examples: number of networks for each operator and element type.

    Raises:
        ConformanceError: a law does not hold, with the smallest case found as code to paste; or no plan used the
            strategy.
        ValueError: ``ops`` or ``expected_failures`` name operators that are not checked.
    """
    strategy, known, kinds = _strategy(lowering), expected_failures or {}, [DType(dtype) for dtype in dtypes]
    plain = make_subject(method, domains, options=options)
    ops = _rules_of(plain) if ops is None else list(ops)
    if unknown := set(ops) - set(op_names()):
        raise ValueError(f"ops: no operators are called {sorted(unknown)}; the kit has {', '.join(op_names())}")
    check_subjects(known, ops, "operators that are checked")
    stats = RunStats()
    for op in ops:
        gaps = declared(op, known, LOWERING_LAWS)
        for subject in (replace(plain, dtype=kind) for kind in kinds):

            def run(case: OpCase, subject: Subject = subject, gaps: Gaps = gaps) -> None:
                _check(case, subject, strategy, gaps, stats)

            drive(run, op_cases(op), examples, shrink, gaps)
        gaps.expire()
    _check_used(strategy, stats)


def check_lowered(
    case: OpCase,
    lowering: str | LoweringStrategy,
    method: str | Method,
    domains: Iterable[Domain] | None = None,
    *,
    dtype: str | DType = "float64",
    options: Mapping[str, Any] | None = None,
) -> None:
    """Checks one case; arguments as of :func:`check_lowering`.

    Raises:
        ConformanceError: a law does not hold, or no plan used the strategy.
    """
    strategy, stats = _strategy(lowering), RunStats()
    subject = make_subject(method, domains, dtype=dtype, options=options)
    _check(case, subject, strategy, Gaps(case.op), stats)
    _check_used(strategy, stats)


def _strategy(lowering: str | LoweringStrategy) -> LoweringStrategy:
    return registry().lowering(lowering) if isinstance(lowering, str) else lowering


def _rules_of(subject: Subject) -> list[str]:
    """Operators that each of the method's domains has a rule for, without those that the kit has no cases of."""
    return sorted(set(op_names()).intersection(*(domain.rules for domain in subject.domains.values())))


def _check_used(strategy: LoweringStrategy, stats: RunStats) -> None:
    if not stats.lowering.get(strategy.name):
        raise ConformanceError("used", f"no plan for {strategy.executor} ran an operation by {strategy.name}")


def _check(case: OpCase, subject: Subject, strategy: LoweringStrategy, gaps: Gaps, stats: RunStats) -> None:
    def report(law: str, what: str) -> None:
        head = f"{strategy.name} on {case.op} ({subject.dtype}), law {law!r}: {what}"
        gaps.report(law, lambda: f"{head}\n\n{as_code(case, _call(subject, strategy))}")

    executor = _executor_with(_watched(strategy, report))
    for spec in (None, "shared" if len(case.rows) == 1 else "per region"):
        _check_bounds(case, subject, spec, _planned(case.graph, subject, executor, spec, stats), report)


def _check_bounds(case: OpCase, subject: Subject, spec: str | None, planned: Run, report: Report) -> None:
    """Compares bounds of a planned run with the interpreter's, and those of single regions with a batch's."""
    inputs, of = {"lower": case.lower, "upper": case.upper}, "bounds"
    if spec is not None:
        inputs, of = {**inputs, "C": case.rows, "offset": case.offset}, "bounds of specification rows"
    want = subject.run(_interpreted(subject).compiled(case.graph, spec), inputs)
    tolerance = tolerance_of(subject.dtype, magnitudes(case, sample(case)), *want)
    if spec is not None:
        tolerance *= max(1.0, float(np.abs(case.rows).sum(axis=2).max()))

    def compare(law: str, got: Bounds, other: Bounds, what: str) -> None:
        if not all(np.allclose(a, b, rtol=0, atol=tolerance, equal_nan=True) for a, b in zip(got, other, strict=True)):
            report(law, f"{of} {what}: {[end.tolist() for end in got]} and {[end.tolist() for end in other]}")

    got = subject.run(planned, inputs)
    compare("values", got, want, "differ from those of the reference interpreter")
    for i in range(len(case.lower)):
        alone = {name: array if len(array) == 1 else array[i : i + 1] for name, array in inputs.items()}
        part = (got[0][i : i + 1], got[1][i : i + 1])
        compare("batch", subject.run(planned, alone), part, f"of region {i} alone differ from those in a batch")


def _executor_with(strategy: LoweringStrategy) -> Executor:
    """The strategy's executor with it among its strategies, instead of a registered one of the same name."""
    executor = registry().executor(strategy.executor)
    others = (other for other in executor.strategies if other.name != strategy.name)
    return replace(executor, strategies=(*others, strategy))


def _interpreted(subject: Subject) -> Subject:
    """The subject of the bounds to compare with: where several programs need an executor, one without lowerings."""
    if subject.interpreted:
        return subject
    return replace(subject, executor=replace(registry().executor("reference"), strategies=()))


def _planned(graph: PrimalGraph, subject: Subject, executor: Executor, spec: str | None, stats: RunStats) -> Run:
    workshop = make_workshop(
        graph,
        subject.method,
        subject.domains,
        dtype=subject.dtype,
        spec=spec,
        options=check_options(subject.method, subject.options),
        planning=Planning(executor, tuple(registry().passes.values()), method=subject.method.name),
        stats=stats,
    )
    recipe = recipe_of(subject.method, workshop)
    return lambda inputs: recipe.run(inputs, None)


def _watched(strategy: LoweringStrategy, report: Report) -> LoweringStrategy:
    """The strategy, with every call of its kernel checked."""
    kernel = strategy.kernel
    if kernel is None:
        return strategy

    def watched(op: Op) -> Callable[..., Any]:
        run = kernel(op)

        def call(*operands: Any) -> Any:
            before = [np.array(as_numpy(operand)) for operand in operands]
            results = run(*operands)
            for place, (operand, old) in enumerate(zip(operands, before, strict=True)):
                if not _same(as_numpy(operand), old):
                    report("operands", f"the kernel of {op.name} writes to its operand {place}")
            _check_results(op, before, results if isinstance(results, tuple) else (results,), report)
            return results

        return call

    return replace(strategy, kernel=watched)


def _same(one: Array, other: Array) -> bool:
    return np.array_equal(one, other, equal_nan=other.dtype.kind == "f")


def _check_results(op: Op, operands: Sequence[Array], results: Sequence[Any], report: Report) -> None:
    """Compares a kernel's results with the operation's meaning; in their element type, which results may differ in."""
    wanted = call_op(op, operands)
    if len(results) != len(wanted):
        report("outputs", f"the kernel of {op.name} gives {len(results)} results, not {len(wanted)}")
        return
    scale = _scale(operands)
    for place, (result, want) in enumerate(zip(results, wanted, strict=True)):
        got = as_numpy(result).astype(want.dtype)
        if got.shape != want.shape or not close(got, want, scale):
            report("outputs", f"result {place} of {op} is {got.tolist()}, not {want.tolist()}, for {_listed(operands)}")


def _listed(arrays: Sequence[Array]) -> str:
    return ", ".join(str(array.tolist()) for array in arrays)


def _scale(operands: Sequence[Array]) -> float:
    """What a product of operands can come to before terms cancel."""
    floats = [array[np.isfinite(array)] for array in operands if array.dtype.kind == "f"]
    largest = sorted((max(1.0, float(np.abs(array).max(initial=0.0))) for array in floats), reverse=True)
    return math.prod(largest[:2])


def _call(subject: Subject, strategy: LoweringStrategy) -> str:
    """Code that checks a case again. What is not registered: ``lowering``."""
    name = repr(strategy.name) if registry().lowerings.get(strategy.name) is strategy else "lowering"
    return (
        f"from boundflow_core.testing.lowering import check_lowered\ncheck_lowered(case, {name}, {subject.arguments()})"
    )
