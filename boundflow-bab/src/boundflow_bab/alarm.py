"""A time limit that holds in the middle of a long computation too."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from boundflow_bab.clock import OutOfTime

__all__ = ["alarm"]


@contextmanager
def alarm(seconds: float | None) -> Iterator[None]:
    """Raises :class:`OutOfTime` inside once ``seconds`` are over, between two steps of the interpreter.

    In the main thread of a system with timers alone; elsewhere the code inside has to look at its clock.
    """
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not usable:
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    # Again and again: some library might swallow the first one.
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
