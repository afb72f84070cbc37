from __future__ import annotations

import math

import numpy as np
import pytest

from boundflow_core.errors import IRError, LoadError
from boundflow_core.ir.builder import Builder, infer_types
from boundflow_core.ir.constants import Constant, Derivation, frozen
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.program import Composite
from boundflow_core.ir.types import Attrs, DType, TensorType
from boundflow_core.ir.verify import verify_program


def names(program):
    return [op.name for op in program.ops]


def test_the_same_operation_is_written_once():
    b = Builder()
    x, y = b.input("x", (2,)), b.input("y", (2,))
    assert b.add(x, y) is b.add(x, y)
    assert b.add(x, y) is not b.add(y, x)
    assert b.reduce_sum(x, [0]) is b.reduce_sum(x, (0,))
    assert b.reduce_sum(x, (0,)) is not b.reduce_sum(x, (0,), keepdims=True)


def test_operations_that_differ_in_the_sign_of_a_zero_are_two():
    b = Builder()
    x = b.input("x", (1,))
    program = b.finish({"p": b.pad(x, (1,), (0,), 0.0), "m": b.pad(x, (1,), (0,), -0.0)})
    results = evaluate(program, {"x": np.ones(1)})
    assert not np.signbit(results["p"][0]) and np.signbit(results["m"][0])


def test_scalars_are_kept_apart_by_value_and_sign_of_zero():
    b = Builder(DType.FLOAT32)
    x = b.input("x", (1,))
    assert b.constant(1) is b.constant(1.0) is b.constant(True)
    program = b.finish({"inf": x / 0.0, "-inf": x / -0.0, "big": b.minimum(math.inf, x)})
    results = evaluate(program, {"x": np.ones(1)})
    assert (results["inf"][0], results["-inf"][0], results["big"][0]) == (math.inf, -math.inf, 1)
    assert all(r.dtype == np.float32 for r in results.values())


def test_names_of_scalars_are_no_names_of_results():
    b = Builder()
    x = b.input("x", (1,))
    y = x
    for _ in range(9):
        y = y * 3.0 + 5.0
    program = b.finish({"y": y})
    values = [*program.inputs, *program.constants, *(v for op in program.ops for v in op.outputs)]
    assert len({value.name for value in values}) == len(values)


def test_constants_are_read_by_reference_and_once():
    b = Builder(DType.FLOAT32)
    array = np.arange(3.0)
    array.flags.writeable = False
    one, again, equal = frozen(array), frozen(array), frozen(np.arange(3.0))
    assert one.data is array
    assert b.constant(one) is b.constant(one) is b.constant(again)
    assert b.constant(one) is not b.constant(equal)
    assert b.constant(one).type == TensorType(DType.FLOAT32, (3,))
    assert b.constant(np.array([1])).type.dtype is DType.INT64


def test_constants_of_vanished_arrays_are_never_mistaken_for_new_ones():
    b = Builder()
    x = b.input("x", ())
    outputs = {str(i): b.add(x, b.constant(np.full((), float(i)))) for i in range(100)}  # each array dies at once
    results = evaluate(b.finish(outputs), {"x": np.zeros(())})
    assert {name: float(value) for name, value in results.items()} == {str(i): float(i) for i in range(100)}


def test_derived_constants_of_vanished_objects_too():
    b = Builder()
    x = b.input("x", ())
    negated = [
        b.constant(
            Constant(
                TensorType(DType.FLOAT64, ()), None, Derivation(PRIMAL_OPS["exp"], Attrs(), (frozen(np.float64(i)),))
            )
        )
        for i in range(50)
    ]
    results = evaluate(b.finish({str(i): b.add(x, value) for i, value in enumerate(negated)}), {"x": np.zeros(())})
    np.testing.assert_allclose([results[str(i)] for i in range(50)], np.exp(np.arange(50.0)))


def test_an_array_changed_afterwards_does_not_change_the_program():
    b = Builder()
    x = b.input("x", (2,))
    array = np.zeros(2)
    view = np.broadcast_to(array, (2,))
    program = b.finish({"y": x + b.constant(array), "z": x + b.constant(view)})
    array[:] = 7
    results = evaluate(program, {"x": np.zeros(2)})
    assert not results["y"].any() and not results["z"].any()


def test_constants_must_be_finite():
    with pytest.raises(LoadError, match="not finite"):
        Builder().constant(np.array([np.nan]))


def test_arrays_and_numbers_are_operands_on_both_sides():
    b = Builder()
    x = b.input("x", (2,))
    array = np.array([1.0, 2.0])
    program = b.finish({"y": (array - x) * np.float32(3) / (1 + x), "n": -x})
    np.testing.assert_allclose(evaluate(program, {"x": np.array([3.0, 5.0])})["y"], [-6 / 4, -9 / 6])


def test_dead_code_and_unread_constants_are_dropped():
    b = Builder()
    x = b.input("x", (2,))
    b.exp(x) + b.constant(np.ones(2))
    program = verify_program(b.finish({"y": b.neg(x)}))
    assert names(program) == ["neg"] and not program.constants


def test_layout_that_changes_nothing_writes_nothing():
    b = Builder()
    x = b.input("x", (2, 3))
    assert b.reshape(x, [2, 3]) is b.permute(x, (0, 1)) is b.broadcast(x, (2, 3)) is b.concat([x], 0) is x
    assert b.cast(x, DType.FLOAT64) is x


def test_errors_name_operation_operands_and_node():
    b = Builder()
    x, y = b.input("x", (2,)), b.input("y", (3,))
    with (
        b.origin("conv1"),
        b.origin("inner"),
        pytest.raises(IRError, match=r"add\(float64\[2\], float64\[3\]\).*inner"),
    ):
        b.add(x, y)
    with pytest.raises(IRError, match="another program"):
        b.add(x, Builder().input("x", (2,)))
    with pytest.raises(IRError, match="two inputs are named 'x'"):
        b.input("x", ())


def test_origin_is_that_of_the_innermost_block():
    b = Builder()
    x = b.input("x", (2,))
    with b.origin("outer"):
        with b.origin("inner"):
            y = b.exp(x)
        z = b.neg(y)
    ops = b.finish({"z": b.abs(z)}).ops
    assert [op.origin for op in ops] == ["inner", "outer", ""]


def test_types_of_a_composite_are_those_of_its_decomposition():
    both = Composite("both", "sum and exp", lambda b, xs, attrs: (b.reduce_sum(xs[0], (0,)), b.exp(xs[1])))
    types = [TensorType(DType.FLOAT32, (2, 3)), TensorType(DType.FLOAT32, (4,))]
    expected = (TensorType(DType.FLOAT32, (3,)), TensorType(DType.FLOAT32, (4,)))
    assert infer_types(both, types, Attrs(), DType.FLOAT32) == expected
    b = Builder(DType.FLOAT32)
    total, other = b.emit(both, b.input("x", (2, 3)), b.input("y", (4,)))
    results = evaluate(b.finish({"s": total, "e": other}), {"x": np.ones((2, 3)), "y": np.zeros(4)})
    assert results["s"].tolist() == [2, 2, 2] and results["e"].tolist() == [1] * 4


@pytest.mark.parametrize("name", PRIMITIVES)
def test_every_primitive_has_a_method_of_its_name(name):
    assert callable(getattr(Builder, name)) and PRIMITIVES[name].name == name and PRIMITIVES[name].doc
