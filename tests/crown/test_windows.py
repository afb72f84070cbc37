"""Rows kept as windows give what rows as full maps give, on every executor and for every geometry."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import boundflow_core as bf
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.ir.verify import verify_program
from boundflow_core.normalize import normalize
from boundflow_core.planner.rewrite import decompose
from boundflow_core.workshop import check_options, make_workshop
from boundflow_crown import bounds as crown_bounds
from boundflow_crown import walk, window_composites
from boundflow_crown.domain import LINEAR, relaxed_operands
from boundflow_crown.frames import Frame
from boundflow_crown.layers import rows_program
from boundflow_crown.methods import CROWN
from boundflow_crown.window_composites import GATHER_WINDOWS, SCATTER_WINDOWS
from boundflow_interval import INTERVAL

# -- cutting out and putting back -------------------------------------------------------------------------------------


@st.composite
def frames(draw):
    """A frame, and the extent of the map that it lies over; windows may reach out of it, or lie outside."""
    grid, scale, size = ((draw(st.integers(1, 3)), draw(st.integers(1, 3))) for _ in range(3))
    offset = draw(st.integers(-4, 3)), draw(st.integers(-4, 3))
    extent = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    return Frame(grid, scale, offset, size), extent


def elements(frame, position):
    """Rows and columns of the window of a neuron."""
    y, x = divmod(position, frame.grid[1])
    rows = range(frame.scale[0] * y + frame.offset[0], frame.scale[0] * y + frame.offset[0] + frame.size[0])
    columns = range(frame.scale[1] * x + frame.offset[1], frame.scale[1] * x + frame.offset[1] + frame.size[1])
    return [(i, j, row, column) for i, row in enumerate(rows) for j, column in enumerate(columns)]


TABLES = pytest.mark.parametrize("most", [0, window_composites.TABLE], ids=["places by arithmetic", "by a table"])


@TABLES
@given(frames(), st.data())
def test_gathered_windows_hold_what_lies_under_them(most, drawn, data):
    frame, extent = drawn
    numbers = np.random.default_rng(data.draw(st.integers(0, 9)))
    maps = numbers.normal(size=(3, 2, *extent))
    position = numbers.integers(0, frame.grid[0] * frame.grid[1], 5)
    region = numbers.integers(0, 3, 5)
    b = Builder()
    batch, rows = SymDim.of("B"), SymDim.of("R")
    x = b.input("maps", (batch, 2, *extent))
    p, r = (b.input(name, (rows,), DType.INT64) for name in ("position", "region"))
    every = b.emit(GATHER_WINDOWS, x, p, **frame.attrs)[0]
    own = b.emit(GATHER_WINDOWS, x, p, r, **frame.attrs)[0]
    with mock.patch.object(window_composites, "TABLE", most):
        program = verify_program(decompose(b.finish({"every": every, "own": own})))
    found = evaluate(program, {"maps": maps, "position": position, "region": region})
    expected = np.zeros((3, 5, *frame.size, 2))
    for row, place in enumerate(position):
        for i, j, y, column in elements(frame, place):
            if 0 <= y < extent[0] and 0 <= column < extent[1]:
                expected[:, row, i, j] = maps[:, :, y, column]
    np.testing.assert_array_equal(found["every"], expected)
    np.testing.assert_array_equal(found["own"], expected[region, np.arange(5)])


@TABLES
@given(frames(), st.data())
def test_scattered_windows_lie_where_they_belong(most, drawn, data):
    frame, extent = drawn
    numbers = np.random.default_rng(data.draw(st.integers(0, 9)))
    windows = numbers.normal(size=(4, *frame.size, 2))
    position = numbers.integers(0, frame.grid[0] * frame.grid[1], 4)
    b = Builder()
    rows = SymDim.of("R")
    w, p = b.input("windows", (rows, *frame.size, 2)), b.input("position", (rows,), DType.INT64)
    maps = b.emit(SCATTER_WINDOWS, w, p, **frame.attrs, extent=extent)[0]
    with mock.patch.object(window_composites, "TABLE", most):
        program = verify_program(decompose(b.finish({"maps": maps})))
    expected = np.zeros((4, 2, *extent))
    for row, place in enumerate(position):
        for i, j, y, column in elements(frame, place):
            if 0 <= y < extent[0] and 0 <= column < extent[1]:
                expected[row, :, y, column] = windows[row, i, j]
    np.testing.assert_array_equal(evaluate(program, {"windows": windows, "position": position})["maps"], expected)


@given(frames(), st.data())
def test_a_union_holds_both(drawn, data):
    one, _ = drawn
    other = Frame(
        one.grid,
        one.scale,
        data.draw(st.tuples(*[st.integers(-4, 3)] * 2)),
        data.draw(st.tuples(*[st.integers(1, 3)] * 2)),
    )
    union = one.union(other)
    for position in range(one.grid[0] * one.grid[1]):
        places = {e[2:] for e in elements(union, position)}
        for part in (one, other):
            assert {e[2:] for e in elements(part, position)} <= places
    assert one.union(Frame(one.grid, (7, 7))) is None


# -- networks ---------------------------------------------------------------------------------------------------------


def conv_attrs(stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


class Net:
    """Writes a network with random weights."""

    def __init__(self, shape, seed):
        self.numbers = np.random.default_rng(seed)
        self.g = PrimalBuilder("net", "x", shape)

    def weights(self, *shape):
        return self.numbers.normal(size=shape).astype(np.float32) / 2

    def conv(self, x, out, kernel, bias=True, **attrs):
        attrs = conv_attrs(**attrs)
        operands = [self.weights(out, x.type.shape[0] // attrs["groups"], *kernel)]
        return self.g.op("conv2d", x, *operands, *([self.weights(out)] if bias else []), **attrs)

    def relu(self, x):
        return self.g.op("relu", x)

    def finish(self, x):
        return normalize(self.g.finish(x), batch_axis=False)


pairs = st.tuples(st.integers(1, 2), st.integers(1, 2))


@st.composite
def networks(draw):
    """Small convolutional networks: strides, dilations, borders on one side, groups, branches, constants in between."""
    net = Net((draw(st.integers(1, 2)), draw(st.integers(5, 9)), draw(st.integers(5, 9))), draw(st.integers(0, 99)))
    x = net.g.input
    for _ in range(draw(st.integers(2, 4))):
        kind = draw(st.sampled_from(["conv", "conv", "conv", "block", "double", "constant", "pad", "tanh", "pool"]))
        channels, height, width = x.type.shape
        if kind == "block":
            inner = net.conv(x, 2, (3, 3), padding=(1, 1, 1, 1))
            inner = net.conv(net.relu(inner), 3, (3, 3), padding=(1, 1, 1, 1), bias=draw(st.booleans()))
            skip = x if channels == 3 else net.conv(x, 3, (1, 1))
            x = net.g.op("add", *draw(st.permutations([inner, skip])))
        elif kind == "double":
            x = net.g.op("add", x, x)
        elif kind == "constant":
            shape = draw(st.sampled_from([(), (channels, 1, 1), (channels, height, width), (width,)]))
            x = net.g.op(draw(st.sampled_from(["add", "mul"])), x, net.weights(*shape))
        elif kind == "pad":
            x = net.g.op("pad", x, low=(0, 1, 0), high=(0, 0, 2), value=draw(st.sampled_from([0.0, 0.0, 1.0])))
        elif kind == "tanh":
            x = net.g.op("tanh", x)
        elif kind == "pool":
            x = net.g.op("slice", x, starts=(0, 0, 0), stops=(channels, height, width), steps=(1, 2, 1))
        else:
            kernel, dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 3))), draw(pairs)
            padding = draw(st.tuples(*[st.integers(0, 2)] * 4))
            spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
            if height + padding[0] + padding[2] < spans[0] or width + padding[1] + padding[3] < spans[1]:
                continue
            groups = 2 if channels % 2 == 0 and draw(st.booleans()) else 1
            out = draw(st.sampled_from([2, 4] if groups == 2 else [1, 3]))
            attrs = {"stride": draw(pairs), "padding": padding, "dilation": dilation, "groups": groups}
            x = net.conv(x, out, kernel, bias=draw(st.booleans()), **attrs)
        if draw(st.booleans()):
            x = net.relu(x)
    return net.finish(net.relu(net.conv(net.relu(net.conv(x, 2, (1, 1))), 2, (1, 1))))


def workshop_of(graph, ball=None):
    domains = {"interval": INTERVAL, "linear": LINEAR}
    options = check_options(CROWN, {})
    return make_workshop(graph, CROWN, domains, dtype=DType.FLOAT64, spec=None, options=options, ball=ball)


def program_of(graph, name, *, ragged, windows, ball=None):
    workshop = workshop_of(graph, ball)
    order = [graph.input, *(node.output for node in graph.nodes)]
    known = tuple(n for n in relaxed_operands(graph) if n != graph.input and order.index(n) < order.index(name))
    with mock.patch.object(crown_bounds, "WINDOW_RULES", crown_bounds.WINDOW_RULES if windows else {}):
        program = workshop.write("rows", lambda b: rows_program(workshop, b, name, known, ragged=ragged))
    # Without windows, rows only start as single elements that are put into full maps; nothing is cut out of one.
    assert windows or {op.name for op in program.ops if "window" in op.name} <= {"scatter_windows"}
    return program


def inputs_of(graph, program, batch, numbers):
    """Regions, and for every value inside any bounds: both passes must make the same of them."""
    found = {}
    for value in program.inputs:
        shape = tuple(batch if dim == SymDim.of("B") else dim for dim in value.shape)
        side, _, _ = value.name.partition(":")
        if side == "lower":
            found[value.name] = numbers.uniform(-1, 0.3, size=shape)
        elif side == "upper":
            found[value.name] = found[value.name.replace("upper", "lower", 1)] + numbers.uniform(0, 1, size=shape)
    if "radius" in {value.name for value in program.inputs}:
        found["center"] = (found["lower"] + found["upper"]) / 2
        found["radius"] = numbers.uniform(0.1, 1, size=batch)
    return found


def close(one, other):
    for side in ("lower", "upper"):
        scale = np.abs(other[side]).max(initial=1.0)
        np.testing.assert_allclose(one[side], other[side], rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.slow
@settings(max_examples=100)
@given(graph=networks(), ragged=st.booleans(), ball=st.sampled_from([None, None, 1.0, 2.0]), data=st.data())
def test_windows_equal_full_maps(graph, ragged, ball, data):
    name = data.draw(st.sampled_from([node.output for node in graph.nodes if len(node.type.shape) == 3]))
    share = data.draw(st.sampled_from([0.2, 0.5, 1.0, 100.0]))
    with mock.patch.object(walk, "FULL_MAP_SHARE", share):
        windows = verify_program(program_of(graph, name, ragged=ragged, windows=True, ball=ball))
    full = program_of(graph, name, ragged=ragged, windows=False, ball=ball)
    numbers = np.random.default_rng(data.draw(st.integers(0, 99)))
    batch = data.draw(st.integers(1, 3))
    inputs = inputs_of(graph, full, batch, numbers)
    count = int(np.prod(graph.type_of(name).shape))
    inputs["neuron"] = np.arange(count) if ragged else numbers.permutation(count)[:40]
    if ragged:
        inputs["row_region"] = numbers.integers(0, batch, count)
    rows = next(op.inputs[0] for op in windows.ops if op.name.startswith("concretize"))
    event(f"windows on the input: {rows.rank > 4 + (not ragged)}")
    close(evaluate(windows, inputs), evaluate(full, inputs))


def branch_without_activation(net, x):
    """Windows of two sizes meet on a convolution's result, where what lies outside of the map must not count."""
    y = net.conv(x, 3, (3, 3), padding=(1, 1, 1, 1))
    return net.g.op("add", net.conv(y, 3, (3, 3), padding=(1, 1, 1, 1)), y)


def convolutions_without_activation(net, x):
    return net.conv(net.conv(x, 3, (3, 3), padding=(2, 1, 0, 1)), 2, (2, 3), padding=(1, 1, 1, 1))


def border_before_convolution(net, x):
    y = net.g.op("pad", net.conv(x, 2, (3, 3)), low=(0, 1, 2), high=(0, 2, 1), value=0.0)
    return net.conv(y, 2, (3, 3))


def border_of_ones(net, x):
    y = net.g.op("pad", net.conv(x, 2, (3, 3)), low=(0, 1, 2), high=(0, 2, 1), value=1.0)
    return net.conv(y, 2, (3, 3))


def dilated_and_grouped(net, x):
    y = net.relu(net.conv(x, 4, (3, 2), dilation=(1, 2), padding=(1, 1, 1, 1)))
    return net.conv(y, 2, (2, 2), groups=2, dilation=(2, 1), stride=(2, 1), padding=(1, 0, 0, 1))


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("ball", [None, 1.0, 2.0])
@pytest.mark.parametrize(
    "write",
    [
        branch_without_activation,
        convolutions_without_activation,
        border_before_convolution,
        border_of_ones,
        dilated_and_grouped,
    ],
)
def test_cases_of_their_own(write, ball, ragged):
    net = Net((2, 9, 9), 3)
    graph = net.finish(net.relu(write(net, net.g.input)))
    name = graph.nodes[-1].inputs[0]
    numbers = np.random.default_rng(4)
    full = program_of(graph, name, ragged=ragged, windows=False, ball=ball)
    inputs = inputs_of(graph, full, 2, numbers)
    count = int(np.prod(graph.type_of(name).shape))
    inputs |= {"neuron": np.arange(count), **({"row_region": numbers.integers(0, 2, count)} if ragged else {})}
    with mock.patch.object(walk, "FULL_MAP_SHARE", 100.0):
        windows = program_of(graph, name, ragged=ragged, windows=True, ball=ball)
    close(evaluate(windows, inputs), evaluate(full, inputs))


def residual():
    net = Net((3, 12, 12), 5)
    x = net.relu(net.conv(net.g.input, 4, (3, 3), stride=(2, 2), padding=(1, 1, 1, 1)))
    y = net.relu(net.conv(x, 6, (3, 3), padding=(1, 1, 1, 1)))
    y = net.relu(net.g.op("add", net.conv(y, 6, (3, 3), padding=(1, 1, 1, 1)), net.conv(x, 6, (1, 1))))
    z = net.g.op("add", net.conv(y, 6, (3, 3), padding=(1, 1, 1, 1)), y)
    return net.finish(net.relu(z))


def test_the_plan_shows_which_windows_were_chosen():
    graph = residual()
    first = next(n for n in graph.nodes if n.op == "add")
    program = program_of(graph, first.output, ragged=False, windows=True)
    origins = {op.origin for op in program.ops}
    producers = [graph.producer(name).name for name in first.inputs]
    assert {f"{name} (window 1x1 of 6x6)" for name in producers} <= origins
    assert any("(window 3x3 of 6x6)" in origin for origin in origins)
    assert "(window" in str(program)
    assert {op.name for op in program.ops} >= {"gather_windows", "scatter_windows"}  # 5x5 of 6x6 is more than half


def test_the_first_step_back_from_a_neuron_computes_nothing():
    net = Net((3, 12, 12), 1)
    graph = net.finish(net.relu(net.conv(net.relu(net.conv(net.g.input, 4, (3, 3))), 5, (3, 3))))
    name = [node.output for node in graph.nodes if node.op == "conv2d"][-1]
    program = program_of(graph, name, ragged=True, windows=True)
    names = [op.name for op in decompose(program, {"relu_backsubstitute"}).ops]
    assert names.count("conv2d_input_grad") == 1
    before = names[: names.index("relu_backsubstitute")]
    assert "matmul" not in before and "conv2d" not in before


@pytest.mark.parametrize("executor", ["reference", "torch"])
@pytest.mark.parametrize("limit", [None, 1_000_000])
def test_executors_and_chunks_give_the_same(executor, limit):
    if executor == "torch":
        pytest.importorskip("torch")
    graph = residual()
    x = np.random.default_rng(0).normal(size=(3, 3, 12, 12))
    region, spec = bf.Box(x - 0.05, x + 0.05), bf.LinearSpec(np.ones((2, 216)))
    with mock.patch.object(crown_bounds, "WINDOW_RULES", {}):
        expected = crown(graph, "reference", None)(region, spec)
    run = crown(graph, executor, limit)
    found = run(region, spec)
    assert limit is None or run.stats.chunks > 20
    for name, (lower, upper) in expected.intermediate.items():
        close(dict(zip(("lower", "upper"), found.intermediate[name], strict=True)), {"lower": lower, "upper": upper})
    close({"lower": found.lower, "upper": found.upper}, {"lower": expected.lower, "upper": expected.upper})


def crown(graph, executor, limit):
    return bf.compile(graph, method="crown", executor=executor, dtype="float64", memory_limit=limit, cache=False)


NETWORKS = [
    ("oval21/onnx/cifar_base_kw.onnx", 0.01),
    ("oval21/onnx/cifar_wide_kw.onnx", 0.01),
    ("cifar10_resnet/onnx/resnet_2b.onnx", 0.002),
    ("sri_resnet_a/onnx/resnet_3b2_bn_mixup_adv_4.0_bs128_lr-1.onnx", 0.0003),
    ("collins_rul_cnn/onnx/NN_rul_full_window_20.onnx", 0.01),
]


@pytest.mark.parametrize(("network", "eps"), NETWORKS, ids=[path.split("/")[-1] for path, _ in NETWORKS])
def test_networks_of_the_benchmarks(shared_dir, network, eps):
    pytest.importorskip("boundflow_onnx")
    graph = bf.load(shared_dir / "benchmarks" / network)
    x = np.random.default_rng(0).random((2, *graph.input_type.shape))
    region = bf.Box(x - eps, x + eps)
    found = crown(graph, "auto", None)(region)
    with mock.patch.object(crown_bounds, "WINDOW_RULES", {}):
        expected = crown(graph, "auto", None)(region)
    for name, (lower, upper) in expected.intermediate.items():
        close(dict(zip(("lower", "upper"), found.intermediate[name], strict=True)), {"lower": lower, "upper": upper})
    close({"lower": found.lower, "upper": found.upper}, {"lower": expected.lower, "upper": expected.upper})
