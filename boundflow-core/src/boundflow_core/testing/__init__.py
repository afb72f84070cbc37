"""Conformance kit: does a plugin keep what BoundFlow promises?

Needs Hypothesis: ``pip install "boundflow-core[testing]"``. For the author of a domain, a test of three lines::

    from boundflow_core.testing import check_domain

    def test_domain():
        check_domain("my-domain", "my-method")

There is a check for every kind of thing that a plugin brings: :func:`check_domain` and :func:`check_op_rule` (bounds of
networks around each operator: :data:`LAWS`), :func:`check_relaxation`, :func:`check_frontend`, :func:`check_executor`,
:func:`check_lowering` and :func:`check_branching`. Cases are drawn anew from the same source at each run, so a check
that passed passes again. What fails is a :class:`ConformanceError`, whose message ends with the smallest case as code
that runs when it is pasted. Known gaps are declared with a reason (``expected_failures``) and must fail.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boundflow_core.testing.branching import check_branching
    from boundflow_core.testing.case import OpCase
    from boundflow_core.testing.checks import LAWS, Expectations, check_case
    from boundflow_core.testing.executor import check_executor, check_program
    from boundflow_core.testing.frontend import Sample, check_frontend
    from boundflow_core.testing.laws import ConformanceError
    from boundflow_core.testing.lowering import check_lowering
    from boundflow_core.testing.mutation import mutated
    from boundflow_core.testing.relaxation import check_lines, check_relaxation
    from boundflow_core.testing.run import check_domain, check_op_rule, op_cases, op_names

_HOMES = {
    "ConformanceError": "laws",
    "Expectations": "checks",
    "LAWS": "checks",
    "OpCase": "case",
    "Sample": "frontend",
    "check_branching": "branching",
    "check_case": "checks",
    "check_domain": "run",
    "check_executor": "executor",
    "check_frontend": "frontend",
    "check_lines": "relaxation",
    "check_lowering": "lowering",
    "check_op_rule": "run",
    "check_program": "executor",
    "check_relaxation": "relaxation",
    "mutated": "mutation",
    "op_cases": "run",
    "op_names": "run",
}

__all__ = [
    "LAWS",
    "ConformanceError",
    "Expectations",
    "OpCase",
    "Sample",
    "check_branching",
    "check_case",
    "check_domain",
    "check_executor",
    "check_frontend",
    "check_lines",
    "check_lowering",
    "check_op_rule",
    "check_program",
    "check_relaxation",
    "mutated",
    "op_cases",
    "op_names",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "hypothesis":
            raise
        raise ModuleNotFoundError(
            'the conformance kit needs Hypothesis: pip install "boundflow-core[testing]"', name="hypothesis"
        ) from error


def __dir__() -> list[str]:
    return sorted(__all__)
