"""Branching heuristics: scores that depend on nothing but the subproblem, and leave it alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from boundflow_core.extension import Branching, BranchingView
from boundflow_core.plugins import registry
from boundflow_core.testing.case import array_code
from boundflow_core.testing.draws import Source
from boundflow_core.testing.laws import Gaps, declared, drive

__all__ = ["BRANCHING_LAWS", "check_branching", "check_view"]

Array = NDArray[Any]

BRANCHING_LAWS: Mapping[str, str] = {
    "shape": "scores are [B, N]",
    "finite": "scores of neurons that can be split are numbers",
    "batch": "the scores of a subproblem do not depend on the others of its batch",
    "deterministic": "the same view gives the same scores",
    "inputs": "the view is not written to",
}
FIELDS = ("lower", "upper", "rows", "bias")


def check_branching(
    heuristic: str | Branching,
    *,
    expected_failures: Mapping[str, str] | None = None,
    examples: int = 50,
    shrink: bool = True,
) -> None:
    """Checks the scores of a branching heuristic on drawn views: neurons undecided, decided, and points; one or many.

    Args:
        heuristic: a heuristic, or the name of a registered one.
        expected_failures: known gaps with their reasons, by the names of :data:`BRANCHING_LAWS`.

    Raises:
        ConformanceError: what does not hold, with the smallest view found as code to paste.
    """
    subject = registry().branching_heuristic(heuristic) if isinstance(heuristic, str) else heuristic
    known = {f"{subject.name}:{law}": reason for law, reason in (expected_failures or {}).items()}
    gaps = declared(subject.name, known, BRANCHING_LAWS)
    drive(lambda view: check_view(view, subject, gaps), _views(), examples, shrink, gaps)
    gaps.expire()


def check_view(view: BranchingView, heuristic: str | Branching, gaps: Gaps | None = None) -> None:
    """Checks the scores of one view. Raises ConformanceError."""
    subject = registry().branching_heuristic(heuristic) if isinstance(heuristic, str) else heuristic
    gaps = gaps or Gaps(subject.name)

    def fail(law: str, what: str) -> None:
        gaps.report(law, lambda: f"{subject.name}, law {law!r}: {what}\n\n{_code(view, subject)}")

    given = _copied(view)
    score = np.asarray(subject.score(given))
    if any(not np.array_equal(getattr(given, name), getattr(view, name)) for name in FIELDS):
        fail("inputs", "the view was written to")
    if score.shape != view.lower.shape:
        fail("shape", f"scores are {list(score.shape)}, not {list(view.lower.shape)}")
        return
    able = (view.lower < 0) & (view.upper > 0)
    if not np.isfinite(score[able]).all():
        fail("finite", f"scores of undecided neurons are {score[able].tolist()}")
    if not np.array_equal(score, np.asarray(subject.score(_copied(view))), equal_nan=True):
        fail("deterministic", "the same view gives other scores")
    for i in range(len(view.lower)):
        one = BranchingView(view.lower[i : i + 1], view.upper[i : i + 1], view.rows[i : i + 1], view.bias)
        alone = np.asarray(subject.score(_copied(one)))
        scale = max(1.0, float(np.abs(np.nan_to_num(score[i])).max(initial=0.0)))
        if alone.shape != (1, *score.shape[1:]) or not np.allclose(
            alone[0], score[i], rtol=1e-9, atol=1e-9 * scale, equal_nan=True
        ):
            fail("batch", f"subproblem {i} has the scores {score[i].tolist()}, and {alone.tolist()} alone")


def _copied(view: BranchingView) -> BranchingView:
    return BranchingView(*(np.array(getattr(view, name)) for name in FIELDS))


@st.composite
def _views(draw: Callable[[st.SearchStrategy[Any]], Any]) -> BranchingView:
    s = Source(draw)
    batch, rows, neurons = s.whole(1, 3), s.whole(1, 3), s.whole(1, 5)
    scales = (1.0, 0.0, 1e-6, 1e6)
    lower = s.array((batch, neurons), scales)
    upper = lower + s.positive((batch, neurons), scales)
    return BranchingView(lower, upper, s.array((batch, rows, neurons), scales), s.array((neurons,), scales))


def _code(view: BranchingView, subject: Branching) -> str:
    ours = registry().branching.get(subject.name) is subject
    return "\n".join(
        [
            "import numpy as np",
            "from boundflow_core.extension import BranchingView",
            "from boundflow_core.testing.branching import check_view",
            "view = BranchingView(",
            *(f"    {name}={array_code(np.asarray(getattr(view, name)))}," for name in FIELDS),
            ")",
            f"check_view(view, {subject.name!r})" if ours else "check_view(view, heuristic)",
        ]
    )
