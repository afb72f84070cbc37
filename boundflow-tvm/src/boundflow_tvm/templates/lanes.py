"""Rows into lanes and back: squares of elements turned about their diagonal in registers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boundflow_tvm.templates.writer import Writer

__all__ = ["transposed"]


def transposed(w: Writer, vectors: Sequence[Any]) -> list[Any]:
    """Vector i of the result holds element i of each of ``vectors``, as many as each has elements (a power of two).

    Step by step the halves of a bit of the number of the vector and of the element change places.
    """
    found, lanes, bit = list(vectors), len(vectors), 1
    while bit < lanes:
        low = [place if not place & bit else lanes + (place ^ bit) for place in range(lanes)]
        high = [place | bit if not place & bit else lanes + place for place in range(lanes)]
        for i in range(lanes):
            if not i & bit:
                one, other = found[i], found[i | bit]
                found[i] = w.keep(w.shuffle(one, other, low))
                found[i | bit] = w.keep(w.shuffle(one, other, high))
        bit *= 2
    return found
