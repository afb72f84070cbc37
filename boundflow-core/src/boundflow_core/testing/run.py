"""Entry points of the conformance kit: Hypothesis draws cases and every one is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from boundflow_core.extension import Domain, Method
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.ir.types import DType
from boundflow_core.testing.case import OpCase
from boundflow_core.testing.checks import Expectations, check_case
from boundflow_core.testing.operators import PLANS, cases
from boundflow_core.testing.subject import Evaluate, Subject

__all__ = ["check_domain", "check_op_rule", "op_cases", "op_names"]


def op_names() -> tuple[str, ...]:
    """All normalized operators, each of which the kit has cases for.

    Raises:
        AssertionError: an operator has no cases.
    """
    assert set(PLANS) == set(PRIMAL_OPS), f"operators and cases differ: {sorted(set(PLANS) ^ set(PRIMAL_OPS))}"
    return tuple(PRIMAL_OPS)


def op_cases(op: str) -> SearchStrategy[OpCase]:
    """Hypothesis strategy of cases around operator ``op``."""
    return cases(op)


def check_op_rule(
    op: str,
    method: str | Method,
    domains: Iterable[Domain] | None = None,
    *,
    evaluate: Evaluate = evaluate,
    dtype: DType | str = DType.FLOAT64,
    expect: Expectations = Expectations(),  # noqa: B008 (frozen)
    options: Mapping[str, Any] | None = None,
    examples: int = 50,
    shrink: bool = True,
) -> None:
    """Checks the bounds that ``method`` gives for networks around operator ``op``.

    Args:
        method: a method, or the name of a registered one.
        domains: the domains that it names; by default the registered ones.
        evaluate: ``evaluate(program, inputs) -> outputs``, by default the reference interpreter; see
            :func:`boundflow_core.testing.executor_evaluate`.
        dtype: element type of the programs.
        expect: what the method promises besides soundness.
        options: the method's options.
        examples: number of cases.
        shrink: whether to look for the smallest case that fails, which may take half a minute.

    Raises:
        AssertionError: what does not hold, with the smallest case found as code to paste.
        UnsupportedOpError: the operator has no rule.
    """
    subject = _subject(method, domains, evaluate, DType(dtype), options or {})

    def run(case: OpCase) -> None:
        check_case(case, subject, expect)

    _drive(run, op_cases(op), examples, shrink)


def check_domain(
    domain: Domain,
    method: str | Method,
    domains: Iterable[Domain] = (),
    *,
    without: Iterable[str] = (),
    **keywords: Any,
) -> None:
    """:func:`check_op_rule` for every operator that ``domain`` has a rule for, but those in ``without``.

    Args:
        domains: further domains that the method names.
        keywords: as of :func:`check_op_rule`.
    """
    for op in sorted(set(domain.rules) & set(op_names()) - set(without)):
        check_op_rule(op, method, (domain, *domains), **keywords)


def _subject(
    method: str | Method,
    domains: Iterable[Domain] | None,
    evaluate: Evaluate,
    dtype: DType,
    options: Mapping[str, Any],
) -> Subject:
    if isinstance(method, str) or domains is None:
        from boundflow_core.plugins import registry

        method = registry().method(method) if isinstance(method, str) else method
        known = {**registry().domains, **{domain.name: domain for domain in domains or ()}}
    else:
        known = {domain.name: domain for domain in domains}
    return Subject(method, {name: known[name] for name in method.domains}, evaluate, dtype, options)


def _drive(run: Callable[[OpCase], None], strategy: SearchStrategy[OpCase], examples: int, shrink: bool) -> None:
    """Runs a property without a test function around it; cases are the same at every run."""
    quiet = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        report_multiple_bugs=False,
        print_blob=False,
    )
    quiet(given(strategy)(run))()
