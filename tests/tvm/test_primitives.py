"""Every primitive compiled, against the reference: shapes with tails, NaN, infinities, all element types."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import bind_symbols, evaluate
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.types import DType
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.plugins import registry
from boundflow_core.scheduler import RunCounts, Schedule
from boundflow_core.testing.primitives import CASES, Case


def run(program, inputs):
    executor = registry().executor("tvm")
    plan = make_plan(program, executor)
    sizes = bind_symbols(program, {name: np.shape(array) for name, array in inputs.items()})
    plan = bind_plan(plan, sizes)
    return Schedule(plan, executor.open(plan, None), "").run(inputs, RunCounts())


def check(case: Case, dtype: DType, batch: tuple[int, ...] = ()) -> None:
    program = case.program(dtype, batch)
    expected, result = evaluate(program, case.inputs)["y"], run(program, case.inputs)["y"]
    assert result.dtype == expected.dtype
    tolerance = 1e-12 if dtype is DType.FLOAT64 else 1e-5
    finite = expected[np.isfinite(expected)].astype(np.float64)
    scale = np.abs(finite).max(initial=1.0)
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance * scale, strict=True)


@pytest.mark.parametrize("dtype", [DType.FLOAT64, DType.FLOAT32])
@pytest.mark.parametrize("name", PRIMITIVES)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_equals_the_reference(name, dtype, data):
    check(data.draw(CASES[name]), dtype)


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -2.5, 1e30, 1e-30, 0.5, -1e-8])
UNARY = [name for name, p in PRIMITIVES.items() if p.kind == "elementwise" and name not in (
    "add", "sub", "mul", "div", "maximum", "minimum", "pow", "compare", "where", "cast")]  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [DType.FLOAT64, DType.FLOAT32])
@pytest.mark.parametrize("name", UNARY)
def test_special_numbers_of_unary_functions(name, dtype):
    check(Case(name, (SPECIAL,), {}), dtype)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [DType.FLOAT64, DType.FLOAT32])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "minimum"])
def test_special_numbers_of_binary_functions(name, dtype):
    check(Case(name, (SPECIAL, SPECIAL[:, None]), {}), dtype)


@pytest.mark.parametrize("relation", ["lt", "le", "gt", "ge", "eq", "ne"])
def test_special_numbers_compared(relation):
    check(Case("compare", (SPECIAL, SPECIAL[:, None]), {"relation": relation}), DType.FLOAT32)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("number", [0.0, -0.0, 1.0, np.inf, -np.inf, -1.0])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "minimum", "compare"])
def test_special_numbers_with_constants_in_the_code(name, number):
    for swapped in (False, True):
        b = Builder(DType.FLOAT32)
        x, n = b.input("x", (len(SPECIAL),)), b.constant(number)
        attrs = {"relation": "le"} if name == "compare" else {}
        y = b.emit(PRIMITIVES[name], *((n, x) if swapped else (x, n)), **attrs)[0]
        again = b.where(b.compare(x, x, "eq"), x - x, 0.0) if name == "sub" else x
        program = b.finish({"y": y, "z": again * 0.0})
        inputs = {"x": SPECIAL.astype(np.float32)}
        expected, result = evaluate(program, inputs), run(program, inputs)
        for key in expected:
            np.testing.assert_array_equal(result[key], expected[key], strict=True)


@pytest.mark.parametrize("count", [1, 2, 7, 15, 16, 17, 31, 33, 97, 128])
@pytest.mark.parametrize("name", ["reduce_sum", "reduce_max", "reduce_min"])
def test_reductions_of_all_lengths(name, count):
    rng = np.random.default_rng(count)
    for axes in ((0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)):
        x = rng.standard_normal((3, 5, count)) if 2 in axes else rng.standard_normal((count, 3, 7))
        for keep in (False, True):
            check(Case(name, (x,), {"axes": axes, "keepdims": keep}), DType.FLOAT32, batch=(0,))
    x[1, 1, 1 % x.shape[2]] = np.nan
    check(Case(name, (x,), {"axes": (1, 2), "keepdims": False}), DType.FLOAT64, batch=(0,))


@settings(max_examples=25, deadline=None)
@given(
    m=st.sampled_from([1, 2, 3, 4, 5, 8, 13]), k=st.sampled_from([1, 3, 16, 17, 50]),
    n=st.sampled_from([1, 2, 5, 31, 32, 33, 50, 67]), a=st.booleans(), b=st.booleans(),
    lead=st.sampled_from([((), ()), ((2,), (2,)), ((2,), ()), ((1, 3), (2, 1)), ((), (4,))]), batch=st.booleans(),
)  # fmt: skip
def test_products_of_all_sizes(m, k, n, a, b, lead, batch):
    rng = np.random.default_rng(m * k * n)
    x = rng.standard_normal((*lead[0], *((k, m) if a else (m, k))))
    y = rng.standard_normal((*lead[1], *((n, k) if b else (k, n))))
    symbolic = (0,) if batch and not lead[0] and not a and not lead[1] else ()
    check(Case("matmul", (x, y), {"transpose_a": a, "transpose_b": b}), DType.FLOAT32, batch=symbolic)
