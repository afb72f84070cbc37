"""BoundCache: results of earlier calls, found again by what they depend on."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from boundflow_core.errors import OptionError
from boundflow_core.ir.constants import as_numpy
from boundflow_core.ir.program import BoundProgram

__all__ = ["BoundCache", "CacheKey", "CacheStats", "digest", "fingerprint", "process_cache"]

Event = Callable[[str, "CacheKey", int], None]

_log = logging.getLogger(__name__)

DEFAULT_BYTES = 256 * 2**20


@dataclass(frozen=True)
class CacheKey:
    """Everything that a stored result depends on. Two keys are equal only if the results are.

    Attributes:
        program: fingerprint of the program, its frozen weights and the executor.
        stage: name of the stage whose results these are.
        method: the method that wrote the program.
        region: digest of the region; empty where the stage does not depend on it. The same for the others.
        spec: digest of the specification rows.
        split: digest of split states and further inputs.
        weights: digest of the weights that may change between runs.
        layout: element type, layout and device of the results.
        extra: what plugins added.
    """

    program: str
    stage: str
    method: str
    region: str = ""
    spec: str = ""
    split: str = ""
    weights: str = ""
    layout: str = ""
    extra: tuple[str, ...] = ()


@dataclass
class CacheStats:
    """Counters of a cache since it was made."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    bytes: int = 0


@dataclass
class BoundCache:
    """Keeps results up to ``capacity`` bytes; the least recently used go first. Safe for many threads.

    Attributes:
        capacity: bytes.
        observers: called as ``observer(event, key, nbytes)`` with "hit", "miss", "store" or "evict"; one that raises is
            dropped, and the error logged.
    """

    capacity: int = DEFAULT_BYTES
    observers: tuple[Event, ...] = ()
    stats: CacheStats = field(default_factory=CacheStats)
    _entries: OrderedDict[CacheKey, tuple[Any, int]] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if self.capacity < 0:
            raise OptionError(f"a cache cannot hold {self.capacity} bytes")

    def get(self, key: CacheKey) -> Any | None:
        """What was stored under ``key``; None where nothing is."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
                self.stats.hits += 1
            else:
                self.stats.misses += 1
        self._tell("miss" if entry is None else "hit", key, 0 if entry is None else entry[1])
        return None if entry is None else entry[0]

    def put(self, key: CacheKey, value: Any, nbytes: int) -> None:
        """Stores ``value``, which nobody may write to from here on; too large a value is not kept."""
        if nbytes > self.capacity:
            return
        evicted: list[tuple[CacheKey, int]] = []
        with self._lock:
            if key in self._entries:
                self.stats.bytes -= self._entries.pop(key)[1]
            while self._entries and self.stats.bytes + nbytes > self.capacity:
                old, (_, size) = self._entries.popitem(last=False)
                self.stats.bytes -= size
                self.stats.evictions += 1
                evicted.append((old, size))
            self._entries[key] = (value, nbytes)
            self.stats.bytes += nbytes
        for old, size in evicted:
            self._tell("evict", old, size)
        self._tell("store", key, nbytes)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self.stats.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def _tell(self, event: str, key: CacheKey, nbytes: int) -> None:
        for observer in self.observers:
            try:
                observer(event, key, nbytes)
            except Exception:
                self.observers = tuple(one for one in self.observers if one is not observer)
                _log.exception("an observer of the cache of bounds raised, and is not called again")


_process_lock = threading.Lock()
_process_caches: dict[str, BoundCache] = {}


def process_cache(make: Callable[[], BoundCache] = BoundCache) -> BoundCache:
    """The cache that all compiled objects of this process with ``cache="process"`` share; the first call makes it."""
    with _process_lock:
        if "bounds" not in _process_caches:
            _process_caches["bounds"] = make()
        return _process_caches["bounds"]


def digest(arrays: Mapping[str, Any]) -> str:
    """A digest of the contents, element types and shapes of ``arrays``; "" of none."""
    if not arrays:
        return ""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(as_numpy(arrays[name]))
        state.update(f"{name}:{array.dtype}:{array.shape};".encode())
        state.update(array.data if array.ndim else array.tobytes())
    return state.hexdigest()


def fingerprint(program: BoundProgram) -> str:
    """A digest of the program's operations and of its frozen constants."""
    state = hashlib.blake2b(digest_size=16)
    number = {value: index for index, value in enumerate((*program.inputs, *program.constants))}
    for value in program.inputs:
        state.update(f"input {value.name} {value.type};".encode())
    for value, constant in program.constants.items():
        contents = "live" if constant.is_live else digest({"": constant.numpy()})
        state.update(f"constant {value.type} {contents};".encode())
    for op in program.ops:
        for value in op.outputs:
            number[value] = len(number)
        operands, types = [number[value] for value in op.inputs], [str(value.type) for value in op.outputs]
        state.update(f"{op.name}({operands}){{{op.attrs}}}{types};".encode())
    state.update(str([(name, number[value]) for name, value in program.outputs.items()]).encode())
    return state.hexdigest()
