"""Lowerings: what a strategy runs gives what the operation's decomposition gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from boundflow_core.extension import Domain, LoweringStrategy, Method
from boundflow_core.ir.types import DType
from boundflow_core.plugins import registry
from boundflow_core.runner import Planning, RunStats
from boundflow_core.testing.case import OpCase, as_code
from boundflow_core.testing.laws import ConformanceError, Gaps, declared, drive
from boundflow_core.testing.points import magnitudes, sample, tolerance_of
from boundflow_core.testing.run import op_cases
from boundflow_core.testing.subject import Subject, make_subject
from boundflow_core.workshop import check_options, make_workshop, recipe_of

__all__ = ["check_lowering"]

LAWS = ("values", "batch")


def check_lowering(
    lowering: str | LoweringStrategy,
    method: str | Method,
    domains: Iterable[Domain] | None = None,
    *,
    ops: Iterable[str] | None = None,
    dtypes: Iterable[str | DType] = ("float64", "float32"),
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    examples: int = 10,
    shrink: bool = True,
) -> None:
    """Checks that programs of ``method``, run with a lowering, give the bounds of the reference interpreter.

    Args:
        lowering: a strategy, or the name of a registered one. Its executor's plans are made with it among the others.
        method, domains, options: as of :func:`boundflow_core.testing.check_op_rule`.
        ops: operators around which networks are drawn; None: all that the method has rules for.
        expected_failures: known gaps with their reasons: "OP", "OP:values" or "OP:batch".
        examples: number of networks for each operator and element type.

    Raises:
        ConformanceError: bounds differ, with the smallest case found as code to paste; or no plan used the strategy.
    """
    strategy = registry().lowerings[lowering] if isinstance(lowering, str) else lowering
    executor = registry().executor(strategy.executor)
    if strategy.name not in {one.name for one in executor.strategies}:
        executor = replace(executor, strategies=(*executor.strategies, strategy))
    own, used = list(domains or ()), [0]
    plain = make_subject(method, own, options=options)
    if ops is None:
        ops = sorted(set.intersection(*(set(plain.domains[name].rules) for name in plain.method.domains)))
    for op in ops:
        gaps = declared(op, expected_failures or {}, LAWS)
        for dtype in map(DType, dtypes):
            subject = make_subject(method, own, executor=executor, dtype=dtype, options=options)
            drive(
                lambda case, s=subject, g=gaps: _check(case, s, strategy, g, used),  # type: ignore[misc]
                op_cases(op),
                examples,
                shrink,
                gaps,
            )
        gaps.expire()
    if not used[0]:
        raise ConformanceError("used", f"no plan for {executor.name} ran an operation by {strategy.name}")


def _check(case: OpCase, subject: Subject, strategy: LoweringStrategy, gaps: Gaps, used: list[int]) -> None:
    assert subject.executor is not None
    stats = RunStats()
    workshop = make_workshop(
        case.graph,
        subject.method,
        subject.domains,
        dtype=subject.dtype,
        spec=None,
        options=check_options(subject.method, subject.options),
        planning=Planning(subject.executor, tuple(registry().passes.values()), method=subject.method.name),
        stats=stats,
    )
    recipe = recipe_of(subject.method, workshop)
    inputs = {"lower": case.lower, "upper": case.upper}
    got = subject.run(lambda given: recipe.run(given, None), inputs)
    used[0] += stats.lowering.get(strategy.name, 0)
    interpreted = replace(subject, executor=None)
    want = interpreted.run(interpreted.compiled(case.graph, None), inputs)
    tolerance = tolerance_of(subject.dtype, magnitudes(case, sample(case)), *want)

    def compare(law: str, one: Sequence[Any], other: Sequence[Any], what: str) -> None:
        if all(np.allclose(a, b, rtol=0, atol=tolerance, equal_nan=True) for a, b in zip(one, other, strict=True)):
            return
        head = f"{strategy.name} on {case.op} ({subject.dtype}), law {law!r}: {what}"
        values = f"{[a.tolist() for a in one]} and {[b.tolist() for b in other]}"
        gaps.report(law, lambda: f"{head}: {values}\n\n{as_code(case, f'check_case(case, {subject.arguments()})')}")

    compare("values", got, want, "bounds differ from those of the decomposition")
    for i in range(len(case.lower)):
        one = {name: array[i : i + 1] for name, array in inputs.items()}
        alone = subject.run(lambda given: recipe.run(given, None), one)
        part = (got[0][i : i + 1], got[1][i : i + 1])
        compare("batch", alone, part, f"bounds of region {i} alone differ from those in a batch")
