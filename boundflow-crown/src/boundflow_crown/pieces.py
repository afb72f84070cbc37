"""Runs of programs over chosen rows, in pieces that stay in the processor's caches and have few different sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boundflow_core.arrays import concatenate
from boundflow_core.runner import ProgramRunner

__all__ = ["in_pieces", "padded_count", "rows_of_piece"]

# What a piece may take: more memory than the caches hold is slower per row, and so are many short runs.
PIECE_BYTES = 16 << 20
# Rows of a piece at least, and for each region, whose relaxations every piece computes anew.
PIECE_ROWS, PIECE_ROWS_PER_REGION = 32, 4


def in_pieces(
    runner: ProgramRunner, inputs: Mapping[str, Any], chosen: Mapping[str, Any], *, axis: int
) -> dict[str, Any]:
    """The results of ``runner`` for the rows ``chosen`` (vectors [R]), joined along ``axis``.

    For every size a program is prepared. So all pieces but the last are as large as they may be, and the number of rows
    of the last is rounded up by repeating its first.
    """
    count = len(next(iter(chosen.values())))
    length = rows_of_piece(runner, max(len(array) for array in inputs.values()))
    results = []
    for start in range(0, count, length):
        rows = min(length, count - start)
        size = min(padded_count(rows), length)
        part = {name: _padded(array[start : start + rows], size) for name, array in chosen.items()}
        found = runner({**inputs, **part})
        kept = (slice(None),) * axis + (slice(rows),)
        results.append({name: array[kept] for name, array in found.items()} if size > rows else found)
    if len(results) == 1:
        return results[0]
    return {name: concatenate([result[name] for result in results], axis) for name in results[0]}


def rows_of_piece(runner: ProgramRunner, batch: int) -> int:
    """The largest number of rows that one piece has, in a batch of so many regions."""
    return max(runner.fitting("R", {"B": batch}, PIECE_BYTES), PIECE_ROWS, PIECE_ROWS_PER_REGION * batch)


def padded_count(count: int) -> int:
    """``count`` rounded up to one of eight sizes between powers of two, at least to a multiple of four."""
    step = max(4, 1 << max((count - 1).bit_length() - 4, 0))
    return -(-count // step) * step


def _padded(vector: Any, size: int) -> Any:
    missing = size - len(vector)
    return vector if missing == 0 else concatenate([vector, vector[:1].repeat(missing)], 0)
