"""Results as the VNN competition wants them: one word, and for ``sat`` the counterexample."""

from __future__ import annotations

from boundflow_bab.verdict import Counterexample, Report

__all__ = ["results_text"]


def results_text(report: Report) -> str:
    """``sat``, ``unsat``, ``unknown`` or ``timeout``; after ``sat`` the lines ``((X_0 v)`` to ``(Y_n v))``."""
    found = report.counterexample
    return report.verdict.result + "\n" + ("" if found is None else _witness(found))


def _witness(found: Counterexample) -> str:
    names = [("X", found.x), ("Y", found.y)]
    pairs = [f"({name}_{i} {float(value)!r})" for name, values in names for i, value in enumerate(values)]
    return "(" + "\n".join(pairs) + ")\n"
