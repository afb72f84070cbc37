"""Gradient programs against torch.autograd through torch's kernels: primitives, composed programs, whole methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.builtin import boundflow_register_executors
from boundflow_core.derivative import gradient_program
from boundflow_core.executors.torch_kernels import DTYPES, KERNELS
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import bind_symbols, evaluate
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.ir.verify import verify_program
from boundflow_core.planner.rewrite import decompose
from boundflow_core.runner import Planning, ProgramRunner, RunStats
from boundflow_core.testing.primitives import CASES
from boundflow_core.testing.programs import inputs_for, programs
from boundflow_core.workshop import make_workshop, write_program
from boundflow_crown.domain import LINEAR
from boundflow_crown.methods import CROWN_IBP
from boundflow_interval import IBP, INTERVAL

DOMAINS = {"interval": INTERVAL, "linear": LINEAR}


def run(program, inputs):
    """``program`` by torch's kernels, one after another; autograd records it where the inputs want gradients."""
    sizes = bind_symbols(program, {name: x.shape for name, x in inputs.items()})
    bound = decompose(program).bind(sizes)
    values = {value: inputs[value.name] for value in bound.inputs}
    for value, constant in bound.constants.items():
        values[value] = torch.tensor(constant.numpy(), dtype=DTYPES[value.type.dtype])
    for op in bound.ops:
        values[op.outputs[0]] = KERNELS[op.name](op)(*(values[value] for value in op.inputs))
    return {name: values[value] for name, value in bound.outputs.items()}


def _tensors(arrays):
    return {name: torch.tensor(array) for name, array in arrays.items()}


def by_autograd(program, output, wrt, inputs, seed):
    tensors = {name: torch.tensor(x, requires_grad=name in wrt) for name, x in inputs.items()}
    y = run(program, tensors)[output]
    if not y.requires_grad:
        return [np.zeros_like(inputs[name]) for name in wrt]
    total = (y * torch.as_tensor(seed)).sum()
    found = torch.autograd.grad(total, [tensors[name] for name in wrt], allow_unused=True)
    return [np.zeros_like(inputs[name]) if g is None else g.numpy() for g, name in zip(found, wrt, strict=True)]


def check(program, output, wrt, inputs, *, tolerance=1e-12, reference=True):
    """The gradient program, by torch's kernels and by the reference, gives what autograd gives."""
    sizes = bind_symbols(program, {name: x.shape for name, x in inputs.items()})
    kind = program.bind(sizes).outputs[output].type
    seed = np.asarray(np.random.default_rng(0).normal(size=kind.shape), dtype=kind.dtype.numpy)
    gradient = verify_program(gradient_program(program, output, wrt, seed="seed"))
    inputs = {v.name: np.asarray(inputs[v.name], dtype=v.type.dtype.numpy) for v in program.inputs}
    seeded = {**inputs, "seed": seed}
    results = [{name: x.numpy() for name, x in run(gradient, _tensors(seeded)).items()}]
    if reference:
        results.append(evaluate(gradient, seeded))
        np.testing.assert_allclose(results[0][output], results[1][output], rtol=tolerance, atol=tolerance)
    for name, expected in zip(wrt, by_autograd(program, output, wrt, inputs, seed), strict=True):
        scale = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
        for found in results:
            np.testing.assert_allclose(
                found[f"grad:{name}"], expected, rtol=tolerance, atol=tolerance * scale, strict=True
            )


@pytest.mark.parametrize("name", PRIMITIVES)
@settings(max_examples=25)
@given(data=st.data())
def test_primitive(name, data):
    """Operands are multiples of 1/16 in a small range: many of them tie, and all kinks are met."""
    case = data.draw(CASES[name])
    wrt = [f"x{i}" for i, array in enumerate(case.arrays) if array.dtype.kind == "f"]
    if wrt and case.program().outputs["y"].type.dtype.is_float:
        check(case.program(), "y", wrt, case.inputs)
        check(case.program(DType.FLOAT32), "y", wrt, case.inputs, tolerance=1e-5)


@pytest.mark.parametrize(
    "write",
    [
        lambda b, x: b.maximum(x, b.constant(np.array([0.0, 1.0, 1.0, 2.0]))),
        lambda b, x: b.minimum(x, 1.0),
        lambda b, x: b.abs(x) + b.sign(x) + b.floor(x),
        lambda b, x: b.reduce_max(x, (0,)),
        lambda b, x: b.reduce_min(b.reshape(x, (2, 2)), (0, 1), keepdims=True),
        lambda b, x: b.max_pool2d(b.reshape(x, (1, 1, 2, 2)), kernel=(2, 2), stride=(1, 1), padding=(1, 1, 1, 1)),
    ],
)
@pytest.mark.parametrize("at", [(0.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0), (2.0, -1.0, 2.0, 2.0)])
def test_ties_are_broken_as_torch_does(write, at):
    b = Builder()
    check(b.finish({"y": write(b, b.input("x", (4,)))}), "y", ["x"], {"x": np.array(at)})


def test_a_convolution_that_reads_little_but_padding():
    b = Builder()
    y = b.conv2d(b.input("x", (1, 1, 1, 2)), b.input("w", (1, 1, 1, 1)), stride=(3, 1), padding=(2, 0, 0, 0))
    check(b.finish({"y": y}), "y", ["x", "w"], {"x": np.ones((1, 1, 1, 2)), "w": np.ones((1, 1, 1, 1))})


@pytest.mark.parametrize("executor", boundflow_register_executors(), ids=lambda executor: executor.name)
def test_gradient_programs_are_planned_and_run_as_any_other(executor):
    b = Builder()
    x, w = b.input("x", (SymDim.of("B"), 2, 4, 4)), b.input("w", (3, 2, 3, 3))
    index = b.constant(np.array([0, 3, 3, 1]))
    y = b.max_pool2d(b.conv2d(x, w, padding=(1, 1, 1, 1)), kernel=(2, 2), stride=(1, 1), padding=(0, 0, 1, 1))
    y = b.scatter_add_rows(y, index, b.gather_rows(b.tanh(y), index, axis=3), axis=3)
    program = gradient_program(b.finish({"y": y}), "y", ["x", "w"], seed="seed")
    runner = ProgramRunner(lambda: program, Planning(executor), RunStats())
    for batch in (1, 3):
        inputs = inputs_for(program, {"B": batch}, batch)
        results = runner(inputs)
        for name, expected in evaluate(program, inputs).items():
            np.testing.assert_allclose(np.asarray(results[name]), expected, rtol=1e-11, atol=1e-11)


@settings(max_examples=60)
@given(program=programs, number=st.integers(0, 2**32))
def test_composed_programs(program, number):
    output = next(name for name, value in program.outputs.items() if value.type.dtype.is_float)
    inputs = inputs_for(program, {"B": 2, "S": 3}, number)
    check(program, output, list(inputs), inputs, tolerance=1e-9)


def mlp():
    g, numbers = PrimalBuilder("mlp", "x", (3,)), np.random.default_rng(0)
    y = g.op("relu", g.op("linear", g.input, numbers.normal(size=(5, 3)), numbers.normal(size=5)))
    y = g.op("tanh", g.op("linear", y, numbers.normal(size=(4, 5)), numbers.normal(size=4)))
    return g.finish(g.op("linear", y, numbers.normal(size=(2, 4)), numbers.normal(size=2)))


def cnn():
    g, numbers = PrimalBuilder("cnn", "x", (2, 5, 4)), np.random.default_rng(1)
    geometry = {"dilation": (1, 1), "groups": 1}
    first = {"stride": (2, 1), "padding": (1, 0, 1, 1), **geometry}
    y = g.op("conv2d", g.input, numbers.normal(size=(3, 2, 3, 3)), numbers.normal(size=3), **first)
    x = g.op("relu", y)
    y = g.op("conv2d", x, numbers.normal(size=(3, 3, 3, 3)), stride=(1, 1), padding=(1, 1, 1, 1), **geometry)
    y = g.op("reshape", g.op("relu", g.add(x, y)), shape=(27,))
    return g.finish(g.op("linear", y, numbers.normal(size=(2, 27))))


def bound_program(method, graph, dtype):
    if method is IBP:
        return write_program(graph, IBP, DOMAINS, dtype=dtype, spec="per region", options={})
    reference = boundflow_register_executors()[0]
    options = {**method.options, "intersect": True}
    shop = make_workshop(
        graph, method, DOMAINS, dtype=dtype, spec="per region", options=options, planning=Planning(reference)
    )
    return method.recipe(shop).main.plan.program


@pytest.mark.parametrize("output", ["lower", "upper"])
@pytest.mark.parametrize("radius", [0.3, 0.0])  # of a point, everything ties
@pytest.mark.parametrize("network", [mlp, cnn])
@pytest.mark.parametrize("method", [IBP, CROWN_IBP], ids=lambda method: method.name)
def test_whole_methods(method, network, radius, output):
    graph, numbers = network(), np.random.default_rng(2)
    centre = numbers.normal(size=(3, *graph.input_type.shape))
    width = radius * numbers.random(size=centre.shape)
    rows = numbers.normal(size=(3, 4, 2))
    inputs = {"lower": centre - width, "upper": centre + width, "C": rows, "offset": numbers.normal(size=(3, 4))}
    program = bound_program(method, graph, DType.FLOAT64)
    assert {"B", "S"} == set(program.symbols())
    # Where bounds that are equal but for rounding are intersected, torch and NumPy may take different ones.
    check(program, output, list(inputs), inputs, tolerance=1e-9, reference=radius > 0)
