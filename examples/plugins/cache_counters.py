"""An observer of the cache of bounds: counts hits, misses, stores and evictions.

They are written to the file that BOUNDFLOW_CACHE_COUNTERS names, when the process ends.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections import Counter
from pathlib import Path

from boundflow_core.cache import CacheKey
from boundflow_core.plugins import hookimpl

BOUNDFLOW_API = (1, 0)

events: Counter[str] = Counter()
nbytes_of: Counter[str] = Counter()
_lock = threading.Lock()


@hookimpl
def boundflow_cache_event(event: str, key: CacheKey, nbytes: int) -> None:
    """Called in the thread that computes bounds, so all it does is count."""
    with _lock:
        events[f"{event} {key.stage}"] += 1
        nbytes_of[event] += nbytes


def write(path: str | os.PathLike[str]) -> None:
    """Writes the counters as JSON: whole or not at all."""
    with _lock:
        text = json.dumps({"events": events, "bytes": nbytes_of}, indent=2, sort_keys=True)
    new = Path(f"{os.fspath(path)}.{os.getpid()}")
    new.write_text(text + "\n")
    new.replace(path)


if target := os.environ.get("BOUNDFLOW_CACHE_COUNTERS"):
    atexit.register(write, target)
