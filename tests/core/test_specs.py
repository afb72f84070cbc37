from __future__ import annotations

import numpy as np
import pytest

from boundflow_core.errors import InputError
from boundflow_core.specs import LinearSpec


@pytest.mark.parametrize(
    "C, offset, match",
    [
        (np.ones(3), None, r"must have shape \[S, n\] or \[B, S, n\], not \[3\]"),
        (np.ones((1, 1, 1, 1)), None, "must have shape"),
        (np.ones((0, 3)), None, "no rows"),
        (np.full((1, 3), np.nan), None, "C holds values that are not finite"),
        ([["a"]], None, "array of numbers"),
        (np.ones((2, 3)), np.ones(3), r"offset must have shape \[2\], not \[3\]"),
        (np.ones((4, 2, 3)), np.ones((2, 2)), r"offset must have shape \[4, 2\], not \[2, 2\]"),
        (np.ones((2, 3)), 1.0, "offset must have shape"),
        (np.ones((2, 3)), np.array([0, np.inf]), "offset holds values that are not finite"),
    ],
)
def test_bad_specifications(C, offset, match):
    with pytest.raises(InputError, match=match):
        LinearSpec(C, offset)


@pytest.mark.parametrize("shape, rows", [((2, 3), 2), ((5, 2, 3), 2)])
def test_rows(shape, rows):
    assert LinearSpec(np.ones(shape)).rows == LinearSpec(np.ones(shape).tolist()).rows == rows
