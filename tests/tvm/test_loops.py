"""Loops on compiled kernels, which know addresses: each step gives what a call of its own does."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.ir.program import BoundProgram
from boundflow_core.testing.programs import programs
from boundflow_tvm.session import aligned

from ..core.loops import check_loop_against_calls
from ..core.test_loop import PICKS, VARYING


@settings(max_examples=6, deadline=None)
@given(programs, st.sampled_from([{"B": 1, "S": 1}, {"B": 2, "S": 3}]), VARYING, PICKS, st.integers(0, 3))
def test_steps_are_calls(
    program: BoundProgram, sizes: dict[str, int], varying: tuple[str, ...], picks: list[int], carry: int
) -> None:
    sizes = {symbol: sizes[symbol] for symbol in program.symbols()}
    check_loop_against_calls(program, "tvm", sizes, varying, picks, carry)


def test_empty_tables_are_in_order():
    """NumPy may give them strides of 0; whether these reached compiled code depended on where an array lay."""
    for table in [np.array([], dtype=np.int64) for _ in range(64)]:
        assert aligned(table).strides == (8,)
