"""What of TVM writes CUDA source, under names of our own. No GPU, CUDA library or compiler is needed for that."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from boundflow_tvm.backend import Tir

__all__ = ["ARCHITECTURE", "Grid", "cuda_source"]

ARCHITECTURE = "sm_90"

# What generated code uses beside the functions of every compiler for CUDA. NVRTC comes without any header.
PRELUDE = """\
#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef int int32_t;
typedef long long int64_t;
#else
#include <cstdint>
#endif
#define CUDART_INF_F __int_as_float(0x7f800000)
#define CUDART_NAN_F __int_as_float(0x7fffffff)
"""


class _CudaTir(Tir):
    """TVM's tensor IR with numbers that its writer of CUDA source gets right."""

    def number(self, value: float | int | bool, dtype: str) -> Any:
        """float64 goes by its bits: TVM writes fifteen decimals, which makes zero of 1e-20."""
        if dtype == "float64":
            (bits,) = struct.unpack("<q", struct.pack("<d", float(value)))
            return self.call("__longlong_as_double", dtype, self.number(bits, "int64"))
        if dtype == "int64" and int(value) == -(2**63):  # C++ has no literal for it
            return self.t.Sub(super().number(1 - 2**63, dtype), self.int(1))
        return super().number(value, dtype)

    def unary(self, name: str, x: Any, dtype: str) -> Any:
        """Functions of CUDA's library, which need no pass that looks for them."""
        if not dtype.startswith("float"):
            below = self.t.LT(x, self.number(0, dtype))
            return self.select(below, self.t.Sub(self.number(0, dtype), x), x) if name == "abs" else x
        return self.call({"abs": "fabs"}.get(name, name) + ("f" if dtype == "float32" else ""), dtype, x)


@lru_cache(maxsize=1)
def _tir() -> Tir:
    return _CudaTir()


class Grid:
    """Kernels in TVM's tensor IR: blocks of threads that share memory.

    Attributes:
        t: expressions and statements.
    """

    def __init__(self) -> None:
        self.t: Tir = _tir()

    def kernel(self, parameters: Sequence[Any], blocks: Any, threads: int, body: Callable[[Any, Any], Any]) -> Any:
        """A function that runs ``body(block, thread)`` for each thread of each block.

        Args:
            blocks: how many blocks there are, an expression of the parameters.
        """
        t = self.t
        block, thread = t.var("block"), t.var("thread")
        inner = self._bound(thread, "threadIdx.x", t.int(threads), body(block, thread))
        attrs = t.ir.make_node("ir.DictAttrs", **{"tirx.noalias": True})
        return t.t.PrimFunc(list(parameters), self._bound(block, "blockIdx.x", blocks, inner), attrs=attrs)

    def _bound(self, var: Any, tag: str, extent: Any, body: Any) -> Any:
        t = self.t
        axis = t.t.IterVar(t.ir.Range(t.int(0), extent), var, t.t.IterVar.ThreadIndex, tag)
        return t.t.AttrStmt(axis, "thread_extent", extent, body)

    def array(self, name: str, count: int, dtype: str, scope: str) -> tuple[Any, Any]:
        """An array of a thread ("local") or of a block ("shared"): the buffer, and the statement that allocates it."""
        buffer = self.t.t.decl_buffer((count,), dtype, name=name, scope=scope)
        return buffer, self.t.t.AllocBuffer(buffer)

    def barrier(self) -> Any:
        """All threads of the block have come here."""
        return self.t.t.Evaluate(self.t.t.call_intrin("int32", "tirx.tvm_storage_sync", "shared", False, -1))


def cuda_source(functions: Mapping[str, Any], architecture: str = ARCHITECTURE) -> str:
    """The CUDA source of kernels by name, which take their parameters in order.

    Nothing is simplified: TVM takes x * 0 for 0, also where x is NaN or infinite. So kernels go straight to the writer
    of source, as functions of the device, without any pass. (Most would also take time that doubles with each maximum
    in a chain.)
    """
    t = _tir()
    target = t.tvm.target.Target({"kind": "cuda", "arch": architecture}, host={"kind": "llvm"})
    launched = {"target": target, "calling_conv": 2, "tirx.is_global_func": True}
    named = {}
    for name, function in functions.items():
        for key, attribute in {**launched, "global_symbol": name}.items():
            function = function.with_attr(key, attribute)
        named[t.name(name)] = function
    written = str(t.tvm.get_global_func("target.build.cuda")(t.tvm.IRModule(named), target).inspect_source())
    return PRELUDE + written[written.index('extern "C"') :]
