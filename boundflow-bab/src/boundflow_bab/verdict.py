"""The answer, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from numpy.typing import NDArray

__all__ = ["Counterexample", "Report", "Verdict"]


class Verdict(str, Enum):
    """What is known in the end. ``result`` is the word of the VNN competition for it."""

    VERIFIED = "verified"
    FALSIFIED = "falsified"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"

    @property
    def result(self) -> str:
        return {"verified": "unsat", "falsified": "sat"}.get(self.value, self.value)


@dataclass(frozen=True, eq=False)
class Counterexample:
    """An input and the network's output on it, as ``source`` computed them in float32.

    Attributes:
        x, y: flattened, float32.
        source: "onnxruntime" or "reference".
    """

    x: NDArray[Any]
    y: NDArray[Any]
    source: str


@dataclass(frozen=True, eq=False)
class Report:
    """A verdict with its story.

    Attributes:
        reason: why it is not known, in words; empty where it is.
        trusted: whether bounds in float32 were taken at their word.
        margin: the least lower bound that any box was left with at the end of the bounding phases.
        subproblems: boxes that were bounded in the search.
        open: boxes that were left undecided.
        seconds: wall-clock time by phase.
        lowering: operations per strategy, of all programs.
    """

    verdict: Verdict
    reason: str = ""
    counterexample: Counterexample | None = None
    trusted: bool = False
    margin: float | None = None
    subproblems: int = 0
    open: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    lowering: Mapping[str, int] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The verdict in one line."""
        note = " (float32 bounds trusted, not confirmed)" if self.trusted and self.verdict is Verdict.VERIFIED else ""
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.verdict.value}{note}{reason}"

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` holds."""
        found = self.counterexample
        return {
            "verdict": self.verdict.value,
            "reason": self.reason,
            "trusted_float32": self.trusted,
            "counterexample": None
            if found is None
            else {"x": found.x.tolist(), "y": found.y.tolist(), "source": found.source},
            "margin": self.margin,
            "subproblems": self.subproblems,
            "open": self.open,
            "seconds": dict(self.seconds),
            "lowering": dict(self.lowering),
        }
