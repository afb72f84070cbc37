"""Time: how much is left, and what it went into."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Clock", "OutOfTime"]


class OutOfTime(Exception):
    """The time given is spent."""


class Clock:
    """Counts from when it is made.

    Args:
        limit: seconds; None: no limit.
    """

    def __init__(self, limit: float | None = None) -> None:
        self._started = time.perf_counter()
        self._limit = math.inf if limit is None else limit
        self.seconds: dict[str, float] = {}

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self._started

    @property
    def left(self) -> float:
        """Seconds that are left, not below 0."""
        return max(0.0, self._limit - self.elapsed)

    def check(self) -> None:
        """
        Raises:
            OutOfTime: nothing is left.
        """
        if self.left <= 0:
            raise OutOfTime

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time inside as that of the phase ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
