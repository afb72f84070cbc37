from __future__ import annotations

import numpy as np
import pytest

from boundflow_core.errors import InputError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import bind_symbols, evaluate
from boundflow_core.ir.types import DType, SymDim

B, S = SymDim.of("B"), SymDim.of("S")


def small():
    b = Builder(DType.FLOAT32, "small")
    x, c = b.input("x", (B, 3)), b.input("c", (S, 2 * B))
    with b.origin("dense"):
        y = b.matmul(x, b.constant(np.ones((2, 3))), transpose_b=True) + 0.5
    return b.finish({"y": b.reshape(y, (2 * B,)), "c": b.neg(c)})


def test_text():
    assert str(small()) == (
        "program small(%x: float32[B, 3], %c: float32[S, 2*B]) {\n"
        "  %w0: float32[2, 3] = constant\n"
        "  %0.5: float32[] = constant\n"
        "  %4: float32[B, 2] = matmul(%x, %w0) {transpose_a=False, transpose_b=True}  # dense\n"
        "  %6: float32[B, 2] = add(%4, %0.5)  # dense\n"
        "  %7: float32[2*B] = reshape(%6) {shape=[2*B]}\n"
        "  %8: float32[S, 2*B] = neg(%c)\n"
        "  return y=%7, c=%8\n"
        "}"
    )


def test_bind_makes_all_shapes_concrete():
    program = small()
    assert program.symbols() == ("B", "S")
    bound = program.bind({"B": 5, "S": 2})
    assert bound.symbols() == () and "B" not in str(bound).replace("transpose_b", "")
    assert bound.outputs["y"].shape == (10,) and bound.outputs["c"].shape == (2, 10)
    assert program.outputs["y"].shape == (2 * B,)
    inputs = {"x": np.ones((5, 3)), "c": np.ones((2, 10))}
    np.testing.assert_array_equal(evaluate(bound, inputs)["y"], evaluate(program, inputs)["y"])


@pytest.mark.parametrize(
    "shapes, match",
    [
        ({"x": (5, 3)}, "takes the inputs"),
        ({"x": (5, 3), "c": (2, 10), "d": ()}, "takes the inputs"),
        ({"x": (5, 4), "c": (2, 10)}, "'x'.*must have shape"),
        ({"x": (5,), "c": (2, 10)}, "'x'.*must have shape"),
        ({"x": (5, 3), "c": (2, 9)}, "'c'.*must have shape"),
        ({"x": (5, 3), "c": (2, 10, 1)}, "'c'.*must have shape"),
    ],
)
def test_inputs_that_do_not_fit(shapes, match):
    assert bind_symbols(small(), {"x": (5, 3), "c": (2, 10)}) == {"B": 5, "S": 2}
    with pytest.raises(InputError, match=match):
        bind_symbols(small(), shapes)


def test_inputs_agree_on_a_symbol():
    b = Builder()
    program = b.finish({"y": b.input("x", (B,)) + b.input("z", (B,))})
    with pytest.raises(InputError, match="'z'"):
        bind_symbols(program, {"x": (2,), "z": (3,)})
