"""Memory limits: how a call is cut into chunks so that the planned peak fits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from boundflow_core.errors import MemoryLimitError, OptionError
from boundflow_core.ir.program import BoundProgram
from boundflow_core.ir.types import SymDim
from boundflow_core.planner.pipeline import bind_plan
from boundflow_core.planner.plan import PlanBundle

__all__ = ["chunk_count", "chunk_sizes", "chunks", "parse_bytes"]

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


def chunk_sizes(plan: PlanBundle, sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """The largest sizes, at most ``sizes``, whose planned peak fits into ``limit`` bytes.

    Regions are split first, since each is a task of its own; specification rows only where one region is too much.

    Raises:
        MemoryLimitError: one row of one region does not fit.
    """
    chosen = dict(sizes)
    for symbol in ("B", "S"):
        if symbol not in chosen or _peak(plan, chosen) <= limit:
            continue
        low, high = 1, chosen[symbol]
        while low < high:  # the peak grows with every size
            middle = (low + high + 1) // 2
            low, high = (middle, high) if _peak(plan, {**chosen, symbol: middle}) <= limit else (low, middle - 1)
        chosen[symbol] = low
    if (least := _peak(plan, chosen)) > limit:
        rows = " and one specification row" if "S" in chosen else ""
        raise MemoryLimitError(
            f"one region{rows} takes {least:,} bytes as planned, more than the memory limit of {limit:,}; "
            "raise the limit or choose a method that needs less"
        )
    return chosen


def chunk_count(sizes: Mapping[str, int], chunk: Mapping[str, int]) -> int:
    """Number of chunks of at most the sizes ``chunk`` that a call of ``sizes`` runs in."""
    return math.prod(-(-sizes[symbol] // chunk[symbol]) for symbol in sizes if symbol in ("B", "S"))


def _peak(plan: PlanBundle, sizes: Mapping[str, int]) -> int:
    return bind_plan(plan, sizes).storage.peak_bytes


def chunks(
    program: BoundProgram, inputs: Mapping[str, Any], sizes: Mapping[str, int], chunk: Mapping[str, int]
) -> Iterator[Iterator[dict[str, Any]]]:
    """The inputs of ``program`` cut into chunks: an iterator over those of regions of iterators over those of rows.

    An input is cut along the axes that count regions or rows, whatever it is called.
    """
    for regions in _pieces(program, inputs, "B", sizes, chunk):
        yield _pieces(program, regions, "S", sizes, chunk)


def _pieces(
    program: BoundProgram, inputs: Mapping[str, Any], symbol: str, sizes: Mapping[str, int], chunk: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    if sizes.get(symbol) == chunk.get(symbol):
        yield dict(inputs)
        return
    dim = SymDim.of(symbol)
    axes = {value.name: value.shape.index(dim) for value in program.inputs if dim in value.shape}
    for first in range(0, sizes[symbol], chunk[symbol]):
        part = slice(first, first + chunk[symbol])
        yield {
            name: array[(slice(None),) * axes[name] + (part,)] if name in axes else array
            for name, array in inputs.items()
        }
