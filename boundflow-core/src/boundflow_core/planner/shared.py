"""What plans share that run in turn: memory, and what follows from frozen weights alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any

__all__ = ["SharedMemory", "SharedPiece"]

# A piece that is too small is followed by one that is larger by more than is needed, so that there are few.
GROWTH = 1.5


class SharedPiece:
    """What the arenas of several plans lie in, on one device, and arrays that nobody writes to.

    Attributes:
        lock: held while one of them runs.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._preparing = threading.RLock()  # plans are prepared by several threads at once
        self._memory: Any = None
        self._bytes = 0
        self._frozen: dict[Hashable, tuple[Any, Any]] = {}

    def take(self, count: int, allocate: Callable[[int], Any]) -> Any:
        """At least ``count`` bytes, which others use too; those who took less before keep the piece that they have."""
        with self._preparing:
            if self._memory is None or self._bytes < count:
                wanted = max(count, int(GROWTH * self._bytes))
                self._memory, self._bytes = allocate(wanted), wanted
            return self._memory

    def frozen(self, key: Hashable, sources: Any, make: Callable[[], Any]) -> Any:
        """What ``make()`` gave when it was first asked for under this ``key``.

        Args:
            sources: what the key names by identity, so that it stays what it is.
        """
        with self._preparing:
            if key not in self._frozen:
                self._frozen[key] = (make(), sources)
            return self._frozen[key][0]


class SharedMemory:
    """A piece of memory for each executor and device."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: dict[tuple[str, str], SharedPiece] = {}

    def on(self, executor: str, device: str) -> SharedPiece:
        with self._lock:
            return self._pieces.setdefault((executor, device), SharedPiece())
