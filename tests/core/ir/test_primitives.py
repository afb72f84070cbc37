"""Every primitive: the type rule against the NumPy meaning, the meaning against an independent definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.errors import IRError
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.types import Attrs, DType, SymDim, TensorType
from boundflow_core.ir.verify import verify_program
from boundflow_core.testing.primitives import CASES, OF_INDICES, Case, conv2d, floats


def each(function):
    return lambda x: np.array([function(item) for item in x.ravel().tolist()]).reshape(x.shape)


def _matmul(x, y, transpose_a, transpose_b):
    first = "km" if transpose_a else "mk"
    second = "nk" if transpose_b else "kn"
    return np.einsum(f"...{first},...{second}->...mn", x, y)


def _conv2d_loops(x, w, stride, padding, dilation, groups):
    """The definition, element by element: what lies outside the input counts as zero."""
    top, left, bottom, right = padding
    (n, _, height, width), (out, each_in, kh, kw) = x.shape, w.shape
    rows = (height + top + bottom - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    columns = (width + left + right - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((n, out, rows, columns))
    for b, o, i, j, k, p, q in np.ndindex(n, out, rows, columns, each_in, kh, kw):
        r, s = i * stride[0] + p * dilation[0] - top, j * stride[1] + q * dilation[1] - left
        if 0 <= r < height and 0 <= s < width:
            y[b, o, i, j] += x[b, o // (out // groups) * each_in + k, r, s] * w[o, k, p, q]
    return y


def _conv2d_matrix(g, w, input_size, **attrs):
    """The adjoint from its definition: <conv(e), g> for each unit vector e."""
    channels = w.shape[1] * attrs["groups"]
    out = np.zeros((g.shape[0], channels, *input_size))
    for index in np.ndindex(channels, *input_size):
        unit = np.zeros((1, channels, *input_size))
        unit[(0, *index)] = 1
        out[(slice(None), *index)] = (_conv2d_loops(unit, w, **attrs) * g).sum(axis=(1, 2, 3))
    return out


def _conv2d_weight_loops(x, g, kernel_size, groups, **attrs):
    """The adjoint from its definition: <conv by e, g> for each unit kernel e."""
    out = np.zeros((g.shape[1], x.shape[1] // groups, *kernel_size))
    for index in np.ndindex(*out.shape):
        unit = np.zeros(out.shape)
        unit[index] = 1
        out[index] = (_conv2d_loops(x, unit, groups=groups, **attrs) * g).sum()
    return out


def _max_pool_loops(x, kernel, stride, padding, dilation):
    top, left, bottom, right = padding
    n, c, height, width = x.shape
    rows = (height + top + bottom - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    columns = (width + left + right - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    y = np.full((n, c, rows, columns), -np.inf)
    for b, k, i, j, p, q in np.ndindex(n, c, rows, columns, *kernel):
        r, s = i * stride[0] + p * dilation[0] - top, j * stride[1] + q * dilation[1] - left
        if 0 <= r < height and 0 <= s < width:
            y[b, k, i, j] = max(y[b, k, i, j], x[b, k, r, s])
    return y


def _reduced(combine):
    def definition(x, axes, keepdims):
        for axis in sorted(axes, reverse=True):
            parts = [x[(slice(None),) * axis + (i,)] for i in range(x.shape[axis])]
            total = parts[0]
            for part in parts[1:]:
                total = combine(total, part)
            x = np.expand_dims(total, axis) if keepdims else total
        return x

    return definition


def _pad(x, low, high, value):
    out = np.full([dim + before + after for dim, before, after in zip(x.shape, low, high, strict=True)], value)
    out[tuple(slice(before, before + dim) for dim, before in zip(x.shape, low, strict=True))] = x
    return out


def _concat(*xs, axis):
    shape = list(xs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    return np.array([row for x in xs for row in _moved(x, axis)]).reshape([shape[axis], *np.delete(shape, axis)])


def _moved(x, axis):
    return np.moveaxis(x, axis, 0)


def _scatter_rows(x, index, rows, axis):
    out = [_moved(rows, axis)[list(index).index(i)] if i in index else row for i, row in enumerate(_moved(x, axis))]
    return np.moveaxis(np.array(out), 0, axis)


def _scatter_add_rows(x, index, rows, axis):
    out = np.moveaxis(x.copy(), axis, 0)
    for place, row in zip(index, _moved(rows, axis), strict=True):
        out[place] = out[place] + row
    return np.moveaxis(out, 0, axis)


def _first_reaching(ascending, wanted):
    reached = [[place for place, number in enumerate(ascending) if number >= least] for least in wanted]
    return np.array([places[0] if places else len(ascending) - 1 for places in reached])


RELATIONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}

DEFINITIONS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "maximum": lambda x, y: (x + y + abs(x - y)) / 2,
    "minimum": lambda x, y: (x + y - abs(x - y)) / 2,
    "neg": lambda x: 0 - x,
    "abs": each(math.fabs),
    "sign": lambda x: 1.0 * (x > 0) - 1.0 * (x < 0),
    "floor": each(math.floor),
    "exp": each(math.exp),
    "log": each(math.log),
    "log1p": each(math.log1p),
    "sqrt": each(math.sqrt),
    "tanh": each(math.tanh),
    "sin": each(math.sin),
    "cos": each(math.cos),
    "sigmoid": each(lambda x: 0.5 * (1 + math.tanh(0.5 * x))),
    "erf": each(math.erf),
    "pow": lambda x, exponent: each(lambda item: math.pow(item, exponent))(x),
    "compare": lambda x, y, relation: eval(f"x {RELATIONS[relation]} y"),
    "where": lambda c, x, y: c * x + (1 - c) * y,
    "cast": lambda x, dtype: np.array(x, dtype=dtype.value),
    "matmul": _matmul,
    "conv2d": _conv2d_loops,
    "conv2d_input_grad": _conv2d_matrix,
    "conv2d_weight_grad": _conv2d_weight_loops,
    "max_pool2d": _max_pool_loops,
    "reduce_sum": _reduced(np.add),
    "reduce_max": _reduced(np.maximum),
    "reduce_min": _reduced(np.minimum),
    "reshape": lambda x, shape: np.array(x.ravel().tolist()).reshape(shape),
    "permute": lambda x, axes: np.einsum(x, list(range(x.ndim)), list(axes)),
    "broadcast": lambda x, shape: x + np.zeros(shape),
    "slice": lambda x, starts, stops, steps: x[np.ix_(*map(range, starts, stops, steps))] if x.ndim else x,
    "concat": lambda *xs, axis: np.moveaxis(_concat(*xs, axis=axis), 0, axis),
    "pad": _pad,
    "gather_rows": lambda x, index, axis: np.moveaxis(_moved(x, axis)[index], 0, axis),
    "scatter_rows": _scatter_rows,
    "scatter_add_rows": _scatter_add_rows,
    "row_numbers": lambda x, axis: np.array(list(range(x.shape[axis]))),
    "running_count": lambda mask: np.array([sum(mask[: place + 1]) for place in range(len(mask))]),
    "first_reaching": _first_reaching,
}


def test_every_primitive_is_tested():
    assert set(CASES) == set(DEFINITIONS) == set(PRIMITIVES)


@pytest.mark.parametrize("name", PRIMITIVES)
@settings(max_examples=40)
@given(data=st.data())
def test_type_and_meaning(name, data):
    case = data.draw(CASES[name])
    program = verify_program(case.program())
    result = evaluate(program, case.inputs)["y"]
    kind = program.outputs["y"].type
    assert result.shape == kind.shape and result.dtype == kind.dtype.numpy
    expected = np.asarray(DEFINITIONS[name](*case.arrays, **case.attrs))
    assert result.shape == expected.shape or expected.size == 0
    np.testing.assert_allclose(result, expected.reshape(result.shape), rtol=1e-14, atol=1e-13)


@pytest.mark.parametrize("name", [n for n in PRIMITIVES if n not in ("cast", "compare", "reshape", *OF_INDICES)])
@settings(max_examples=15)
@given(data=st.data())
def test_float32_stays_float32(name, data):
    case = data.draw(CASES[name])
    result = evaluate(case.program(DType.FLOAT32), case.inputs)["y"]
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, evaluate(case.program(), case.inputs)["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in PRIMITIVES if n not in ("reshape", "broadcast", "slice", "pad")])
@settings(max_examples=25)
@given(data=st.data())
def test_a_symbolic_batch_gives_the_same_after_binding(name, data):
    case = data.draw(CASES[name])
    first = case.arrays[0]
    axis_ok = case.attrs.get("axis", 1) != 0
    if name in ("conv2d", "conv2d_input_grad", "max_pool2d"):
        batch: tuple[int, ...] = (0,)
    elif name == "conv2d_weight_grad":
        batch = (0, 1)
    elif (
        len({a.shape for a in case.arrays if a.dtype.kind != "i"}) == 1 and first.ndim and axis_ok and name != "matmul"
    ):
        batch = tuple(i for i, a in enumerate(case.arrays) if a.shape == first.shape)
    elif len(case.arrays) == 1 and first.ndim:
        batch = (0,)
    else:
        return
    program = verify_program(case.program(batch=batch))
    result = evaluate(program, case.inputs)["y"]
    np.testing.assert_array_equal(result, evaluate(case.program(), case.inputs)["y"])
    size = first.shape[0]
    assert program.bind({"B": size}).outputs["y"].type == case.program().outputs["y"].type


@settings(max_examples=60)
@given(data=st.data())
def test_input_gradient_is_the_adjoint_of_the_convolution(data):
    case = data.draw(conv2d())
    x, w = case.arrays
    y = evaluate(case.program(), case.inputs)["y"]
    g = data.draw(floats(y.shape))
    adjoint = Case("conv2d_input_grad", (g, w), {**case.attrs, "input_size": x.shape[2:]})
    back = evaluate(adjoint.program(), adjoint.inputs)["y"]
    assert (y * g).sum() == (x * back).sum()  # multiples of 2**-12: exact


B = SymDim.of("B")
F, I, L = DType.FLOAT64, DType.INT64, DType.BOOL  # noqa: E741
WINDOW = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
CONV = {**WINDOW, "groups": 1}
PLAIN = {"transpose_a": False, "transpose_b": False}
IMAGE, WEIGHT = (F, (B, 2, 4, 4)), (F, (3, 2, 3, 3))

ILLEGAL = [
    *[(name, [(F, (2,))] * 3, {}) for name in ("add", "maximum", "exp", "where")],
    ("add", [(F, (2,)), (F, (3,))], {}),
    ("add", [(F, (B,)), (F, (SymDim.of("S"),))], {}),
    ("add", [(F, (B,)), (F, (2,))], {}),
    ("add", [(F, (2,)), (DType.FLOAT32, (2,))], {}),
    *[(name, [(L, (2,)), (L, (2,))], {}) for name in ("add", "sub", "mul", "div")],
    ("div", [(I, (2,)), (I, (2,))], {}),
    ("exp", [(I, (2,))], {}),
    ("compare", [(F, (2,)), (F, (2,))], {"relation": "<"}),
    ("where", [(F, (2,)), (F, (2,)), (F, (2,))], {}),
    ("where", [(L, (2,)), (F, (2,)), (I, (2,))], {}),
    ("cast", [(F, (2,))], {"dtype": "float16"}),
    ("matmul", [(F, (2,)), (F, (2, 2))], PLAIN),
    ("matmul", [(F, (2, 3)), (F, (2, 3))], PLAIN),
    ("matmul", [(F, (B, 2, 3)), (F, (4, 3, 2))], PLAIN),
    ("matmul", [(I, (2, 2)), (I, (2, 2))], PLAIN),
    ("conv2d", [IMAGE, (F, (3, 1, 3, 3))], CONV),
    ("conv2d", [IMAGE, (F, (3, 1, 3, 3))], {**CONV, "groups": 2}),
    ("conv2d", [IMAGE, WEIGHT], {**CONV, "groups": 0}),
    ("conv2d", [IMAGE, WEIGHT], {**CONV, "stride": (0, 1)}),
    ("conv2d", [IMAGE, WEIGHT], {**CONV, "dilation": (0, 1)}),
    ("conv2d", [IMAGE, WEIGHT], {**CONV, "padding": (-1, 0, 0, 0)}),
    ("conv2d", [IMAGE, WEIGHT], {**CONV, "dilation": (2, 1)}),
    ("conv2d", [(F, (2, 4, 4)), WEIGHT], CONV),
    ("conv2d_input_grad", [(F, (B, 3, 2, 2)), WEIGHT], {**CONV, "input_size": (5, 4)}),
    ("conv2d_weight_grad", [IMAGE, (F, (B, 3, 2, 2))], {**CONV, "kernel_size": (3, 2)}),
    ("conv2d_weight_grad", [IMAGE, (F, (3, 3, 2, 2))], {**CONV, "kernel_size": (3, 3)}),
    ("conv2d_weight_grad", [IMAGE, (F, (B, 3, 2, 2))], {**CONV, "kernel_size": (3, 3), "groups": 0}),
    ("conv2d_weight_grad", [IMAGE, (F, (B, 3, 2, 2))], {**CONV, "kernel_size": (3, 3), "groups": 2}),
    ("max_pool2d", [IMAGE], {**WINDOW, "kernel": (5, 1)}),
    ("max_pool2d", [IMAGE], {**WINDOW, "kernel": (0, 1)}),
    ("reduce_sum", [(F, (2,))], {"axes": (1,), "keepdims": False}),
    ("reduce_sum", [(F, (2,))], {"axes": (-1,), "keepdims": False}),
    ("reduce_sum", [(F, (2,))], {"axes": (0, 0), "keepdims": False}),
    ("reduce_sum", [(L, (2,))], {"axes": (0,), "keepdims": False}),
    ("reduce_max", [(F, (2, 0))], {"axes": (1,), "keepdims": False}),
    ("reshape", [(F, (B, 2))], {"shape": (B, 3)}),
    ("reshape", [(F, (6,))], {"shape": (-2, -3)}),
    ("permute", [(F, (2, 3))], {"axes": (0, 0)}),
    ("broadcast", [(F, (2,))], {"shape": (3,)}),
    ("broadcast", [(F, (1, 2))], {"shape": (2,)}),
    ("broadcast", [(F, (1,))], {"shape": (-1,)}),
    ("slice", [(F, (4,))], {"starts": (0,), "stops": (5,), "steps": (1,)}),
    ("slice", [(F, (4,))], {"starts": (3,), "stops": (2,), "steps": (1,)}),
    ("slice", [(F, (4,))], {"starts": (0,), "stops": (4,), "steps": (-1,)}),
    ("slice", [(F, (4, 4))], {"starts": (0,), "stops": (4,), "steps": (1,)}),
    ("slice", [(F, (B,))], {"starts": (0,), "stops": (2,), "steps": (1,)}),
    ("concat", [(F, (2, 3)), (F, (3, 2))], {"axis": 0}),
    ("concat", [(F, (2,)), (F, (2, 1))], {"axis": 0}),
    ("concat", [(F, (B,)), (F, (2,))], {"axis": 0}),
    ("concat", [], {"axis": 0}),
    ("pad", [(F, (2,))], {"low": (-1,), "high": (0,), "value": 0.0}),
    ("pad", [(F, (B,))], {"low": (1,), "high": (0,), "value": 0.0}),
    ("pad", [(F, (2, 2))], {"low": (1,), "high": (1,), "value": 0.0}),
    ("gather_rows", [(F, (2,)), (F, (2,))], {"axis": 0}),
    ("gather_rows", [(F, (2,)), (I, (2, 2))], {"axis": 0}),
    ("gather_rows", [(F, (2,)), (I, (2,))], {"axis": 1}),
    ("row_numbers", [(F, (2,))], {"axis": 1}),
    ("row_numbers", [], {"axis": 0}),
    ("running_count", [(F, (2,))], {}),
    ("running_count", [(DType.BOOL, (2, 2))], {}),
    ("first_reaching", [(I, (0,)), (I, (2,))], {}),
    ("first_reaching", [(I, (2,)), (F, (2,))], {}),
    ("first_reaching", [(I, (2, 2)), (I, (2,))], {}),
    ("scatter_rows", [(F, (2,)), (I, (2,)), (F, (3,))], {"axis": 0}),
    ("scatter_rows", [(F, (2,)), (I, (2,)), (I, (2,))], {"axis": 0}),
    ("scatter_add_rows", [(F, (2,)), (I, (2,)), (F, (3,))], {"axis": 0}),
    ("scatter_add_rows", [(L, (2,)), (I, (2,)), (L, (2,))], {"axis": 0}),
]


@pytest.mark.parametrize("name, types, attrs", ILLEGAL)
def test_illegal_operands_are_refused(name, types, attrs):
    with pytest.raises(IRError):
        PRIMITIVES[name].infer([TensorType(*kind) for kind in types], Attrs(attrs))


def test_symbolic_dimensions_are_flattened_stacked_and_split():
    assert PRIMITIVES["reshape"].infer([TensorType(F, (B, 2, 3))], Attrs(shape=(2 * B, 3))).shape == (2 * B, 3)
    assert PRIMITIVES["concat"].infer([TensorType(F, (B, 3)), TensorType(F, (B, 3))], Attrs(axis=0)).shape == (2 * B, 3)
    part = Attrs(starts=(B, 0), stops=(2 * B, 3), steps=(1, 1))
    assert PRIMITIVES["slice"].infer([TensorType(F, (2 * B, 3))], part).shape == (B, 3)
    assert PRIMITIVES["reduce_max"].infer([TensorType(F, (B, 3))], Attrs(axes=(1,), keepdims=True)).shape == (B, 1)


def test_undefined_numbers_stay_undefined():
    nan = np.array([np.nan])
    for name in ("add", "maximum", "minimum", "mul"):
        case = Case(name, (nan, np.ones(1)), {})
        assert np.isnan(evaluate(case.program(), case.inputs)["y"]).all(), name
    for name in ("sign", "abs", "floor", "sigmoid", "erf", "tanh"):
        case = Case(name, (nan,), {})
        assert np.isnan(evaluate(case.program(), case.inputs)["y"]).all(), name


def test_sigmoid_does_not_overflow():
    case = Case("sigmoid", (np.array([-1e4, 1e4]),), {})
    with np.errstate(all="raise", under="ignore"):
        assert evaluate(case.program(), case.inputs)["y"].tolist() == [0, 1]
