"""Kernels for CUDA: their source, which nvcc takes where there is one, and which means what the reference says.

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
from boundflow_tvm.backend_cuda import compiled_source, cuda_source
from boundflow_tvm.cuda.blocks import THREADS
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


def emulated(program, inputs, sizes, folder):
    """Results of the only operation of ``program``, from its source."""
    (op,) = program.ops
    kernel = kernel_of(op)
    source = cuda_source({"k": kernel.function})
    results = [np.full(concrete_shape(v.shape, sizes), 7, v.type.dtype.numpy) for v in op.outputs]
    numbers = [np.asarray(c.numpy(), v.type.dtype.numpy) for v, c in program.constants.items()]
    arrays = {**{v: inputs[v.name] for v in program.inputs}, **dict(zip(program.constants, numbers, strict=True))}
    operands = [np.ascontiguousarray(arrays[v]) for v in op.inputs]
    cuda_on_cpu.run(source, [*operands, *results], sizes, kernel.blocks(sizes), THREADS, folder)
    return {name: results[op.outputs.index(value)] for name, value in program.outputs.items()}


def check(program, sizes, folder, inputs=None):
    inputs = drawn(program, sizes) if inputs is None else inputs
    expected, found = evaluate(program, inputs), emulated(program, inputs, sizes, folder)
    for name, want in expected.items():
        tolerance = TOLERANCE[DType(str(want.dtype))]
        scale = np.abs(want[np.isfinite(want)]).max(initial=1.0)
        np.testing.assert_allclose(found[name], want, rtol=tolerance, atol=tolerance * scale, strict=True)


@needs_compiler
@pytest.mark.parametrize(("relu", "dtype"), [(True, DType.FLOAT32), (False, DType.FLOAT64)])
@pytest.mark.parametrize(("columns", "shared"), [((1,), True), ((3, 5, 11), True), ((131,), False)])
def test_rows_through_an_activation_equal_the_reference(dtype, relu, columns, shared, tmp_path):
    check(step(dtype, columns, relu, shared), {"B": 2, "S": 3}, tmp_path)


@needs_compiler
def test_rows_that_are_undefined_stay_so(tmp_path):
    program, sizes = step(DType.FLOAT64, (5,), False, True), {"B": 1, "S": 2}
    inputs = drawn(program, sizes)
    inputs["rows"][0, 0, 1], inputs["upper_bias"][0, 0, 3] = np.nan, np.inf
    with np.errstate(all="ignore"):
        check(program, sizes, tmp_path, inputs)


KERNELS = {"chain": chain, "function": function} | {
    f"{name} {axes}": reduction(name, axes)
    for name in ("reduce_sum", "reduce_max", "reduce_min")
    for axes in ((1,), (0, 2))
}


@needs_compiler
@pytest.mark.parametrize("name", KERNELS)
def test_chains_and_reductions_equal_the_reference(name, tmp_path):
    for number, (columns, batch) in enumerate((((1, 1), 1), ((3, 67), 5))):
        folder = tmp_path / str(number)
        folder.mkdir()
        check(KERNELS[name](DType.FLOAT32, columns), {"B": batch}, folder)


@needs_nvcc
@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64])
def test_nvcc_takes_the_source(dtype):
    programs = [step(dtype, (3, 7), True, True), step(dtype, (3, 7), False, False)]
    programs += [write(dtype, (3, 7)) for write in KERNELS.values()]
    kernels = {f"k{i}": kernel_of(program.ops[0]).function for i, program in enumerate(programs)}
    assert compiled_source(cuda_source(kernels))[:4] == b"\x7fELF"


@needs_nvcc
def test_source_that_nvcc_refuses():
    with pytest.raises(OptionError, match="nvcc refuses the source"):
        compiled_source("this is no source")


def test_source_needs_no_compiler_and_says_where_it_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    source = cuda_source({"step": kernel_of(step(DType.FLOAT32, (7,), True, True).ops[0]).function})
    assert "__global__" in source and "__shared__" in source and "__syncthreads" in source
    name, listed = cuda_on_cpu.parameters(source)
    assert name == "step_kernel" and {one for _, one in listed} <= {*(f"p{i}" for i in range(6)), "size_B", "size_S"}
    with pytest.raises(OptionError, match="nvcc is not on the path"):
        compiled_source(source)


def test_what_is_left_to_libraries():
    b = Builder(DType.FLOAT32)
    product = b.finish({"y": b.matmul(b.input("x", (B, 3)), b.input("w", (3, 2)))}).ops[0]
    assert refused(product) == "left to cuBLAS and cuDNN"
    assert refused(chain(DType.FLOAT32, (2, 2)).ops[0]) is None
    b = Builder(DType.FLOAT32)
    assert refused(b.finish({"y": b.emit(PRIMITIVES["running_count"], b.input("x", (B,)) > 0.0)[0]}).ops[-1])
