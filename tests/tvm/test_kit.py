"""Compiled kernels under the conformance kit: a sample, since every program is compiled."""

from __future__ import annotations

import pytest

from boundflow_core.testing import check_executor, check_lowering


@pytest.mark.slow
def test_executor() -> None:
    check_executor("tvm", examples=2, shrink=False)


@pytest.mark.parametrize("op", ["linear", "conv2d", "relu", "matmul"])
def test_lowering(op: str) -> None:
    check_lowering("call_tir", "ibp", ops=[op], dtypes=["float32"], examples=3, shrink=False)
