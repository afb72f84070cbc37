from __future__ import annotations

import numpy as np
import pytest

from boundflow_core.errors import LoadError
from boundflow_core.ir.constants import frozen
from boundflow_core.ir.types import DType


@pytest.mark.parametrize(
    "given, held",
    [("f2", "float32"), ("f4", "float32"), ("f8", "float64"), ("?", "bool"), ("i1", "int64"), ("u4", "int64")],
)
def test_element_types(given, held):
    constant = frozen(np.ones(2, dtype=given))
    assert constant.type.dtype is DType(held) and constant.data.dtype == held and constant.numpy().tolist() == [1, 1]


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1j]), np.array([None])])
def test_other_element_types(array):
    with pytest.raises(LoadError, match="weight w has element type"):
        frozen(array, "weight w")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_must_be_finite(value):
    with pytest.raises(LoadError, match="not finite"):
        frozen(np.array([0, value]))


def test_read_only_arrays_are_not_copied_and_others_are():
    array = np.zeros(3)
    copy = frozen(array)
    array.flags.writeable = False
    assert copy.data is not array and not copy.data.flags.writeable
    assert frozen(array).data is array and frozen(array[:2]).data.base is array


def test_a_read_only_view_of_a_writeable_array_is_copied():
    array = np.zeros(3)
    constant = frozen(np.broadcast_to(array, (2, 3)))
    array[:] = 1
    assert not constant.numpy().any()
