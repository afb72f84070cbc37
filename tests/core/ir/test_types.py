from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boundflow_core.errors import IRError
from boundflow_core.ir.types import (
    Attrs,
    DType,
    SymDim,
    TensorType,
    concrete_dim,
    concrete_shape,
    divide,
    format_shape,
    size,
)

B, S = SymDim.of("B"), SymDim.of("S")

dims = st.one_of(
    st.integers(1, 6),
    st.builds(
        lambda c, names: SymDim(c, tuple(sorted(names))),
        st.integers(1, 6),
        st.lists(st.sampled_from(["B", "S"]), min_size=1, max_size=3),
    ),
)


@given(dims, dims, st.fixed_dictionaries({"B": st.integers(1, 5), "S": st.integers(1, 5)}))
def test_products_and_quotients_hold_for_all_values_of_the_symbols(a, b, env):
    assert concrete_dim(a * b, env) == concrete_dim(a, env) * concrete_dim(b, env)
    assert a * b == b * a
    assert divide(a * b, b) == a
    assert concrete_shape((a, b), env) == (concrete_dim(a, env), concrete_dim(b, env))
    assert concrete_dim(size((a, 3, b)), env) == 3 * concrete_dim(a, env) * concrete_dim(b, env)


@pytest.mark.parametrize("total, part", [(7, 2), (B, S), (3 * B, 2), (B, 2 * B), (6, B), (4, 0), (B, B * B)])
def test_quotients_that_are_no_dimension_are_refused(total, part):
    with pytest.raises(IRError, match="not a multiple"):
        divide(total, part)


def test_sums_need_a_common_symbol():
    assert 2 * B + B == 3 * B
    assert (-1) * B + 3 * B == 2 * B
    for other in (S, 1, B * B):
        with pytest.raises(IRError, match="no common symbol"):
            B + other


def test_text_of_dimensions():
    assert format_shape((B, 2 * B * S, 3)) == "[B, 2*B*S, 3]"
    assert str(TensorType(DType.FLOAT32, (B, 3))) == "float32[B, 3]"
    assert size(()) == 1


@pytest.mark.parametrize("dtype", DType)
def test_element_types_are_numpys(dtype):
    assert dtype.numpy == np.dtype(str(dtype)) and dtype.itemsize == np.dtype(str(dtype)).itemsize
    assert dtype.is_float == np.issubdtype(dtype.numpy, np.floating)


def test_attrs_are_equal_only_where_types_and_bits_are():
    kinds = [Attrs(x=value) for value in (1, 1.0, True, 0.0, -0.0, "1", (1,), (1.0,), ((1,),), (0.0,), (-0.0,))]
    assert len(set(kinds)) == len(kinds)
    assert all((a == b) == (i == j) for i, a in enumerate(kinds) for j, b in enumerate(kinds))


def test_attrs_freeze_lists_and_numpy_scalars():
    attrs = Attrs({"b": [1, [2, 3]]}, a=np.int64(4))
    assert attrs == Attrs(a=4, b=(1, (2, 3))) and hash(attrs) == hash(Attrs(a=4, b=(1, (2, 3))))
    assert list(attrs) == ["a", "b"] and type(attrs["a"]) is int
    assert attrs.replace(a=5) == Attrs(a=5, b=(1, (2, 3))) and attrs["a"] == 4
    assert attrs != {"a": 4, "b": (1, (2, 3))}
    assert str(Attrs(shape=(B, 2), mode="x")) == "mode=x, shape=[B, 2]"


@pytest.mark.parametrize("value", [float("nan"), np.float32("nan"), (1.0, float("nan"))])
def test_attrs_refuse_nan(value):
    with pytest.raises(IRError, match="NaN"):
        Attrs(x=value)
