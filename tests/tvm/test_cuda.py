"""Kernels for CUDA: their source, which compilers take where there are any, and which means what the reference says.

To compare, the source runs as C++, with a thread of the processor for each of the GPU's.
"""

from __future__ import annotations

import shutil

import cuda_on_cpu
import numpy as np
import pytest

from boundflow_core.errors import OptionError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.types import Attrs, DType, SymDim, concrete_shape
from boundflow_core.plugins import registry
from boundflow_tvm.backend_cuda import cuda_source
from boundflow_tvm.cuda.blocks import THREADS
from boundflow_tvm.cuda.compiler import compiled, compiled_by_nvcc, compiled_by_nvrtc, nvrtc
from boundflow_tvm.cuda.driver import Arguments
from boundflow_tvm.cuda.kernels import kernel_of, refused
from boundflow_tvm.fuse import fuse
from boundflow_tvm.fused import FUSED

TOLERANCE = {DType.FLOAT32: 1e-5, DType.FLOAT64: 1e-12}
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the path")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
B, S = SymDim.of("B"), SymDim.of("S")


def step(dtype, columns, relu, shared):
    """Rows [B, S, *columns] through the lines of an activation, which all rows of a region share, or not."""
    b = Builder(dtype)
    front = (B, 1 if shared else S)
    names = ("lower_slope", "upper_slope", "upper_bias") if relu else (
        "lower_slope", "lower_bias", "upper_slope", "upper_bias")  # fmt: skip
    values = [b.input("rows", (B, S, *columns)), *(b.input(name, (*front, *columns)) for name in names)]
    composite = registry().composite("relu_backsubstitute" if relu else "backsubstitute")
    through, bias = b.write(composite, values, Attrs(front=2))
    return b.finish({"through": through, "bias": bias})


def chain(dtype, columns, relu=True, shared=True):
    """An elementwise chain with a number in it, which the pass would make one of."""
    b = Builder(dtype)
    x, w = b.input("x", (B, *columns)), b.input("w", columns)
    two = ("constant", (), (("dtype", str(dtype)), ("value", 2.0)))
    body = (
        two,
        ("mul", (0, 2), ()),
        ("tanh", (3,), ()),
        ("sub", (4, 1), ()),
        ("compare", (5, 0), (("relation", "gt"),)),
    )
    return b.finish({"z": b.write(FUSED, [x, w], Attrs(body=(*body, ("where", (6, 5, 1), ()))))[0]})


def function(dtype, columns, relu=True, shared=True):
    b = Builder(dtype)
    return b.finish({"z": b.tanh(b.input("x", (B, *columns)))})


def reduction(name, axes):
    def write(dtype, columns, relu=True, shared=True):
        b = Builder(dtype)
        x = b.input("x", (B, *columns))
        total = b.emit(PRIMITIVES[name], b.abs(x) * x, axes=axes, keepdims=False)[0]
        return fuse(b.finish({"z": total}))

    return write


def drawn(program, sizes, seed=0):
    rng = np.random.default_rng(seed)
    return {
        v.name: rng.standard_normal(concrete_shape(v.shape, sizes)).astype(v.type.dtype.numpy) for v in program.inputs
    }


def emulated(program, inputs, sizes):
    """Results of the only operation of ``program``, from its source."""
    (op,) = program.ops
    kernel = kernel_of(op)
    source = cuda_source({"k": kernel.build()})
    results = [np.full(concrete_shape(v.shape, sizes), 7, v.type.dtype.numpy) for v in op.outputs]
    numbers = [np.asarray(c.numpy(), v.type.dtype.numpy) for v, c in program.constants.items()]
    arrays = {**{v: inputs[v.name] for v in program.inputs}, **dict(zip(program.constants, numbers, strict=True))}
    operands = [np.ascontiguousarray(arrays[v]) for v in op.inputs]
    addresses = [array.ctypes.data for array in (*operands, *results)]
    arguments = Arguments([*addresses, *(sizes[symbol] for symbol in kernel.symbols)])
    driver = cuda_on_cpu.driver()
    with driver.current():
        driver.launch(driver.load(cuda_on_cpu.compiled(source))("k"), kernel.blocks(sizes), THREADS, 0, arguments)
    return {name: results[op.outputs.index(value)] for name, value in program.outputs.items()}


def check(program, sizes, inputs=None):
    inputs = drawn(program, sizes) if inputs is None else inputs
    expected, found = evaluate(program, inputs), emulated(program, inputs, sizes)
    for name, want in expected.items():
        tolerance = TOLERANCE[DType(str(want.dtype))]
        scale = np.abs(want[np.isfinite(want)]).max(initial=1.0)
        np.testing.assert_allclose(found[name], want, rtol=tolerance, atol=tolerance * scale, strict=True)


@needs_compiler
@pytest.mark.parametrize(("relu", "dtype"), [(True, DType.FLOAT32), (False, DType.FLOAT64)])
@pytest.mark.parametrize(("columns", "shared"), [((1,), True), ((3, 5, 11), True), ((131,), False)])
def test_rows_through_an_activation_equal_the_reference(dtype, relu, columns, shared):
    check(step(dtype, columns, relu, shared), {"B": 2, "S": 3})


@needs_compiler
def test_rows_that_are_undefined_stay_so():
    program, sizes = step(DType.FLOAT64, (5,), False, True), {"B": 1, "S": 2}
    inputs = drawn(program, sizes)
    inputs["rows"][0, 0, 1], inputs["upper_bias"][0, 0, 3] = np.nan, np.inf
    with np.errstate(all="ignore"):
        check(program, sizes, inputs)


KERNELS = {"chain": chain, "function": function} | {
    f"{name} {axes}": reduction(name, axes)
    for name in ("reduce_sum", "reduce_max", "reduce_min")
    for axes in ((1,), (0, 2))
}


@needs_compiler
@pytest.mark.parametrize("name", KERNELS)
def test_chains_and_reductions_equal_the_reference(name):
    for columns, batch in (((1, 1), 1), ((3, 67), 5)):
        check(KERNELS[name](DType.FLOAT32, columns), {"B": batch})


def numbers(dtype, columns, relu=True, shared=True):
    """x times, plus and compared with numbers that are hard to write, among them zero, which must not win over NaN."""
    b = Builder(dtype)
    x = b.input("x", (B, *columns))
    rest = [1e-30, 1 / 3, 1e30, -0.0, 0.0, float("inf"), float("-inf"), 2.0**-140]
    body = [("constant", (), (("dtype", str(dtype)), ("value", value))) for value in rest]
    last = 0
    for place in range(1, 1 + len(rest)):
        body.append(("mul", (0, place), ()))
        body.append(("maximum", (len(body), last), ()))
        body.append(("add", (len(body), place), ()))
        last = len(body)
    return b.finish({"z": b.write(FUSED, [x], Attrs(body=tuple(body)))[0]})


@needs_compiler
@pytest.mark.parametrize("value", [1e-30, 1 / 3, 1e30, -0.0, 0.0, np.inf, -np.inf, 2.0**-140, 5e-324])
@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64])
def test_numbers_are_what_they_are(dtype, value):
    b = Builder(dtype)
    x = b.input("x", (B, 7))
    constant = ("constant", (), (("dtype", str(dtype)), ("value", float(np.asarray(value, dtype.numpy)))))
    program = b.finish({"z": b.write(FUSED, [x], Attrs(body=(constant, ("mul", (0, 1), ()))))[0]})
    inputs = {"x": np.array([[1.0, -1.0, 0.0, np.nan, np.inf, -np.inf, 1e20]], dtype.numpy)}
    with np.errstate(all="ignore"):
        expected, found = evaluate(program, inputs)["z"], emulated(program, inputs, {"B": 1})["z"]
    np.testing.assert_array_equal(found.view(f"i{dtype.itemsize}")[~np.isnan(expected)],
                                  expected.view(f"i{dtype.itemsize}")[~np.isnan(expected)])  # fmt: skip
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


@needs_compiler
def test_largest_of_no_whole_numbers():
    b = Builder(DType.FLOAT32)
    x = b.input("x", (B, S), DType.INT64)
    program = b.finish({"z": b.emit(PRIMITIVES["reduce_max"], x, axes=(1,), keepdims=False)[0]})
    found = emulated(program, {"x": np.full((2, 1), -(2**63), np.int64)}, {"B": 2, "S": 1})["z"]
    assert found.tolist() == [-(2**63)] * 2


COMPILERS = [
    pytest.param(compiled_by_nvcc, marks=needs_nvcc, id="nvcc"),
    pytest.param(
        compiled_by_nvrtc, marks=pytest.mark.skipif(nvrtc() is None, reason="NVRTC cannot be found"), id="NVRTC"
    ),
]


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64])
def test_compilers_take_the_source(dtype, compiler):
    programs = [step(dtype, (3, 7), True, True), step(dtype, (3, 7), False, False), numbers(dtype, (3, 7))]
    programs += [write(dtype, (3, 7)) for write in KERNELS.values()]
    kernels = {f"k{i}": kernel_of(program.ops[0]).build() for i, program in enumerate(programs)}
    code = compiler(cuda_source(kernels))
    assert code[:4] == b"\x7fELF" and all(name.encode() in code for name in kernels)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_source_that_a_compiler_refuses(compiler):
    with pytest.raises(OptionError, match="refuses the source"):
        compiler("this is no source")


def test_source_needs_no_compiler_and_says_where_it_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("boundflow_tvm.cuda.compiler.nvrtc", lambda: None)
    source = cuda_source({"step": kernel_of(step(DType.FLOAT32, (7,), True, True).ops[0]).build()})
    assert "__global__" in source and "__shared__" in source and "__syncthreads" in source
    missing = {
        compiled: "neither NVRTC",
        compiled_by_nvcc: "nvcc is not on the path",
        compiled_by_nvrtc: "NVRTC cannot",
    }
    for compiler, why in missing.items():
        with pytest.raises(OptionError, match=why):
            compiler(source)


@pytest.mark.parametrize("name", ["step", *KERNELS])
def test_parameters_are_pointers_and_then_sizes(name):
    (op,) = (step(DType.FLOAT32, (7,), False, True) if name == "step" else KERNELS[name](DType.FLOAT32, (3, 7))).ops
    kernel = kernel_of(op)
    listed = cuda_on_cpu.parameters(cuda_source({"k": kernel.build()}))["k"]
    pointers = [f"p{i}" for i in range(len(op.inputs) + len(op.outputs))]
    assert [one for _, one in listed] == [*pointers, *(f"size_{symbol}" for symbol in kernel.symbols)]
    assert [kind for kind, _ in listed[len(pointers) :]] == ["int64_t"] * len(kernel.symbols)
    assert all("*" in kind for kind, _ in listed[: len(pointers)])


def test_as_many_blocks_as_there_is_work_for():
    rows = kernel_of(step(DType.FLOAT32, (7,), True, True).ops[0])
    assert [rows.blocks({"B": b, "S": s}) for b, s in ((2, 3), (0, 3), (1, 1))] == [6, 0, 1]
    elements = kernel_of(chain(DType.FLOAT32, (THREADS // 2,)).ops[0])
    assert [elements.blocks({"B": b}) for b in (0, 1, 2, 3)] == [0, 1, 1, 2]
    total = kernel_of(reduction("reduce_sum", (0, 2))(DType.FLOAT32, (3, 7)).ops[0])
    assert total.blocks({"B": 5}) == 3


def test_what_is_left_to_libraries():
    b = Builder(DType.FLOAT32)
    product = b.finish({"y": b.matmul(b.input("x", (B, 3)), b.input("w", (3, 2)))}).ops[0]
    assert refused(product) == "left to cuBLAS and cuDNN"
    assert refused(chain(DType.FLOAT32, (2, 2)).ops[0]) is None
    b = Builder(DType.FLOAT32)
    assert refused(b.finish({"y": b.emit(PRIMITIVES["running_count"], b.input("x", (B,)) > 0.0)[0]}).ops[-1])
