from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_programs import Live, random_inputs, random_program

from boundflow_core.extension import Pass
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import Constant, frozen
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.types import DType, SymDim, TensorType, size
from boundflow_core.ir.verify import verify_program
from boundflow_core.planner.layout import LayoutReport, analyse_layout, layout_ops, simplify_layout, sink_layout
from boundflow_core.planner.layout.forms import Form, axis_order, groups, whole
from boundflow_core.planner.layout.sink import sink_everywhere
from boundflow_core.planner.rewrite import rewrite
from boundflow_core.plugins import registry

B = SymDim.of("B")


def renumbered(program):
    return rewrite(program, lambda b, op, inputs: None)


def body(program):
    """The operations of a program as text, numbered anew."""
    text = str(renumbered(program)).splitlines()
    return [line.strip().replace("float64", "") for line in text[1:-1]]


def written(write, *shapes, group="region"):
    """A program from what ``write(builder, *inputs)`` gives on inputs of ``shapes`` named x, y..."""
    b = Builder(DType.FLOAT64, "p")
    inputs = [b.input(name, shape, group=group) for name, shape in zip("xyz", shapes, strict=False)]
    with b.origin("node"):
        result = write(b, *inputs)
    return b.finish({"out": result})


def check_same(old, new, batch=2):
    """Both programs are legal, have the same inputs and outputs, and compute the same."""
    verify_program(new)
    assert [(v.name, v.type) for v in new.inputs] == [(v.name, v.type) for v in old.inputs]
    assert new.groups == old.groups
    assert list(new.outputs) == list(old.outputs)
    inputs = random_inputs(old, batch)
    expected, found = evaluate(old, inputs), evaluate(new, inputs)
    for name, array in expected.items():
        assert found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, rtol=1e-12, atol=1e-12)


# -- single rules -----------------------------------------------------------------------------------------------------

SIMPLER = {
    "reshape of reshape": (
        (lambda b, x: b.reshape(b.reshape(x, (B, 24)), (B, 4, 6)), (B, 2, 3, 4)),
        ["%2: [B, 4, 6] = reshape(%x) {shape=[B, 4, 6]}  # node", "return out=%2"],
    ),
    "reshape and back": (
        (lambda b, x: b.reshape(b.reshape(x, (B, 1, 24)), (B, 24)), (B, 24)),
        ["return out=%x"],
    ),
    "permute of permute": (
        (lambda b, x: b.permute(b.permute(x, (0, 2, 1, 3)), (0, 3, 2, 1)), (B, 2, 3, 4)),
        ["%2: [B, 4, 2, 3] = permute(%x) {axes=[0, 3, 1, 2]}  # node", "return out=%2"],
    ),
    "permute and back": (
        (lambda b, x: b.permute(b.permute(x, (0, 2, 3, 1)), (0, 3, 1, 2)), (B, 2, 3, 4)),
        ["return out=%x"],
    ),
    "permute of axes of size 1": (
        (lambda b, x: b.permute(x, (0, 2, 3, 1)), (B, 1, 3, 4)),
        ["%2: [B, 3, 4, 1] = reshape(%x) {shape=[B, 3, 4, 1]}  # node", "return out=%2"],
    ),
    "broadcast of broadcast": (
        (lambda b, x: b.broadcast(b.broadcast(x, (B, 3, 1)), (2, B, 3, 4)), (B, 1, 1)),
        ["%2: [2, B, 3, 4] = broadcast(%x) {shape=[2, B, 3, 4]}  # node", "return out=%2"],
    ),
    "slice of slice": (
        (lambda b, x: b.slice(b.slice(x, (0, 1), (B, 10), (1, 2)), (0, 1), (B, 4), (1, 2)), (B, 12)),
        ["%2: [B, 2] = slice(%x) {starts=[0, 3], steps=[1, 4], stops=[B, 9]}  # node", "return out=%2"],
    ),
    "whole slice": (
        (lambda b, x: b.slice(x, (0, 0), (B, 12), (1, 1)), (B, 12)),
        ["return out=%x"],
    ),
    "pad of pad": (
        (lambda b, x: b.pad(b.pad(x, (0, 1), (0, 2), 5.0), (0, 3), (0, 0), 5.0), (B, 2)),
        ["%2: [B, 8] = pad(%x) {high=[0, 2], low=[0, 4], value=5.0}  # node", "return out=%2"],
    ),
    "pad by nothing": (
        (lambda b, x: b.pad(x, (0, 0), (0, 0), 5.0), (B, 2)),
        ["return out=%x"],
    ),
}


@pytest.mark.parametrize("name", SIMPLER)
def test_a_local_rule_gives_exactly_this(name):
    (write, *shapes), expected = SIMPLER[name]
    old = written(write, *shapes)
    new = simplify_layout(old)
    assert body(new) == expected
    check_same(old, new)


UNTOUCHED = {
    "permute that moves data": (lambda b, x: b.permute(x, (0, 2, 1)), (B, 2, 3)),
    "reshape of permute": (lambda b, x: b.reshape(b.permute(x, (0, 2, 1)), (B, 6)), (B, 2, 3)),
    "pads by other numbers": (lambda b, x: b.pad(b.pad(x, (0, 1), (0, 0), 1.0), (0, 1), (0, 0), 2.0), (B, 2)),
    "pads by zeros of either sign": (lambda b, x: b.pad(b.pad(x, (0, 1), (0, 0), 0.0), (0, 1), (0, 0), -0.0), (B, 2)),
    "slice of a part": (lambda b, x: b.slice(x, (0, 0), (B, 11), (1, 1)), (B, 12)),
    "slice by steps": (lambda b, x: b.slice(x, (0, 0), (B, 2), (1, 2)), (B, 2)),
    "permute of a product": (lambda b, x: b.permute(b.matmul(x, x), (0, 2, 1)), (B, 2, 2)),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_local_rules_leave_alone_what_they_must(name):
    write, *shapes = UNTOUCHED[name]
    old = written(write, *shapes)
    assert body(simplify_layout(old)) == body(old)


def with_constant(b, array, live):
    kind = TensorType(DType.FLOAT64, array.shape)
    return b.constant(Constant(kind, Live(array)) if live else frozen(array))


@pytest.mark.parametrize("live", [False, True])
def test_constants_are_arranged_beforehand_unless_they_may_change(live):
    weight = np.arange(6.0).reshape(2, 3)
    old = written(lambda b, x: x + b.abs(b.permute(with_constant(b, weight, live), (1, 0))), (B, 3, 2))
    new = simplify_layout(old)
    check_same(old, new)
    assert ("permute" in str(new).replace("w0.permute", "")) == live
    if not live:
        (constant,) = new.constants.values()
        assert not constant.data.flags.writeable
        np.testing.assert_array_equal(constant.numpy(), weight.T)


# -- rearrangements on their way down ---------------------------------------------------------------------------------

BACK, FORTH = (0, 2, 3, 1), (0, 3, 1, 2)  # NCHW -> NHWC and NHWC -> NCHW
CHANNELS = np.arange(4.0)

GONE = {
    "one function": lambda b, x: b.permute(b.exp(b.permute(x, BACK)), FORTH),
    "a number": lambda b, x: b.permute(b.maximum(b.permute(x, BACK), 0.0), FORTH),
    "a constant for each channel": lambda b, x: b.permute(b.permute(x, BACK) * b.constant(CHANNELS), FORTH),
    "two operands": lambda b, x: b.permute(b.permute(x, BACK) + b.exp(b.permute(x, BACK)), FORTH),
    "a selection": lambda b, x: b.permute(b.where(b.permute(x, BACK) > 0.0, b.permute(x, BACK), 1.0), FORTH),
    "a sum over all pixels": lambda b, x: b.reduce_sum(b.permute(x, BACK), (1, 2)),
    "a maximum that keeps its axes": lambda b, x: b.permute(
        b.reduce_max(b.permute(x, BACK), (3,), keepdims=True), FORTH
    ),
    "a slice": lambda b, x: b.permute(b.slice(b.permute(x, BACK), (0, 1, 0, 2), (B, 5, 6, 4), (1, 2, 1, 1)), FORTH),
    "a border": lambda b, x: b.permute(b.pad(b.permute(x, BACK), (0, 1, 2, 0), (0, 0, 3, 1), 7.0), FORTH),
    "a concatenation": lambda b, x: b.permute(b.concat([b.permute(x, BACK), b.exp(b.permute(x, BACK))], 3), FORTH),
    "chosen rows": lambda b, x: b.permute(b.gather_rows(b.permute(x, BACK), b.constant(np.array([3, 1])), 3), FORTH),
    "replaced rows": lambda b, x: b.permute(
        b.scatter_rows(
            b.permute(x, BACK),
            b.constant(np.array([2, 0])),
            b.exp(b.gather_rows(b.permute(x, BACK), b.constant(np.array([3, 1])), 3)),
            3,
        ),
        FORTH,
    ),
    "a broadcast": lambda b, x: b.permute(b.broadcast(b.permute(x, (0, 1, 3, 2)), (2, B, 4, 6, 5)), (0, 1, 2, 4, 3)),
    "a product by a transposed matrix": lambda b, x: b.matmul(b.exp(x), b.permute(x, (0, 1, 3, 2))),
    "a product of two transposed matrices": lambda b, x: b.matmul(
        b.permute(x, (0, 1, 3, 2)), b.permute(b.slice(x, (0, 0, 0, 0), (B, 4, 5, 5), (1, 1, 1, 1)), (0, 1, 3, 2))
    ),
    "a product of matrices": lambda b, x: b.matmul(b.permute(x, (0, 1, 3, 2)), b.exp(x)),
    "a product with its other axes in another order": lambda b, x: b.permute(
        b.matmul(b.permute(x, (1, 0, 3, 2)), b.permute(b.exp(x), (1, 0, 2, 3))), (1, 0, 2, 3)
    ),
}


@pytest.mark.parametrize("name", GONE)
def test_permutations_around_these_are_gone(name):
    old = written(GONE[name], (B, 4, 5, 6))
    new = sink_layout(simplify_layout(old))
    check_same(old, new)
    assert "permute" in {op.name for op in old.ops}
    assert "permute" not in {op.name for op in new.ops}


def test_a_permutation_that_nothing_cancels_stays_where_it_is():
    old = written(lambda b, x: b.matmul(b.permute(x, BACK), b.constant(np.ones((4, 2)))), (B, 4, 5, 4))
    assert sink_layout(old) is old


def test_one_permutation_with_many_results_is_not_multiplied():
    b = Builder(DType.FLOAT64, "p")
    x = b.permute(b.input("x", (B, 2, 3)), (0, 2, 1))
    old = b.finish({"a": b.exp(x), "b": b.tanh(x), "c": b.abs(x)})
    assert sink_layout(old) is old
    assert len(layout_ops(sink_everywhere(old))) == 3


def test_a_gain_in_one_place_leaves_others_alone():
    b = Builder(DType.FLOAT64, "p")
    x = b.input("x", (B, 2, 3))
    y = b.permute(b.input("y", (B, 2, 3)), (0, 2, 1))
    gain = b.permute(b.exp(b.permute(x, (0, 2, 1))), (0, 2, 1))
    new = sink_layout(b.finish({"gain": gain, "a": b.exp(y), "b": b.tanh(y)}))
    assert body(new) == [
        "%3: [B, 3, 2] = permute(%y) {axes=[0, 2, 1]}",
        "%4: [B, 2, 3] = exp(%x)",
        "%5: [B, 3, 2] = exp(%3)",
        "%6: [B, 3, 2] = tanh(%3)",
        "return gain=%4, a=%5, b=%6",
    ]


def test_windows_read_their_operands_as_they_are():
    def write(b, x):
        nhwc = b.exp(b.permute(x, BACK))
        return b.max_pool2d(nhwc, kernel=(2, 2), stride=(1, 1))

    old = written(write, (B, 4, 5, 6))
    check_same(old, sink_everywhere(old))
    assert sink_layout(old) is old


@pytest.mark.parametrize("live", [False, True])
def test_a_flattened_permutation_moves_into_the_weight(live):
    weight = np.random.default_rng(0).normal(size=(3, 24))

    def write(b, x):
        flat = b.reshape(b.permute(x, BACK), (B, 24)) * 0.5
        w = with_constant(b, weight, live)
        return b.matmul(flat, w, transpose_b=True) + b.matmul(b.abs(flat), b.abs(w), transpose_b=True)

    old = written(write, (B, 2, 3, 4))
    new = sink_layout(old)
    check_same(old, new)
    kinds = [op.name for op in new.ops]
    assert "permute" not in kinds
    assert kinds.count("gather_rows") == live  # weights that may change are arranged when they do


def test_a_flattened_permutation_moves_through_rows_into_their_weight():
    weight = np.random.default_rng(0).normal(size=(5, 24))

    def write(b, x, rows):
        flat = b.reshape(b.permute(x, BACK), (B, 24))
        return b.matmul(flat, b.abs(b.matmul(rows, b.constant(weight))), transpose_b=True)

    old = written(write, (B, 2, 3, 4), (7, 5))
    new = sink_layout(old)
    check_same(old, new)
    assert [op.name for op in new.ops if op in layout_ops(new)] == ["reshape"]


def test_a_permuted_image_of_a_product_moves_into_the_weight():
    weight = np.random.default_rng(0).normal(size=(5, 24))

    def write(b, x):
        image = b.reshape(b.maximum(b.matmul(x, b.constant(weight)), 0.0), (B, 4, 3, 2))
        return b.permute(image, FORTH)

    old = written(write, (B, 5))
    new = sink_layout(old)
    check_same(old, new)
    assert [op.name for op in layout_ops(new)] == ["reshape"]


def test_nothing_is_computed_twice_to_save_a_rearrangement():
    b = Builder(DType.FLOAT64, "p")
    product = b.matmul(b.input("x", (B, 5)), b.constant(np.ones((5, 24))))
    image = b.permute(b.reshape(product, (B, 4, 3, 2)), FORTH)
    old = b.finish({"image": image, "flat": product})
    assert sink_layout(old) is old


def test_axes_come_and_go_without_a_trace():
    def write(b, x):
        return b.reshape(b.exp(b.reshape(x, (B, 1, 6)) * b.constant(np.arange(6.0))), (B, 6))

    new = sink_layout(written(write, (B, 6)))
    assert not layout_ops(new)


def test_origins_stay_with_what_was_written_for_them():
    b = Builder(DType.FLOAT64, "p")
    x = b.input("x", (B, 2, 3))
    with b.origin("first"):
        y = b.permute(x, (0, 2, 1))
    with b.origin("function"):
        y = b.exp(y)
    with b.origin("second"):
        y = b.permute(y, (0, 2, 1))
    new = sink_layout(b.finish({"y": y}))
    assert [(op.name, op.origin) for op in new.ops] == [("exp", "function")]


@settings(max_examples=300)
@given(st.integers(0, 1 << 32))
def test_random_programs_keep_their_function(seed):
    old = verify_program(random_program(seed))
    simple = simplify_layout(old)
    sunk = sink_layout(simple)
    check_same(old, simple)
    check_same(old, sunk)
    check_same(old, sink_everywhere(old), batch=1)
    assert len(layout_ops(sunk)) <= len(layout_ops(simple)) <= len(layout_ops(old))


@settings(max_examples=100)
@given(st.integers(0, 1 << 32))
def test_a_second_run_changes_nothing(seed):
    once = sink_layout(simplify_layout(random_program(seed)))
    assert body(simplify_layout(once)) == body(once)
    assert sink_layout(once) is once


# -- the algebra of axes ----------------------------------------------------------------------------------------------

shapes = st.lists(st.sampled_from([1, 2, 3, 4, 6, B]), max_size=5).filter(lambda s: s.count(B) < 2).map(tuple)


@given(shapes, st.data())
def test_runs_of_axes_cover_both_shapes_and_have_equal_sizes(shape, data):
    merged = list(shape)
    for _ in range(data.draw(st.integers(0, 3))):
        if len(merged) > 1 and data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(merged) - 2))
            merged[at : at + 2] = [merged[at] * merged[at + 1]]
        else:
            merged.insert(data.draw(st.integers(0, len(merged))), 1)
    found = groups(shape, tuple(merged))
    assert [axis for before, _ in found for axis in before] == list(range(len(shape)))
    assert [axis for _, after in found for axis in after] == list(range(len(merged)))
    for before, after in found:
        assert size([shape[axis] for axis in before]) == size([merged[axis] for axis in after])


def test_the_order_of_an_axis():
    b = Builder(DType.FLOAT64)
    base = b.input("x", (B, 2, 3))
    assert axis_order(Form(base, (0, 2, 1), (B, 6)), 1).tolist() == [0, 2, 4, 1, 3, 5]
    assert axis_order(Form(base, (0, 2, 1), (B, 1, 6)), 2).tolist() == [0, 2, 4, 1, 3, 5]
    assert axis_order(Form(base, (2, 1, 0), (3, 2 * B)), 1) is None  # other axes move too
    assert axis_order(Form(base, (0, 1, 2), (6 * B,)), 0) is None  # of unknown length
    assert axis_order(whole(base), 1).tolist() == [0, 1]


# -- the report -------------------------------------------------------------------------------------------------------


def test_the_report_tells_layouts_and_what_was_eliminated():
    def write(b, x):
        y = b.permute(b.exp(b.permute(x, BACK)), FORTH)
        return b.reshape(b.conv2d(y, b.constant(np.ones((4, 16, 1, 1)))), (B, 4 * 30))

    old = written(write, (B, 16, 5, 6))
    report = analyse_layout(old, sink_layout(simplify_layout(old)))
    assert (report.before, report.after) == ({"permute": 2, "reshape": 1}, {"reshape": 1})
    assert report.eliminated == {"permute": 2}
    told = {value.name: value for value in report.values}
    assert told["x"].possible == ("NCHW", "NHWC", "NCHW16c", "NCHW8c")
    by_reader = {value.reason: value.preferred for value in report.values}
    assert by_reader["conv2d"] == "NCHW16c"
    assert by_reader["reshape"] == "NCHW"
    assert report.values[-1].possible == ("row-major",)
    text = str(report).splitlines()
    assert text[0] == "layout operations: 3 before, 1 after the passes"
    assert text[1] == "  permute: 2 -> 0"
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.before = {}
    assert LayoutReport().eliminated == {}


def test_the_passes_are_registered_by_the_core():
    passes = registry().passes
    assert isinstance(passes["layout-sink"], Pass)
    old = written(GONE["one function"], (B, 4, 5, 6))
    assert len(layout_ops(passes["layout-sink"].run(passes["layout-simplify"].run(old)))) == 0
    assert passes["layout-simplify"].rank < passes["layout-sink"].rank
