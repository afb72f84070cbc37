"""What of TVM writes CUDA source, under names of our own. No GPU, CUDA library or nvcc is needed for that."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from boundflow_core.errors import OptionError
from boundflow_tvm.backend import Tir, tir

__all__ = ["ARCHITECTURE", "Grid", "compiled_source", "cuda_source"]

ARCHITECTURE = "sm_90"


class Grid:
    """Kernels in TVM's tensor IR: blocks of threads that share memory.

    Attributes:
        t: expressions and statements.
    """

    def __init__(self) -> None:
        self.t: Tir = tir()

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
    """The CUDA source of kernels by name; ``NAME_kernel`` takes the kernel's parameters."""
    t = tir()
    target = t.tvm.target.Target({"kind": "cuda", "arch": architecture}, host={"kind": "llvm"})
    named = {t.name(name): function.with_attr("global_symbol", name) for name, function in functions.items()}
    # common subexpressions would become parameters, which only the host's half of the code knows
    with t.tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
        module = t.t.build(t.tvm.IRModule(named), target=target)
    return "".join(str(part.inspect_source()) for part in module.imports)


def compiled_source(source: str, architecture: str = ARCHITECTURE) -> bytes:
    """Machine code (a cubin) of CUDA source.

    Raises:
        OptionError: there is no nvcc here, or it refuses the source; says why.
    """
    compiler = shutil.which("nvcc")
    if compiler is None:
        raise OptionError("CUDA source cannot be compiled: nvcc is not on the path")
    with tempfile.TemporaryDirectory(prefix="boundflow-") as folder:
        path, result = Path(folder) / "kernels.cu", Path(folder) / "kernels.cubin"
        path.write_text(source, encoding="utf-8")
        command = [compiler, "-cubin", f"-arch={architecture}", "-o", str(result), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OptionError(f"nvcc refuses the source: {done.stderr.strip()}")
        return result.read_bytes()
