"""Rules of operators: Hypothesis draws networks around an operator, and the bounds of every one are checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hypothesis.strategies import SearchStrategy

from boundflow_core.extension import Domain, Executor, Method, why_unavailable
from boundflow_core.ir.primal_ops import PRIMAL_OPS, PrimalOp
from boundflow_core.ir.types import DType
from boundflow_core.plugins import registry
from boundflow_core.testing.case import OpCase
from boundflow_core.testing.checks import LAWS, Expectations, check_laws
from boundflow_core.testing.laws import check_subjects, declared, drive
from boundflow_core.testing.operators import PLANS, kinds
from boundflow_core.testing.operators import cases as drawn_cases
from boundflow_core.testing.subject import Subject, executor_of, make_subject

__all__ = ["check_domain", "check_op_rule", "op_cases", "op_names"]


def op_names() -> tuple[str, ...]:
    """All normalized operators, each of which the kit has cases for.

    Raises:
        AssertionError: an operator has no cases.
    """
    assert set(PLANS) == set(PRIMAL_OPS), f"operators and cases differ: {sorted(set(PLANS) ^ set(PRIMAL_OPS))}"
    return tuple(PRIMAL_OPS)


def op_cases(op: str | PrimalOp, **attributes: Any) -> SearchStrategy[OpCase]:
    """Hypothesis strategy of cases around operator ``op``.

    Args:
        op: one that is not of the normalized set is taken for an elementwise function of one operand.
        attributes: its attributes.
    """
    return drawn_cases(op, kinds(op, attributes))


def check_op_rule(
    op: str | PrimalOp,
    method: str | Method,
    domains: Iterable[Domain] | None = None,
    *,
    executors: Iterable[str | Executor] | None = None,
    dtypes: Iterable[str | DType] = ("float64", "float32"),
    expect: Expectations = Expectations(),  # noqa: B008 (frozen)
    expected_failures: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    cases: SearchStrategy[OpCase] | None = None,
    examples: int = 50,
    shrink: bool = True,
) -> None:
    """Checks the bounds that ``method`` gives for networks around operator ``op``.

    Args:
        op: an operator's name, or one of a plugin's own.
        method: a method, or the name of a registered one.
        domains: domains that it names and that are not registered.
        executors: whose bounds must equal those of the reference interpreter, and hold; None: all that can run here.
        dtypes: element types of the programs.
        expect: what the method promises besides soundness.
        expected_failures: known gaps with their reasons: "OP" for all of an operator, "OP:LAW" for one law of
            ``boundflow_core.testing.LAWS``. A gap that does not show is an error.
        options: the method's options.
        cases: the cases; None: those of :func:`op_cases`.
        examples: number of cases in the first element type (of each kind of use of the operator three at least, and a
            sixth more far out); a third of it in others, a fifth on each executor.
        shrink: whether to look for the smallest case that fails, which may take half a minute.

    Raises:
        ConformanceError: what does not hold, with the smallest case found as code to paste.
        UnsupportedOpError: the operator has no rule.
        ValueError: nothing would be checked, or a gap names no operator.
    """
    name = op if isinstance(op, str) else op.name
    check_subjects(expected_failures or {}, {name, *PRIMAL_OPS}, "operators")
    gaps = declared(name, expected_failures or {}, LAWS)
    for subject, count in _subjects(method, domains, executors, [DType(d) for d in dtypes], options, examples):

        def run(case: OpCase, subject: Subject = subject) -> None:
            check_laws(case, subject, expect, gaps)

        for strategy, share in (
            _shares(op, count, apart=subject.executor is None) if cases is None else [(cases, count)]
        ):
            drive(run, strategy, share, shrink, gaps)
    gaps.expire()


def _shares(op: str | PrimalOp, count: int, apart: bool) -> list[tuple[SearchStrategy[OpCase], int]]:
    """About ``count`` cases, and how many of each strategy.

    Args:
        apart: each kind of use has its share, three at least, since drawing kinds favours some; further ones are huge.
    """
    uses = kinds(op, {})
    if not apart:
        return [(drawn_cases(op, uses), count)]
    share = max(math.ceil(count / len(uses)), min(count, 3))
    return [*((drawn_cases(op, (use,)), share) for use in uses), (drawn_cases(op, uses, huge=True), max(count // 6, 2))]


def _subjects(
    method: str | Method,
    domains: Iterable[Domain] | None,
    executors: Iterable[str | Executor] | None,
    dtypes: Sequence[DType],
    options: Mapping[str, Any] | None,
    examples: int,
) -> list[tuple[Subject, int]]:
    """What to check, and on how many cases: interpreted in each element type, then on each executor."""
    if executors is None:
        executors = [one for one in registry().executors.values() if why_unavailable(one) is None]
    if not dtypes or examples < 1:
        raise ValueError("nothing to check: no element types, or no examples")
    own = list(domains or ())
    found = []
    for number, dtype in enumerate(dtypes):
        subject = make_subject(method, own, dtype=dtype, options=options)
        found.append((subject, examples if number == 0 else max(examples // 3, 3)))
    for executor in map(executor_of, executors):
        if found[0][0].method.recipe is not None and executor.name == "reference":
            continue  # it ran above
        for dtype in dtypes:
            subject = make_subject(method, own, executor=executor, dtype=dtype, options=options)
            found.append((subject, max(examples // (5 * len(dtypes)), 3)))
    return found


def check_domain(
    domain: str | Domain,
    method: str | Method,
    domains: Iterable[Domain] = (),
    *,
    without: Iterable[str] = (),
    expected_failures: Mapping[str, str] | None = None,
    **keywords: Any,
) -> None:
    """:func:`check_op_rule` for every operator that ``domain`` has a rule for, but those in ``without``.

    Rules for operators of plugins' own are not among them: ``check_op_rule(OP, ...)`` takes these.

    Args:
        domain: a domain, or the name of a registered one.
        method: a method that uses it, or the name of a registered one.
        domains: further domains that the method names and that are not registered.
        expected_failures: as of :func:`check_op_rule`; an operator that has no rule yet can be among them.
        keywords: as of :func:`check_op_rule`.

    Raises:
        ValueError: nothing would be checked, or an operator or domain is none that is known.
    """
    gaps, left_out = expected_failures or {}, set(without)
    name = domain if isinstance(domain, str) else domain.name
    using = registry().method(method) if isinstance(method, str) else method
    if name not in using.domains:
        raise ValueError(
            f"method {using.name!r} does not use domain {name!r}, but {', '.join(using.domains) or 'none'}"
        )
    rules = registry().domain(domain).rules if isinstance(domain, str) else domain.rules
    named = {key.partition(":")[0] for key in gaps}
    if unknown := (named | left_out) - set(op_names()):
        raise ValueError(f"expected_failures, without: no operators are called {sorted(unknown)}")
    if both := named & left_out:
        raise ValueError(f"{sorted(both)} are left out, so their expected failures cannot show")
    chosen = sorted((set(rules) & set(op_names()) | named) - left_out)
    if not chosen:
        raise ValueError(
            f"nothing to check: domain {name!r} has no rule for a normalized operator that is not left out"
        )
    own = [] if isinstance(domain, str) else [domain]
    for op in chosen:
        check_op_rule(op, using, [*own, *domains], expected_failures=gaps, **keywords)
