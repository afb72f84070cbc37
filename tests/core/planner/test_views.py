"""Views lie where NumPy's own views of the same operations lie."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.program import BoundProgram
from boundflow_core.ir.types import concrete_dim, concrete_shape
from boundflow_core.planner.views import Strided, contiguous, view_of
from boundflow_core.testing.programs import B, programs


@settings(max_examples=200)
@given(programs)
def test_views_show_what_the_operation_gives(program: BoundProgram) -> None:
    sizes = {"B": 2, "S": 3}
    numbers = np.random.default_rng(0)
    for op in program.ops:
        source = op.inputs[0]
        seen = view_of(op, {source: contiguous(source)}, strided=True)
        if seen is None:
            assert op.name not in ("permute", "broadcast")
            continue
        b = Builder()
        copy = b.input("x", concrete_shape(source.shape, sizes), source.type.dtype)
        bound = program.bind(sizes).ops[program.ops.index(op)]
        (out,) = b.emit(op.spec, copy, **bound.attrs)
        memory = numbers.normal(size=copy.shape).astype(source.type.dtype.numpy)
        want = evaluate(b.finish({"out": out}), {"x": memory})["out"]
        item = memory.itemsize
        start, strides = (
            concrete_dim(seen.offset, sizes) * item,
            [s * item for s in concrete_shape(seen.strides, sizes)],
        )
        got = np.ndarray(want.shape, memory.dtype, memory, start, strides)
        np.testing.assert_array_equal(got, want)


def test_a_reshape_of_what_does_not_lie_in_order_is_no_view() -> None:
    b = Builder()
    x = b.input("x", (B, 2, 3))
    permuted = b.permute(x, (0, 2, 1))
    op = b.finish({"out": b.reshape(permuted, (B, 6))}).ops[-1]
    assert view_of(op, {permuted: Strided(x, (6, 1, 3))}, strided=True) is None
