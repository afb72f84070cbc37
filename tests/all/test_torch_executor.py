"""The torch executor: every primitive against the reference, and how it treats inputs, devices and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.executors import torch as torch_executor
from boundflow_core.executors.torch_kernels import KERNELS
from boundflow_core.extension import Executor
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import live
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.program import Composite
from boundflow_core.ir.types import DType
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.scheduler import RunCounts, Schedule
from boundflow_core.testing.primitives import CASES, Case

EXECUTOR = Executor(
    "torch", "", 0, lambda: None, torch_executor.open_session, lambda: torch_executor.TRAITS, differentiable=True
)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")


def prepared(program, *, differentiable=False):
    """The program ready to run on the device of its first torch input."""
    plan = bind_plan(make_plan(program, EXECUTOR, differentiable=differentiable), {})
    schedules = {}

    def run(inputs):
        device = next((x.device for x in inputs.values() if isinstance(x, torch.Tensor)), None)
        if device not in schedules:
            schedules[device] = Schedule(plan, torch_executor.open_session(plan, device), "")
        return schedules[device].run(inputs, RunCounts())

    return run


def run(program, inputs, *, differentiable=False):
    return prepared(program, differentiable=differentiable)(inputs)


def test_every_primitive_has_a_kernel():
    assert set(KERNELS) == set(PRIMITIVES)


@pytest.mark.parametrize("name", PRIMITIVES)
@settings(max_examples=40)
@given(data=st.data())
def test_equals_the_reference(name, data):
    case = data.draw(CASES[name])
    for dtype, tolerance in ((DType.FLOAT64, 1e-12), (DType.FLOAT32, 1e-5)):
        program = case.program(dtype)
        expected, result = evaluate(program, case.inputs)["y"], run(program, case.inputs)["y"]
        assert result.numpy().dtype == expected.dtype
        scale = np.abs(expected[np.isfinite(expected)].astype(np.float64)).max(initial=1.0)
        np.testing.assert_allclose(result.numpy(), expected, rtol=tolerance, atol=tolerance * scale, strict=True)


UNARY = ("neg", "abs", "sign", "floor", "exp", "tanh", "sigmoid", "erf", "sin", "cos", "log", "sqrt")


@pytest.mark.parametrize("name", [*UNARY, "add", "mul", "maximum", "minimum"])
def test_undefined_numbers_stay_undefined(name):
    operands = (np.array([np.nan, 1.0]),) * (1 if name in UNARY else 2)
    case = Case(name, operands, {})
    assert run(case.program(), case.inputs)["y"].isnan().tolist() == [True, False]


@pytest.mark.parametrize("name", ["reduce_max", "reduce_min", "reduce_sum"])
def test_reductions_show_undefined_numbers(name):
    case = Case(name, (np.array([1.0, np.nan, 3.0]),), {"axes": (0,), "keepdims": False})
    assert run(case.program(), case.inputs)["y"].isnan()


def doubled() -> Composite:
    return Composite("doubled", "x + x", lambda b, xs, attrs: (b.add(xs[0], xs[0]),))


def test_composites_run_by_their_decomposition_and_are_counted():
    b = Builder()
    program = b.finish({"y": b.emit(doubled(), b.input("x", (2,)))[0]})
    plan = make_plan(program, EXECUTOR)
    assert run(program, {"x": np.ones(2)})["y"].tolist() == [2, 2]
    assert list(plan.lowering.fallbacks.values()) == [1] and "doubled" in next(iter(plan.lowering.fallbacks))


def weighted(weight):
    b = Builder()
    return b.finish({"y": b.input("x", (2,)) * b.constant(live(weight))})


def test_gradients_are_recorded_only_where_the_plan_is_differentiable():
    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0], dtype=torch.float64))
    x = torch.tensor([5.0, 7.0], dtype=torch.float64, requires_grad=True)
    assert not run(weighted(weight), {"x": x})["y"].requires_grad
    run(weighted(weight), {"x": x}, differentiable=True)["y"].sum().backward()
    assert weight.grad.tolist() == [5, 7] and x.grad.tolist() == [2, 3]
    with torch.no_grad():
        assert not run(weighted(weight), {"x": x}, differentiable=True)["y"].requires_grad


def test_live_weights_are_read_at_each_run():
    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    runner = prepared(weighted(weight))
    assert runner({"x": np.ones(2)})["y"].tolist() == [2, 3]
    with torch.no_grad():
        weight.mul_(10)
    assert runner({"x": np.ones(2)})["y"].tolist() == [20, 30]


@pytest.mark.parametrize(
    "x",
    [
        torch.tensor([1.0, 2.0]),
        np.array([1.0, 2.0], dtype=np.float32),
        np.array([2, 1])[::-1],
        np.array([1, 2], dtype=">f8"),
        np.broadcast_to(np.array([1.0, 2.0]), (2,)),
    ],
    ids=["torch", "numpy", "reversed", "big endian", "read-only"],
)
def test_inputs_of_many_kinds(x):
    b = Builder()
    program = b.finish({"y": b.input("x", (2,)) + 1.0})
    assert run(program, {"x": x})["y"].tolist() == [2, 3]


def test_float32_products_are_exact_whatever_torch_is_set_to():
    b = Builder(DType.FLOAT32)
    x = b.input("x", (64, 64))
    case = b.finish({"y": b.matmul(x, x)})
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch_executor.full_precision():
            seen = [torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision]
        array = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
        np.testing.assert_allclose(run(case, {"x": array})["y"], array @ array, rtol=1e-4, atol=1e-4)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == ["ieee", "ieee"]


@cuda
@pytest.mark.parametrize("name", PRIMITIVES)
@settings(max_examples=10)
@given(data=st.data())
def test_equals_the_reference_on_cuda(name, data):
    case = data.draw(CASES[name])
    for dtype, tolerance in ((DType.FLOAT64, 1e-12), (DType.FLOAT32, 1e-5)):
        program = case.program(dtype)
        expected = evaluate(program, case.inputs)["y"]
        result = run(program, {key: torch.from_numpy(value).cuda() for key, value in case.inputs.items()})["y"]
        assert result.device.type == "cuda"
        scale = np.abs(expected[np.isfinite(expected)].astype(np.float64)).max(initial=1.0)
        np.testing.assert_allclose(result.cpu().numpy(), expected, rtol=tolerance, atol=tolerance * scale)
