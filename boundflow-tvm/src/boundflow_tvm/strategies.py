"""The lowering strategies of executor `tvm`: what each supports, and what it takes by estimate."""

from __future__ import annotations

from collections.abc import Sequence

from boundflow_core.extension import TYPICAL_SIZE, LoweringStrategy
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.program import Op, Primitive, Value
from boundflow_core.ir.types import Dim, concrete_dim, size
from boundflow_tvm import blas, relax, templates
from boundflow_tvm.backend import unavailable
from boundflow_tvm.fused import FUSED
from boundflow_tvm.kernels import template_of

__all__ = ["STRATEGIES", "WRITES"]

WRITES = frozenset({*PRIMITIVES, *templates.CLAIMS, FUSED.name})
"""What is computed into memory given to it."""

# Of one thread of a present machine, for the choice between strategies only.
BYTES_PER_SECOND = 1e10
FLOPS_GENERATED = 1e10  # of loop nests
FLOPS_TILES = 8e10  # of products in register tiles
FLOPS_TEMPLATE = 4e10
FLOPS_BLAS = 6e10
CALL_BLAS = 1.5e-6
FLOPS_RELAX = 1e9  # of loop nests without a schedule
CALL_RELAX = 1e-6


def _elements(value: Value) -> int:
    return _number(size(value.shape))


def _number(dim: Dim) -> int:
    return dim if isinstance(dim, int) else concrete_dim(dim, dict.fromkeys(dim.symbols, TYPICAL_SIZE))


def _flops(op: Op) -> float:
    """Arithmetic operations at typical sizes."""
    count = float(_elements(op.outputs[0]))
    if op.name == "matmul":
        depth = op.inputs[0].shape[-2 if op.attrs["transpose_a"] else -1]
        return 2 * count * _number(depth)
    if op.name in ("conv2d", "conv2d_input_grad"):
        weight, source = op.inputs[1], op.outputs[0] if op.name == "conv2d" else op.inputs[0]
        return 2.0 * _elements(source) * _elements(weight) / max(1, int(str(weight.shape[0])))
    return count


def _moved(op: Op) -> float:
    return float(sum(_elements(v) * v.type.dtype.itemsize for v in (*op.inputs, *op.outputs)))


def _compiled_refuses(op: Op, known: Sequence[bool]) -> str | None:
    if isinstance(op.spec, Primitive) or op.spec is FUSED or template_of(op, known) is not None:
        return None
    return "no template takes it"


def _compiled_takes(op: Op, known: Sequence[bool]) -> float:
    kernel = template_of(op, known)
    if kernel is not None:
        return max(_moved(op) / BYTES_PER_SECOND, TYPICAL_SIZE * kernel.flops / FLOPS_TEMPLATE)
    if (
        op.name == "matmul"
        and not (op.attrs["transpose_b"] and not known[1])
        and isinstance(op.outputs[0].shape[-1], int)
    ):
        return max(_moved(op) / BYTES_PER_SECOND, _flops(op) / FLOPS_TILES)
    return max(_moved(op) / BYTES_PER_SECOND, _flops(op) / FLOPS_GENERATED)


def _blas_takes(op: Op, known: Sequence[bool]) -> float:
    return CALL_BLAS + max(_moved(op) / BYTES_PER_SECOND, _flops(op) / FLOPS_BLAS)


def _relax_refuses(op: Op, known: Sequence[bool]) -> str | None:
    return None if isinstance(op.spec, Primitive) else "Relax takes primitives"


def _relax_takes(op: Op, known: Sequence[bool]) -> float:
    return CALL_RELAX + max(2 * _moved(op) / BYTES_PER_SECOND, _flops(op) / FLOPS_RELAX)


def _tilelang() -> str:
    return "tilelang needs apache-tvm-ffi below 0.1.13, TVM 0.27 a later one: they cannot share an environment"


STRATEGIES = (
    LoweringStrategy(
        "call_tir",
        "templates and generated loop nests, compiled together",
        "tvm",
        unavailable,
        _compiled_refuses,
        _compiled_takes,
    ),
    LoweringStrategy(
        blas.NAME,
        "products of large matrices by NumPy's BLAS",
        "tvm",
        lambda: None,
        lambda op, known: blas.refused(op),
        _blas_takes,
    ),
    LoweringStrategy(
        relax.NAME,
        "tasks as functions of Relax in its virtual machine: complete, to compare with",
        "tvm",
        unavailable,
        _relax_refuses,
        _relax_takes,
    ),
    LoweringStrategy(
        "tilelang_jit",
        "kernels of tilelang",
        "tvm",
        _tilelang,
        lambda op, known: _tilelang(),
        lambda op, known: float("inf"),
    ),
)
