"""Conformance kit: are the bounds of a domain or method sound, for every operator and on every executor?

Needs Hypothesis: ``pip install "boundflow-core[testing]"``. For the author of a domain, in a test of three lines::

    from boundflow_core.testing import check_op_rule, op_names

    @pytest.mark.parametrize("op", op_names())
    def test_rule(op):
        check_op_rule(op, "my-method")

Each operator is tried alone and between two layers, on regions from a point to large boxes. Points of the region
(corners, random ones, and ones that a search drives against the bounds) must lie within the bounds, a smaller region
must not have wider bounds, the bounds of a point must be its image, and a region's bounds must not depend on its
company. What fails is shown as code to paste.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boundflow_core.testing.case import OpCase
    from boundflow_core.testing.checks import Expectations, check_case
    from boundflow_core.testing.run import check_domain, check_op_rule, op_cases, op_names
    from boundflow_core.testing.subject import Subject, executor_evaluate

_HOMES = {
    "Expectations": "checks",
    "OpCase": "case",
    "Subject": "subject",
    "check_case": "checks",
    "check_domain": "run",
    "check_op_rule": "run",
    "executor_evaluate": "subject",
    "op_cases": "run",
    "op_names": "run",
}

__all__ = [
    "Expectations",
    "OpCase",
    "Subject",
    "check_case",
    "check_domain",
    "check_op_rule",
    "executor_evaluate",
    "op_cases",
    "op_names",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise ModuleNotFoundError(
            'the conformance kit needs Hypothesis: pip install "boundflow-core[testing]"', name="hypothesis"
        ) from error


def __dir__() -> list[str]:
    return sorted(__all__)
