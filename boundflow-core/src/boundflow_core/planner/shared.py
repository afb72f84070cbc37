"""Memory that plans share which run in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["SharedMemory", "SharedPiece"]

# A piece that is too small is followed by one that is larger by more than is needed, so that there are few.
GROWTH = 1.5


class SharedPiece:
    """What the arenas of several plans lie in, on one device.

    Attributes:
        lock: held while one of them runs.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._memory: Any = None
        self._bytes = 0

    def take(self, count: int, allocate: Callable[[int], Any]) -> Any:
        """At least ``count`` bytes, which others use too; those who took less before keep the piece that they have."""
        if self._memory is None or self._bytes < count:
            self._bytes = max(count, int(GROWTH * self._bytes))
            self._memory = allocate(self._bytes)
        return self._memory


class SharedMemory:
    """A piece of memory for each executor and device."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: dict[tuple[str, str], SharedPiece] = {}

    def on(self, executor: str, device: str) -> SharedPiece:
        with self._lock:
            return self._pieces.setdefault((executor, device), SharedPiece())
