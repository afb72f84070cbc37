"""How a check fails: by the name of the law that does not hold, unless that is declared as a known gap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from boundflow_core.errors import UnsupportedOpError

__all__ = ["ConformanceError", "Gaps", "check_subjects", "declared", "drive"]

T = TypeVar("T")


class ConformanceError(AssertionError):
    """Something that must hold does not.

    Attributes:
        law: which law of the check.
    """

    def __init__(self, law: str, message: str) -> None:
        super().__init__(message)
        self.law = law


@dataclass
class Gaps:
    """What is known to fail of one thing under test.

    Attributes:
        subject: its name.
        reasons: reason by law; the law "" stands for all of them.
        met: laws that did fail.
    """

    subject: str
    reasons: Mapping[str, str] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)

    def report(self, law: str, message: Callable[[], str]) -> None:
        """A law does not hold.

        Raises:
            ConformanceError: it is not declared as a gap.
        """
        if law not in self.reasons:
            raise ConformanceError(law, message())
        self.met.add(law)

    def expire(self) -> None:
        """Raises ConformanceError if a gap is declared that did not show."""
        for law, reason in self.reasons.items():
            if law not in self.met:
                name = f"{self.subject}:{law}" if law else self.subject
                what = f"is declared as an expected failure ({reason}), but passes: remove it from expected_failures"
                raise ConformanceError("expected failure", f"{name!r} {what}")


def declared(subject: str, expected_failures: Mapping[str, str], laws: Iterable[str] = ()) -> Gaps:
    """The gaps of ``subject`` among ``expected_failures``, whose keys are "SUBJECT" or "SUBJECT:LAW".

    Raises:
        ValueError: a law that there is not, or a gap without a reason.
    """
    known = tuple(laws)
    reasons = {}
    for key, reason in expected_failures.items():
        name, _, law = key.partition(":")
        if law and law not in known:
            raise ValueError(f"expected_failures: {key!r} names no law of this check; they are {', '.join(known)}")
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"expected_failures: {key!r} needs a reason")
        if name == subject:
            reasons[law] = reason
    return Gaps(subject, reasons)


def check_subjects(expected_failures: Mapping[str, str], known: Iterable[str], what: str) -> None:
    """Raises ValueError where a gap is declared of something that is not checked, and so would never expire.

    Args:
        known: what is checked.
        what: what these are, in words.
    """
    names = sorted(known)
    if unknown := sorted({key.partition(":")[0] for key in expected_failures} - set(names)):
        raise ValueError(f"expected_failures: {unknown} are not among the {what}, which are {', '.join(names)}")


def drive(
    run: Callable[[T], None], strategy: SearchStrategy[T], examples: int, shrink: bool, gaps: Gaps | None = None
) -> None:
    """Runs a property on cases that are the same at every run, without a test function around it.

    Args:
        gaps: if all of it is declared as a gap, a law must fail, or the operator have no rule; other errors are errors.
    """
    whole = gaps is not None and "" in gaps.reasons
    quiet = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink) if shrink and not whole else (Phase.generate,),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        report_multiple_bugs=False,
        print_blob=False,
    )

    def holds(case: T) -> None:
        run(case)

    try:
        quiet(given(strategy)(holds))()
    except (ConformanceError, UnsupportedOpError):
        if gaps is None or not whole:
            raise
        gaps.met.add("")
