from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from boundflow_core.errors import IRError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.program import Composite
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.ir.verify import verify_program
from boundflow_core.planner.layout.sink import sink_everywhere
from boundflow_core.planner.rewrite import decompose, rewrite

INNER = Composite("inner", "x + 1 and 2 x", lambda b, xs, attrs: (xs[0] + 1.0, xs[0] * 2.0))
OUTER = Composite("outer", "x + 1 + 2 x", lambda b, xs, attrs: (b.add(*b.emit(INNER, xs[0])),))
X = np.array([[1.0, 2.0]])


def program():
    b = Builder(DType.FLOAT32, "p")
    x = b.input("x", (SymDim.of("B"), 2))
    with b.origin("node"):
        y = b.emit(OUTER, x * b.constant(np.array([1.0, 3.0])))[0]
    return b.finish({"y": y + b.emit(INNER, x)[1]})


def test_composites_are_written_out_to_the_bottom():
    legal = verify_program(decompose(verify_program(program())))
    assert not {op.name for op in legal.ops} & {"inner", "outer"}
    assert all(value.type.dtype is DType.FLOAT32 for op in legal.ops for value in op.outputs)
    np.testing.assert_array_equal(evaluate(legal, {"x": X})["y"], evaluate(program(), {"x": X})["y"])
    assert evaluate(legal, {"x": X})["y"].tolist() == [[1 + 1 + 2 + 2, 6 + 1 + 12 + 4]]
    assert {op.origin for op in legal.ops} == {"node", ""}


def test_kept_composites_stay():
    kept = verify_program(decompose(program(), {"inner"}))
    assert [op.name for op in kept.ops].count("inner") == 2 and "outer" not in {op.name for op in kept.ops}


def test_a_rewrite_that_changes_nothing_gives_the_same_text():
    once = rewrite(program(), lambda b, op, inputs: None)
    assert [op.name for op in once.ops] == [op.name for op in program().ops]
    assert next(iter(once.constants.values())).numpy().tolist() == [1, 3]


def test_rules_replace_and_what_becomes_equal_is_merged():
    b = Builder()
    x = b.input("x", (2,))
    before = b.finish({"y": b.exp(b.neg(b.neg(x))) + b.exp(x)})

    def no_double_negation(builder, op, inputs):
        return [values[inputs[0]]] if op.name == "neg" and inputs[0] in values else remember(builder, op, inputs)

    values = {}

    def remember(builder, op, inputs):
        if op.name == "neg":
            (out,) = builder.emit(op.spec, *inputs, **op.attrs)
            values[out] = inputs[0]
            return [out]
        return None

    after = verify_program(rewrite(before, no_double_negation))
    assert [op.name for op in after.ops] == ["exp", "add"]


def test_programs_are_freed_without_the_collector_of_cycles():
    gc.disable()
    try:
        first = program()
        rewritten, sunk = rewrite(first, lambda b, op, inputs: None), sink_everywhere(first)
        kept = [weakref.ref(op) for new in (rewritten, sunk) for op in new.ops]
        assert kept
        del rewritten, sunk
        assert [ref() for ref in kept] == [None] * len(kept)
    finally:
        gc.enable()


def test_nothing_is_written_into_a_builder_that_has_forgotten():
    b = Builder()
    x = b.input("x", (2,))
    y = b.exp(x)
    assert b.finish({"y": y}).ops and b.exp(x) is y  # a builder may be finished several times
    b.forget()
    with pytest.raises(IRError, match="nothing more can be written"):
        b.exp(x)


def test_operations_belong_to_the_node_that_was_marked_last():
    b = Builder()
    x = b.input("x", (2,))
    b.mark("one")
    y = b.exp(x)
    with b.origin("two"):
        z = b.exp(y)
    out = b.exp(z)
    assert [op.origin for op in b.finish({"out": out}).ops] == ["one", "two", "one"]
