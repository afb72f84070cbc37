"""Dropping the batch axis keeps the function, whatever operators do to the leading axis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.verify import verify_graph
from boundflow_core.normalize import drop_batch_axis, normalize


def array(draw, shape):
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return rng.integers(-4, 5, size=shape) / 4


def axis(draw, x, first=0):
    return draw(st.integers(first, len(x.shape) - 1))


def _elementwise(draw, g, x):
    shape = list(x.shape)[draw(st.integers(0, len(x.shape))) :]
    shape = [draw(st.sampled_from([1, dim])) for dim in shape]
    wide = [draw(st.integers(1, 2)) for _ in range(draw(st.integers(0, 1)))] if len(shape) == len(x.shape) < 5 else []
    c = array(draw, (*wide, *shape))
    op = draw(st.sampled_from(["add", "mul", "maximum"]))
    return g.op(op, x, c) if draw(st.booleans()) else g.op(op, c, x)


def _where(draw, g, x):
    return g.op("where", array(draw, x.shape) > 0, x, array(draw, x.shape[-1:]))


def _self_product(draw, g, x):
    return g.op("add", x, g.op("relu", x))


def _permute(draw, g, x):
    return g.op("permute", x, axes=draw(st.permutations(range(len(x.shape)))))


def _reduce(draw, g, x):
    axes = draw(st.lists(st.integers(0, len(x.shape) - 1), unique=True)) if x.shape else []
    op = draw(st.sampled_from(["reduce_sum", "reduce_max", "reduce_min"]))
    return g.op(op, x, axes=axes, keepdims=draw(st.booleans()))


def _squeeze(draw, g, x):
    return g.op("reshape", x, shape=[dim for dim in x.shape if dim != 1 or draw(st.booleans())])


def _unsqueeze(draw, g, x):
    shape = list(x.shape)
    shape.insert(draw(st.integers(0, len(shape))), 1)
    return g.op("reshape", x, shape=shape) if len(shape) < 6 else x


def _flatten(draw, g, x):
    return g.op("reshape", x, shape=draw(st.sampled_from([(int(np.prod(x.shape)),), (1, int(np.prod(x.shape)))])))


def _expand(draw, g, x):
    shape = [draw(st.integers(1, 2)) if dim == 1 else dim for dim in x.shape]
    return g.op("expand", x, shape=([1] if draw(st.booleans()) and len(shape) < 5 else []) + shape)


def _concat(draw, g, x):
    if not x.shape:
        return x
    place = axis(draw, x)
    shape = list(x.shape)
    shape[place] = draw(st.integers(1, 2))
    parts = [x, array(draw, shape)]
    return g.op("concat", *(parts if draw(st.booleans()) else parts[::-1]), axis=place)


def _gather(draw, g, x):
    if not x.shape:
        return x
    place = axis(draw, x)
    index = [draw(st.integers(0, x.shape[place] - 1)) for _ in range(draw(st.integers(1, 2)))]
    return g.op("gather", x, np.array(index), axis=place)


def _slice(draw, g, x):
    starts = [draw(st.integers(0, dim - 1)) for dim in x.shape]
    return g.op("slice", x, starts=starts, stops=x.shape, steps=[draw(st.integers(1, 2)) for _ in x.shape])


def _pad(draw, g, x):
    low, high = ([draw(st.integers(0, 1)) for _ in x.shape] for _ in range(2))
    return g.op("pad", x, low=low, high=high, value=0.5)


def _softmax(draw, g, x):
    return g.op("softmax", x, axis=axis(draw, x)) if x.shape else x


def _linear(draw, g, x):
    return g.op("linear", x, array(draw, (2, x.shape[-1])), array(draw, (2,))) if x.shape else x


def _matmul(draw, g, x):
    if len(x.shape) < 2:
        return x
    lead = list(x.shape[:-2])[draw(st.integers(0, len(x.shape) - 2)) :]
    lead = [draw(st.sampled_from([1, dim])) for dim in lead]
    lead = [1] * draw(st.integers(0, 1)) + lead if len(lead) == len(x.shape) - 2 < 3 else lead
    if draw(st.booleans()):
        return g.op("matmul", x, array(draw, (*lead, x.shape[-1], 2)))
    return g.op("matmul", array(draw, (*lead, 2, x.shape[-2])), x)


def _matmul_of_two(draw, g, x):
    """Both sides depend on the input, and may have different ranks."""
    if len(x.shape) < 2:
        return x
    y = g.op("permute", x, axes=(*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2))
    if len(x.shape) > 2 and draw(st.booleans()):
        y = g.op("reduce_max", y, axes=(0,), keepdims=False)
    return g.op("matmul", x, y)


def _conv(draw, g, x):
    if len(x.shape) < 3:
        return x
    padding = [draw(st.integers(0, 1)) for _ in range(4)]
    window = {"stride": (1, 1), "padding": padding, "dilation": (1, 1)}
    if draw(st.booleans()):
        return g.op("max_pool2d", x, kernel=(1, 1), **window)
    return g.op("conv2d", x, array(draw, (2, x.shape[-3], 1, 1)), array(draw, (2,)), **window, groups=1)


STEPS = [
    value for name, value in list(globals().items()) if name.startswith("_") and callable(value) and name[1] != "_"
]


@st.composite
def graphs(draw):
    g = PrimalBuilder("random", "x", (1, *draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))))
    x = g.input
    for number in range(draw(st.integers(1, 5))):
        with g.at(f"n{number}"):
            y = draw(st.sampled_from(STEPS))(draw, g, x)
        if int(np.prod(y.shape)) <= 200:
            x = y
    return g.finish(x)


@settings(max_examples=400)
@given(graphs())
def test_random_chains_keep_their_function(graph):
    verify_graph(graph)
    x = np.random.default_rng(0).normal(size=(3, *graph.input_type.shape))
    expected = evaluate_graph(graph, x)
    for pass_ in (drop_batch_axis, lambda g: normalize(g, batch_axis=True)):
        dropped = verify_graph(pass_(graph))
        assert dropped.input_type.shape == graph.input_type.shape[1:]
        out = graph.output_type.shape
        assert dropped.output_type.shape == (out[1:] if out and out[0] == 1 else out)
        result = evaluate_graph(dropped, x[:, 0])
        np.testing.assert_allclose(result.reshape(expected.shape), expected, rtol=1e-9, atol=1e-9)


def dropped_ops(shape, write):
    g = PrimalBuilder("g", "x", shape)
    graph = drop_batch_axis(g.finish(write(g, g.input)))
    return [(node.op, dict(node.attrs)) for node in verify_graph(graph).nodes], graph.output_type.shape


@pytest.mark.parametrize(
    "write, expected",
    [
        (lambda g, x: g.op("permute", x, axes=(0, 2, 1)), [("permute", {"axes": (1, 0)})]),
        (lambda g, x: g.op("softmax", x, axis=1), [("softmax", {"axis": 0})]),
        (
            lambda g, x: g.op("reduce_sum", x, axes=(1, 2), keepdims=True),
            [("reduce_sum", {"axes": (0, 1), "keepdims": True})],
        ),
        (lambda g, x: g.op("add", x, np.ones((1, 2, 1))), [("add", {})]),
        (lambda g, x: g.op("matmul", x, np.ones((3, 2))), [("matmul", {})]),
        (lambda g, x: g.op("concat", x, np.ones((1, 1, 3)), axis=1), [("concat", {"axis": 0})]),
    ],
)
def test_operators_on_other_axes_lose_the_batch_axis_without_a_reshape(write, expected):
    assert dropped_ops((1, 2, 3), write)[0] == expected


def test_an_operator_on_the_batch_axis_gets_it_back():
    ops, shape = dropped_ops((1, 3), lambda g, x: g.op("permute", x, axes=(1, 0)))
    assert [op for op, _ in ops] == ["reshape", "permute"] and shape == (3, 1)
    ops, shape = dropped_ops((1, 3), lambda g, x: g.op("softmax", x, axis=0))
    assert [op for op, _ in ops] == ["reshape", "softmax", "reshape"] and shape == (3,)
