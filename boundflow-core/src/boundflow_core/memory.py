"""Memory limits: how a call is cut into chunks so that the planned peak fits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from boundflow_core.errors import MemoryLimitError, OptionError
from boundflow_core.planner.pipeline import bind_plan
from boundflow_core.planner.plan import PlanBundle

__all__ = ["chunk_count", "chunk_sizes", "parse_bytes"]

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip


def parse_bytes(text: str | int) -> int:
    """A number of bytes: 4096, "512MiB", "1.5 GB".

    Raises:
        OptionError: not a positive amount of memory.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", str(text))
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or isinstance(text, bool) or int(float(match[1]) * unit) < 1:
        raise OptionError(f"{text!r} is no amount of memory; write it as 4096, '512MiB' or '1.5GB'")
    return int(float(match[1]) * unit)


def chunk_sizes(
    plan: PlanBundle, sizes: Mapping[str, int], limit: int, symbols: Sequence[str] = ("B", "S")
) -> dict[str, int]:
    """The largest sizes, at most ``sizes``, whose planned peak fits into ``limit`` bytes.

    ``symbols`` are split in this order, the next one only where 1 of those before is still too much: regions first,
    since each is a task of its own, then specification rows.

    Raises:
        MemoryLimitError: one row of one region does not fit.
    """
    chosen = dict(sizes)
    for symbol in symbols:
        if symbol not in chosen or _peak(plan, chosen) <= limit:
            continue
        low, high = 1, chosen[symbol]
        while low < high:  # the peak grows with every size
            middle = (low + high + 1) // 2
            low, high = (middle, high) if _peak(plan, {**chosen, symbol: middle}) <= limit else (low, middle - 1)
        chosen[symbol] = low
    if (least := _peak(plan, chosen)) > limit:
        names = {"B": "one region", "S": "one specification row", "R": "one row"}
        what = " and ".join(names[symbol] for symbol in symbols if symbol in chosen)
        raise MemoryLimitError(
            f"{what} takes {least:,} bytes as planned, more than the memory limit of {limit:,}; "
            "raise the limit or choose a method that needs less"
        )
    return chosen


def chunk_count(sizes: Mapping[str, int], chunk: Mapping[str, int]) -> int:
    """Number of chunks of at most the sizes ``chunk`` that a run of ``sizes`` is cut into."""
    return math.prod(-(-sizes[symbol] // chunk[symbol]) for symbol in sizes)


def _peak(plan: PlanBundle, sizes: Mapping[str, int]) -> int:
    return bind_plan(plan, sizes).storage.peak_bytes
