"""Gradient programs against central differences: every primitive, composites, composed programs, symbolic shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from boundflow_core.derivative import RULES, gradient_program
from boundflow_core.errors import IRError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import frozen, live
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.program import Composite
from boundflow_core.ir.types import DType
from boundflow_core.ir.verify import verify_program
from boundflow_core.testing.primitives import CASES, OF_INDICES
from boundflow_core.testing.programs import B, S, inputs_for, programs

# Their slope jumps: drawn operands are replaced by numbers that are all different and none whole.
KINKED = ("abs", "sign", "floor", "maximum", "minimum", "reduce_max", "reduce_min", "max_pool2d")


def apart(arrays, numbers):
    total = sum(array.size for array in arrays)
    values = (numbers.permutation(total) - total // 2) * 0.25 + 0.1
    parts = np.split(values, np.cumsum([array.size for array in arrays])[:-1])
    return tuple(part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True))


def weighted_sum(y, seed):
    """Places that are infinite whatever the inputs (padding) count for nothing."""
    return float((np.where(np.isfinite(y), y, 0.0) * seed).sum())


def slope(program, output, inputs, direction, seed, step):
    """Central difference of ``sum(output * seed)`` along ``direction``."""
    ends = []
    for sign in (1, -1):
        moved = {k: x + sign * step * direction[k] if k in direction else x for k, x in inputs.items()}
        ends.append(weighted_sum(evaluate(program, moved)[output], seed))
    return (ends[0] - ends[1]) / (2 * step)


def gradients(program, output, wrt, inputs, seed):
    results = evaluate(verify_program(gradient_program(program, output, wrt, seed="seed")), {**inputs, "seed": seed})
    return {name: results[f"grad:{name}"] for name in wrt}


def check(program, output, wrt, inputs, numbers, step=1e-6):
    """The gradient along a random direction is the difference quotient along it."""
    y = evaluate(program, inputs)[output]
    seed = numbers.normal(size=y.shape)
    direction = {name: numbers.normal(size=inputs[name].shape) for name in wrt}
    found = gradients(program, output, wrt, inputs, seed)
    for name in wrt:
        assert found[name].shape == inputs[name].shape
    predicted = sum(float((found[name] * direction[name]).sum()) for name in wrt)
    scale = sum(float(np.abs(found[name] * direction[name]).sum()) for name in wrt)
    measured = slope(program, output, inputs, direction, seed, step)
    # what rounding does to a difference of two sums, and the square of the step
    noise = 4e-16 * weighted_sum(np.abs(y), np.abs(seed)) / step
    assert abs(predicted - measured) <= 1e-6 * scale + 100 * noise + 1e-10


def test_every_primitive_has_a_rule():
    assert set(RULES) == set(PRIMITIVES)


@pytest.mark.parametrize("name", PRIMITIVES)
@settings(max_examples=40)
@given(data=st.data(), number=st.integers(0, 2**32))
def test_primitive(name, data, number):
    case, numbers = data.draw(CASES[name]), np.random.default_rng(number)
    if name in KINKED:
        case = replace(case, arrays=apart(case.arrays, numbers))
    if name == "sqrt":
        case = replace(case, arrays=(case.arrays[0] + 0.25,))
    wrt = [f"x{i}" for i, array in enumerate(case.arrays) if array.dtype.kind == "f"]
    program = case.program()
    if not program.outputs["y"].type.dtype.is_float or not wrt:
        with pytest.raises(IRError):
            gradient_program(program, "y", ["x0"])
        return
    if name == "cast" and case.attrs["dtype"] is not DType.FLOAT64:
        return  # test_casts
    check(program, "y", wrt, case.inputs, numbers)


@settings(max_examples=150)
@given(program=programs, number=st.integers(0, 2**32))
def test_composed_programs(program, number):
    output = next(name for name, value in program.outputs.items() if value.type.dtype.is_float)
    wrt = [value.name for value in program.inputs]
    inputs = inputs_for(program, {"B": 2, "S": 3}, number)
    # Near a jump or kink, difference quotients of different steps disagree.
    numbers = np.random.default_rng(number)
    seed = numbers.normal(size=program.bind({"B": 2, "S": 3}).outputs[output].shape)
    direction = {name: numbers.normal(size=inputs[name].shape) for name in wrt}
    coarse, fine = (slope(program, output, inputs, direction, seed, step) for step in (1e-5, 2.5e-6))
    total = weighted_sum(np.abs(evaluate(program, inputs)[output]), np.abs(seed))
    found = gradients(program, output, wrt, inputs, seed)
    scale = sum(float(np.abs(found[name] * direction[name]).sum()) for name in wrt)
    allowed = 1e-5 * (scale + abs(fine)) + 1e-8 * total
    assume(abs(coarse - fine) <= allowed)
    assert abs(sum(float((found[name] * direction[name]).sum()) for name in wrt) - fine) <= 2 * allowed


def test_gradients_of_gradients():
    b = Builder()
    x, w = b.input("x", (2, 1, 4, 4)), b.input("w", (2, 1, 3, 3))
    y = b.tanh(b.conv2d(x, w, padding=(1, 0, 1, 1), stride=(2, 1)))
    y = b.max_pool2d(y, kernel=(2, 2), stride=(1, 1))
    y = b.gather_rows(y, b.constant(np.array([1, 1, 0])), axis=3)
    first = gradient_program(b.finish({"y": y * y}), "y", ["w"])
    first = replace(first, outputs={"slope": first.outputs["grad:w"]})
    check(first, "slope", ["x", "w"], inputs_for(first, {}, 1), np.random.default_rng(0))


def test_symbolic_shapes():
    b = Builder()
    x, c = b.input("x", (B, 4), group="region"), b.input("C", (B, S, 4), group="spec")
    twice = b.concat([x, b.tanh(x)], 0)
    part = b.slice(twice, (B, 0), (2 * B, 4), (1, 1))
    both = b.reshape(b.broadcast(b.reshape(part, (B, 1, 4)), (B, S, 4)), (B * S, 4))
    rows = b.reshape(both, (B, S, 4)) * c
    lead = b.slice(b.concat([x, x], 0), (0, 1), (B, 4), (1, 2))
    y = b.reduce_sum(b.matmul(c, b.reshape(x, (B, 4, 1))), (2,)) + b.reduce_max(rows, (2,))
    program = b.finish({"y": y * b.reduce_sum(lead, (1,), keepdims=True)})
    gradient = verify_program(gradient_program(program, "y", ["x", "C"], seed="seed", seed_group="spec"))
    assert gradient.outputs["grad:x"].shape == (B, 4) and gradient.outputs["grad:C"].shape == (B, S, 4)
    assert gradient.groups == {"x": "region", "C": "spec", "seed": "spec"}
    for sizes in ({"B": 1, "S": 1}, {"B": 3, "S": 2}):
        check(program, "y", ["x", "C"], inputs_for(program, sizes, 2), np.random.default_rng(3))


def test_outputs_and_the_seed():
    b = Builder()
    x, unused = b.input("x", (3,)), b.input("unused", (2,))
    program = b.finish({"y": x * x, "z": b.exp(x), "u": unused})
    gradient = verify_program(gradient_program(program, "y", ["x", "unused"]))
    inputs = {"x": np.array([1.0, 2.0, 3.0]), "unused": np.ones(2)}
    results = evaluate(gradient, inputs)
    for name, array in evaluate(program, inputs).items():
        np.testing.assert_array_equal(results[name], array)
    assert results["grad:x"].tolist() == [2, 4, 6] and results["grad:unused"].tolist() == [0, 0]
    seeded = evaluate(gradient_program(program, "y", ["x"], seed="v"), {**inputs, "v": np.array([1.0, 0.0, -1.0])})
    assert seeded["grad:x"].tolist() == [2, 0, -6] and "grad:unused" not in seeded
    same = b.finish({"x": x})
    assert evaluate(gradient_program(same, "x", ["x"]), inputs)["grad:x"].tolist() == [1, 1, 1]


def test_what_cannot_be_differentiated_is_refused():
    b = Builder()
    x, index = b.input("x", (3,)), b.input("index", (2,), DType.INT64)
    program = b.finish({"y": b.gather_rows(x, index), "positive": x > 0.0, "grad:x": x})
    for output, wrt, seed in (
        ("z", ["x"], None),
        ("positive", ["x"], None),
        ("y", ["index"], None),
        ("y", ["w"], None),
        ("y", ["x"], None),
    ):
        with pytest.raises(IRError):
            gradient_program(program, output, wrt, seed=seed)
    with pytest.raises(IRError, match="already"):
        gradient_program(b.finish({"y": x}), "y", ["x"], seed="index")


def test_casts():
    b = Builder(DType.FLOAT64)
    x = b.input("x", (2,), DType.FLOAT32)
    whole = b.cast(b.cast(x, DType.INT64), DType.FLOAT64)
    y = b.cast(b.tanh(x), DType.FLOAT64) * b.cast(x, DType.FLOAT64) + whole
    gradient = verify_program(gradient_program(b.finish({"y": y}), "y", ["x"]))
    assert gradient.outputs["grad:x"].type.dtype is DType.FLOAT32
    at = np.array([0.5, -2.25])
    expected = np.tanh(at) + at * (1 - np.tanh(at) ** 2)
    np.testing.assert_allclose(evaluate(gradient, {"x": at})["grad:x"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in PRIMITIVES if n not in ("cast", "compare", "reshape", *OF_INDICES)])
@settings(max_examples=10)
@given(data=st.data())
def test_float32_programs_stay_float32(name, data):
    case = data.draw(CASES[name])
    wrt = [f"x{i}" for i, array in enumerate(case.arrays) if array.dtype.kind == "f"]
    program = gradient_program(case.program(DType.FLOAT32), "y", wrt)
    values = [value for op in verify_program(program).ops for value in op.outputs]
    assert DType.FLOAT64 not in {value.type.dtype for value in values}


TIES = [
    (lambda b, x: b.abs(x), [0.0, 2.0], [0.0, 1.0]),
    (lambda b, x: b.maximum(x, 0.0), [0.0, 2.0, -1.0], [0.5, 1.0, 0.0]),
    (lambda b, x: b.minimum(x, 0.0), [0.0, 2.0, -1.0], [0.5, 0.0, 1.0]),
    (lambda b, x: b.maximum(x, 0.0) + b.minimum(x, 0.0), [0.0, 2.0, -1.0], [1.0, 1.0, 1.0]),
    (lambda b, x: b.maximum(x, x), [1.0], [1.0]),
    (lambda b, x: b.sign(x) + b.floor(x), [0.0, 1.0], [0.0, 0.0]),
    (lambda b, x: b.reduce_max(x, (0,)), [3.0, 1.0, 3.0], [0.5, 0.0, 0.5]),
    (lambda b, x: b.reduce_min(x, (0,)), [3.0, 1.0, 1.0], [0.0, 0.5, 0.5]),
    (
        lambda b, x: b.max_pool2d(b.reshape(x, (1, 1, 1, 4)), kernel=(1, 3), stride=(1, 1)),
        [1.0, 3.0, 3.0, 3.0],
        [0.0, 2.0, 0.0, 0.0],
    ),
    (
        lambda b, x: b.max_pool2d(b.reshape(x, (1, 1, 1, 2)), kernel=(1, 2), stride=(1, 1), padding=(0, 1, 0, 0)),
        [0.0, -1.0],
        [2.0, 0.0],
    ),
]


@pytest.mark.parametrize("function, at, expected", TIES)
def test_kinks(function, at, expected):
    b = Builder()
    program = b.finish({"y": function(b, b.input("x", (len(at),)))})
    assert evaluate(gradient_program(program, "y", ["x"]), {"x": np.array(at)})["grad:x"].tolist() == expected


def network(b, x, weights):
    for w in weights:
        x = b.maximum(b.matmul(x, w), 0.0)
    return b.finish({"y": x})


def contractions(program):
    return [op.name for op in program.ops if op.spec.kind == "contraction"]


def test_nothing_is_written_that_the_gradient_does_not_need():
    b = Builder()
    program = network(b, b.input("x", (B, 4)), [b.constant(frozen(np.eye(4) * i)) for i in (1, 2, 3)])
    gradient = verify_program(gradient_program(program, "y", ["x"]))
    # No gradients of the weights, no product computed twice.
    assert len(contractions(gradient)) == 2 * len(contractions(program))
    b = Builder()
    program = network(b, b.input("x", (B, 4)), [b.input(f"w{i}", (4, 4)) for i in range(3)])
    gradient = verify_program(gradient_program(program, "y", ["x", "w0", "w1", "w2"]))
    assert len(contractions(gradient)) == 3 * len(contractions(program))
    # The gradient of a matrix that a batch shares is one product with the whole batch, not a sum of many.
    b = Builder()
    x, w = b.input("x", (B, S, 4)), b.input("w", (1, 5, 4))
    gradient = gradient_program(b.finish({"y": b.matmul(x, w, transpose_b=True)}), "y", ["w"], seed="seed")
    (product,) = (op for op in gradient.ops if op.inputs[0].name != "x" and op.name == "matmul")
    assert product.outputs[0].shape == (5, 4)


def test_weights_count_as_numbers():
    b = Builder()
    weight = np.array([2.0, 3.0])
    program = b.finish({"y": b.input("x", (2,)) * b.constant(live(weight))})
    assert evaluate(gradient_program(program, "y", ["x"]), {"x": np.ones(2)})["grad:x"].tolist() == [2, 3]


def composite(derivative=None):
    """(x + z, x * z), and within it a composite of its own."""
    product = Composite("product", "x * z", lambda b, xs, attrs: (xs[0] * xs[1],))
    return Composite(
        "sum_and_product",
        "x + z and x * z",
        lambda b, xs, attrs: (xs[0] + xs[1], b.emit(product, *xs)[0]),
        derivative,
    )


def with_composite(spec):
    b = Builder()
    x, z = b.input("x", (3,)), b.input("z", (3,))
    total, product = b.emit(spec, x, z)
    other = b.emit(composite(), z, z)[0]
    return b.finish({"y": b.exp(total) * product, "product only": product, "other": other})


def test_composites_without_a_derivative_are_written_out_where_needed():
    program = with_composite(composite())
    gradient = verify_program(gradient_program(program, "y", ["x"]))
    assert [op.name for op in gradient.ops if isinstance(op.spec, Composite)] == ["sum_and_product"]  # of z alone
    numbers = np.random.default_rng(0)
    for output in program.outputs:
        check(program, output, ["x", "z"], inputs_for(program, {}, 5), numbers)


def test_composites_may_bring_their_derivative():
    asked = []

    def derivative(b, op, inputs, outputs, grads):
        asked.append([grad is not None for grad in grads])
        (x, z), (total, product) = inputs, grads
        parts = []
        for other in (z, x):
            terms = [term for term in (total, None if product is None else product * other) if term is not None]
            parts.append(sum(terms[1:], start=terms[0]))
        return parts

    program = with_composite(composite(derivative))
    gradient = gradient_program(program, "y", ["x"])
    assert [op.name for op in gradient.ops if isinstance(op.spec, Composite)] == ["sum_and_product"] * 2
    numbers = np.random.default_rng(0)
    for output in ("y", "product only"):
        check(program, output, ["x", "z"], inputs_for(program, {}, 5), numbers)
    assert [True, True] in asked and [False, True] in asked


def test_a_derivative_of_a_wrong_type_is_refused():
    program = with_composite(composite(lambda b, op, inputs, outputs, grads: [b.reduce_sum(grads[1], (0,)), None]))
    with pytest.raises(IRError, match="sum_and_product"):
        gradient_program(program, "y", ["x"])
