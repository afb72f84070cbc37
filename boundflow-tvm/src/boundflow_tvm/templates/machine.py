"""What tiles depend on: the width of vectors and the number of registers, by class of CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module

import numpy as np

__all__ = ["CLASSES", "Machine", "machine"]


@dataclass(frozen=True)
class Machine:
    """A class of CPUs.

    Attributes:
        vector_bytes: width of a vector.
        accumulators: vectors of partial sums that a kernel may hold at once; the other registers are for operands.
    """

    name: str
    vector_bytes: int
    accumulators: int

    def lanes(self, dtype: str) -> int:
        """Elements in a vector."""
        return self.vector_bytes // np.dtype(dtype).itemsize


CLASSES: Mapping[str, Machine] = {
    "AVX512F": Machine("avx512", 64, 24),
    "AVX2": Machine("avx2", 32, 12),
    "": Machine("plain", 16, 8),
}
"""By the feature that a CPU must have, the best class first."""


@lru_cache(maxsize=1)
def machine() -> Machine:
    """The class of this CPU."""
    try:
        core = import_module("numpy._core._multiarray_umath")
    except ImportError:  # NumPy 1
        core = import_module("numpy.core._multiarray_umath")
    return next(found for feature, found in CLASSES.items() if not feature or core.__cpu_features__.get(feature))
