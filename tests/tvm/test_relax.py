"""Strategy `relax_vm`: every primitive and composite, and whole methods, against the reference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from crown_networks import residual, small_mlp
from hypothesis import given, settings
from hypothesis import strategies as st

import boundflow_core as bf
from boundflow_core.errors import OptionError, UnknownNameError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import bind_symbols, evaluate
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.planner.cost import known_values
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.plugins import registry
from boundflow_core.scheduler import RunCounts, Schedule
from boundflow_core.testing.primitives import CASES, Case
from boundflow_tvm.backend_relax import fused_functions
from boundflow_tvm.relax.regions import regions_of, write_region

TOLERANCE = {DType.FLOAT64: 1e-12, DType.FLOAT32: 1e-5}


def run(program, inputs):
    executor = registry().executor("tvm")
    plan = make_plan(program, executor, lowering="relax_vm")
    assert set(plan.lowering.counts) <= {"relax_vm"}
    plan = bind_plan(plan, bind_symbols(program, {name: np.shape(array) for name, array in inputs.items()}))
    return Schedule(plan, executor.open(plan, None), "").run(inputs, RunCounts())


def check(program, inputs) -> None:
    expected, result = evaluate(program, inputs), run(program, inputs)
    for name, want in expected.items():
        assert result[name].dtype == want.dtype
        tolerance = TOLERANCE[DType(str(want.dtype))] if want.dtype.kind == "f" else 0
        finite = want[np.isfinite(want)].astype(np.float64)
        scale = np.abs(finite).max(initial=1.0)
        np.testing.assert_allclose(result[name], want, rtol=tolerance, atol=tolerance * scale, strict=True)


@pytest.mark.parametrize("dtype", [DType.FLOAT64, DType.FLOAT32])
@pytest.mark.parametrize("name", PRIMITIVES)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_primitives_equal_the_reference(name, dtype, data):
    case = data.draw(CASES[name])
    check(case.program(dtype), case.inputs)


# -- sizes that are known when it runs, special numbers ----------------------------------------------------------------

SIZES = st.sampled_from([1, 2, 3, 7, 13, 17, 31])
WINDOW = {"stride": (2, 1), "padding": (1, 0, 1, 1), "dilation": (1, 1), "groups": 1}
SYMBOLIC = {
    "exp": lambda n, m: (((n, m),), {}, (0,)),
    "maximum": lambda n, m: (((n, m), (m,)), {}, (0,)),
    "matmul": lambda n, m: (((n, m, 5), (5, 3)), {"transpose_a": False, "transpose_b": False}, (0,)),
    "conv2d": lambda n, m: (((n, 2, m + 2, 5), (3, 2, 3, 2)), WINDOW, (0,)),
    "conv2d_input_grad": lambda n, m: (((n, 3, (m + 1) // 2, 5), (3, 2, 3, 2)), {**WINDOW, "input_size": (m, 5)}, (0,)),
    "max_pool2d": lambda n, m: (
        ((n, 2, m + 2, 5),), {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 0, 1, 1), "dilation": (1, 1)}, (0,)),
    "reduce_sum": lambda n, m: (((n, m, 3),), {"axes": (0, 1), "keepdims": False}, (0,)),
    "reduce_max": lambda n, m: (((n, m),), {"axes": (0,), "keepdims": True}, (0,)),
    "permute": lambda n, m: (((n, m, 2),), {"axes": (1, 0, 2)}, (0,)),
    "concat": lambda n, m: (((n, m), (n, m)), {"axis": 0}, (0, 1)),
    "row_numbers": lambda n, m: (((n, m),), {"axis": 0}, (0,)),
}  # fmt: skip


@pytest.mark.parametrize("name", SYMBOLIC)
@settings(max_examples=3, deadline=None)
@given(n=SIZES, m=SIZES)
def test_sizes_that_are_known_when_it_runs(name, n, m):
    shapes, attrs, batch = SYMBOLIC[name](n, m)
    rng = np.random.default_rng(n * m)
    case = Case(name, tuple(rng.standard_normal(shape) for shape in shapes), attrs)
    check(case.program(DType.FLOAT32, batch), case.inputs)


@settings(max_examples=4, deadline=None)
@given(n=SIZES, rows=st.integers(0, 5), axis=st.sampled_from([0, 1, 2]), add=st.booleans())
def test_rows_put_in_place(n, rows, axis, add):
    rng = np.random.default_rng(n)
    shape = [3, 3, 3]
    shape[axis] = n
    index = rng.integers(0, n, rows) if add else rng.permutation(n)[:rows]
    base, new = rng.standard_normal(shape), np.moveaxis(rng.standard_normal((len(index), 3, 3)), 0, axis)
    case = Case("scatter_add_rows" if add else "scatter_rows", (base, index, new), {"axis": axis})
    check(case.program(DType.FLOAT64, (0, 2) if axis else ()), case.inputs)


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -2.5, 1e30, 1e-30, 0.5, -1e-8])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_special_numbers():
    """NaN, infinities and the sign of zero (which a quotient shows) are those of NumPy, for all functions."""
    b = Builder(DType.FLOAT64)
    x, column = b.input("x", (len(SPECIAL),)), b.input("column", (len(SPECIAL), 1))
    unary = [p for p in PRIMITIVES.values() if p.infer is PRIMITIVES["exp"].infer and p.name != "pow"]
    results = {p.name: b.emit(p, x)[0] for p in unary}
    for name in ("add", "sub", "mul", "div", "maximum", "minimum"):
        results[name] = b.emit(PRIMITIVES[name], x, column)[0]
    for relation in ("lt", "le", "gt", "ge", "eq", "ne"):
        results[relation] = b.compare(x, column, relation)
    results |= {"sign of " + name: 1.0 / results[name] for name in ("neg", "abs", "floor", "sign")}
    results["zero times"], results["difference"] = x * 0.0, x - x
    for name in ("reduce_sum", "reduce_max", "reduce_min"):
        for keep in (slice(0, 3), slice(1, 2), slice(2, 3), slice(3, 9)):
            part = b.emit(PRIMITIVES["slice"], x, starts=(keep.start,), stops=(keep.stop,), steps=(1,))[0]
            results[f"{name} {keep}"] = b.emit(PRIMITIVES[name], part, axes=(0,), keepdims=False)[0]
    program = b.finish(results)
    assert len(unary) > 10
    check(program, {"x": SPECIAL, "column": SPECIAL[:, None]})


# -- whole methods ----------------------------------------------------------------------------------------------------

GRAPHS = {"mlp": lambda: small_mlp(1), "tanh": lambda: small_mlp(2, "tanh"), "residual": residual}


QUICK = {("mlp", "ibp", "float32"), ("residual", "ibp", "float64"), ("mlp", "crown-ibp", "float64")}
METHODS = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
    for case in itertools.product(GRAPHS, ("ibp", "crown-ibp", "crown"), ("float32", "float64"))
]


@pytest.mark.parametrize(("graph", "method", "dtype"), METHODS)
def test_methods_equal_the_reference(graph, method, dtype):
    network = GRAPHS[graph]()
    runs = [
        bf.compile(network, method=method, dtype=dtype, cache=False, **options)
        for options in ({"executor": "reference"}, {"lowering": "relax_vm"})
    ]
    outputs = int(np.prod(network.output_type.shape))
    spec = bf.LinearSpec(np.random.default_rng(5).standard_normal((2, outputs)))
    for batch in (1, 1, 3):  # the second time crown is one program
        centre = np.random.default_rng(batch).standard_normal((batch, *network.input_type.shape))
        want, got = (run(bf.Box(centre - 0.1, centre + 0.1), spec) for run in runs)
        for one, other in ((got.lower, want.lower), (got.upper, want.upper)):
            scale = max(1.0, float(np.abs(other).max()))
            np.testing.assert_allclose(one, other, rtol=TOLERANCE[DType(dtype)], atol=TOLERANCE[DType(dtype)] * scale)
    stats = runs[1].stats
    assert runs[1].executor == "tvm" and set(stats.lowering) <= {"relax_vm", "tvm"}
    assert stats.kernels["compiled"] > 0 and stats.lowering["relax_vm"] > 0


@pytest.mark.slow
def test_slopes_that_are_optimised_equal_the_reference():
    network = small_mlp(3)
    region = bf.Box(np.full((2, *network.input_type.shape), -0.1), np.full((2, *network.input_type.shape), 0.1))
    want, got = (
        bf.compile(network, method="alpha-crown", dtype="float64", cache=False, iterations=3, **options)(region)
        for options in ({"executor": "reference"}, {"lowering": "relax_vm"})
    )
    np.testing.assert_allclose(got.lower, want.lower, rtol=1e-10, atol=1e-12)


# -- how it runs ------------------------------------------------------------------------------------------------------


def test_a_task_is_one_function_whatever_the_sizes_and_chains_are_fused():
    network = small_mlp(3)
    run = bf.compile(network, method="ibp", lowering="relax_vm", dtype="float64", cache=False)
    for batch in (1, 2, 5):
        run(bf.Box(np.zeros((batch, *network.input_type.shape)), np.ones((batch, *network.input_type.shape))))
    assert run.stats.kernels["compiled"] == 1 and run.stats.kernels["hits"] == 2
    b = Builder(DType.FLOAT32)
    x = b.input("x", (SymDim.of("B"), 7))
    program = b.finish({"y": b.emit(PRIMITIVES["reduce_sum"], b.abs(x * 2.0 + 1.0), axes=(1,), keepdims=False)[0]})
    plan = make_plan(program, registry().executor("tvm"), lowering="relax_vm")
    regions = regions_of(plan, known_values(plan.program))
    assert len(regions) == 1

    def write(r, builder):
        write_region(r, builder, "task", *regions.values(), program.symbols())

    names = [str(name.name_hint) for name in fused_functions(write)]
    assert names == ["fused_multiply_add_tir_abs_reduce_sum"]


def test_weights_that_change_are_read_for_each_run():
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    graph = bf.load(model, example_inputs=(torch.zeros(1, 3),))
    run = bf.compile(graph, method="ibp", lowering="relax_vm")
    box = bf.Box(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32))
    first = run(box).lower
    with torch.no_grad():
        model[0].bias += 1.0
    np.testing.assert_allclose(run(box).lower, first + 1.0, rtol=1e-6)


def test_strategies_that_are_asked_for():
    network = small_mlp(1)
    run = bf.compile(network, method="ibp", executor="tvm", lowering="call_tir")
    lowered = [entry.lowering for part in run.plan.lowering.entries.values() for entry in part]
    assert "call_tir" in run.stats.lowering and set(run.stats.lowering) <= {"call_tir", "tvm"}
    reasons = {one.reason for one in lowered if one.strategy == "call_tir"}
    assert reasons == {"call_tir is asked for"}
    run = bf.compile(network, method="ibp", lowering="relax_vm")
    assert run.plan.lowering.counts.keys() <= {"relax_vm", "tvm"}
    assert any(
        key.startswith("interval_matmul: Relax takes primitives, runs its decomposition") for key in run.stats.fallbacks
    )
    run = bf.compile(network, method="ibp", lowering="blas")  # which takes no elementwise operation
    assert run.plan.lowering.counts["call_tir"] > 0  # the plan of one region, made when it is asked for
    assert run.stats.lowering["call_tir"] > 0
    assert any(key.endswith("no product of matrices, runs on call_tir") for key in run.stats.fallbacks)
    with pytest.raises(OptionError, match="'tilelang_jit' cannot be used here: tilelang needs"):
        bf.compile(network, method="ibp", lowering="tilelang_jit")
    with pytest.raises(OptionError, match="'reference' has no lowering strategy 'relax_vm'; its strategies: none"):
        bf.compile(network, method="ibp", executor="reference", lowering="relax_vm")
    with pytest.raises(UnknownNameError, match=r"no lowering strategy is called 'relax_wm'; did you mean 'relax_vm'\?"):
        bf.compile(network, method="ibp", lowering="relax_wm")
