"""Drawing of shapes and numbers for the conformance kit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

__all__ = ["Source"]

T = TypeVar("T")
Array = NDArray[Any]


class Source:
    """Draws from Hypothesis, in the words of the kit. Numbers are float32 numbers in float64 arrays.

    Numbers lie on a coarse grid times a scale: zeros, ties and ends of regions at zero are frequent.
    """

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self._draw = draw

    def flag(self) -> bool:
        return bool(self._draw(st.booleans()))

    def choice(self, items: Sequence[T]) -> T:
        return self._draw(st.sampled_from(items))  # type: ignore[no-any-return]

    def whole(self, low: int, high: int) -> int:
        return int(self._draw(st.integers(low, high)))

    def shape(self, least_rank: int = 1, most_rank: int = 3, most: int = 3) -> tuple[int, ...]:
        return tuple(self.whole(1, most) for _ in range(self.whole(least_rank, most_rank)))

    def array(self, shape: Sequence[int], scales: Sequence[float] = (1.0, 0.37, 0.0, 5.0)) -> Array:
        """Numbers of magnitude up to 2 times a scale; the scale 0 gives zeros."""
        whole = self._draw(hnp.arrays(np.int64, tuple(shape), elements=st.integers(-16, 16), fill=st.nothing()))
        return _float32(whole / 8.0 * self.choice(scales))

    def positive(self, shape: Sequence[int], scales: Sequence[float] = (1.0, 0.37, 0.0)) -> Array:
        """Numbers from 0 on."""
        return np.abs(self.array(shape, scales))

    def mask(self, shape: Sequence[int]) -> Array:
        return np.asarray(self._draw(hnp.arrays(np.bool_, tuple(shape), elements=st.booleans(), fill=st.nothing())))

    def subset(self, count: int) -> tuple[int, ...]:
        """Some of ``count`` axes, at least one."""
        chosen = [axis for axis in range(count) if self.flag()]
        return tuple(chosen) or (self.whole(0, count - 1),)

    def broadcasting(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape that broadcasts to ``shape``, perhaps of smaller rank."""
        cut = self.whole(0, len(shape))
        return tuple(dim if self.flag() else 1 for dim in shape[cut:])


def _float32(array: Array) -> Array:
    return array.astype(np.float32).astype(np.float64)
