"""Everything that is taken from TVM's Relax, under names of our own. Imported when something is lowered by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from boundflow_core.ir.types import Dim, DType, Shape
from boundflow_tvm.backend import tir

__all__ = ["Function", "Machine", "Relax", "compile_functions", "fused_functions", "relax"]


class Relax:
    """TVM's Relax as far as it is used here: expressions are TVM's own objects."""

    def __init__(self) -> None:
        self.t = tir()
        import tvm_ffi
        from tvm import relax, te

        self.relax, self.op, self.te, self.same = relax, relax.op, te, tvm_ffi.structural_equal

    def builder(self) -> Any:
        return self.relax.BlockBuilder()


@lru_cache(maxsize=1)
def relax() -> Relax:
    return Relax()


class Function:
    """A function being written: tensors in, the symbols' values as its last parameter, tensors out.

    Attributes:
        r: TVM's names.
        sizes: the variable of each symbol.
    """

    def __init__(self, r: Relax, builder: Any, symbols: Sequence[str]) -> None:
        self.r, self._builder = r, builder
        self.sizes = {symbol: r.t.var(f"size_{symbol}") for symbol in symbols}

    # types

    def dim(self, dim: Dim) -> Any:
        if isinstance(dim, int):
            return self.r.t.int(dim)
        total = self.r.t.int(dim.coefficient)
        for symbol in dim.symbols:
            total = total * self.sizes[symbol]
        return total

    def shape(self, shape: Shape) -> list[Any]:
        return [self.dim(dim) for dim in shape]

    def kind(self, shape: Shape, dtype: DType) -> Any:
        return self.r.relax.TensorType(self.shape(shape), str(dtype))

    # parameters and results

    def parameter(self, name: str, shape: Shape, dtype: DType) -> Any:
        return self.r.relax.Var(name, self.kind(shape, dtype))

    def size_parameter(self) -> Any:
        return self.r.relax.Var("sizes", self.r.relax.ShapeType(list(self.sizes.values())))

    def write(self, name: str, parameters: Sequence[Any], body: Callable[[], Sequence[Any]]) -> None:
        """Adds the function ``name`` whose results ``body`` writes: pure operations, which may be fused."""
        b = self._builder
        with b.function(name, [*parameters, self.size_parameter()]):
            with b.dataflow():
                results = b.emit_output(self.r.relax.Tuple(list(body())))
            b.emit_func_output(results)

    # expressions

    def emit(self, expression: Any) -> Any:
        return self._builder.emit(expression)

    def emit_te(self, function: Callable[..., Any], *operands: Any, name: str) -> Any:
        """A call of the tensor function that the tensor expression ``function(*operands)`` describes."""
        return self._builder.emit_te(function, *operands, primfunc_name_hint=name)

    def settled(self, expression: Any, shape: Shape, dtype: DType) -> Any:
        """``expression`` with this type, which is checked when it runs where TVM cannot prove it."""
        kind = self.kind(shape, dtype)
        if self.r.same(expression.ty, kind):
            return expression
        return self._builder.match_cast(expression, kind)

    def number(self, value: float | int | bool, dtype: DType) -> Any:
        return self.r.relax.const(value, str(dtype))

    def sized(self, shape: Shape) -> Any:
        return self.r.relax.ShapeExpr(self.shape(shape))

    def full(self, shape: Shape, value: float | int | bool, dtype: DType) -> Any:
        return self.emit(self.r.op.full(self.sized(shape), self.number(value, dtype), str(dtype)))


class Machine:
    """Compiled functions in a virtual machine of their own, with its memory. Not for two threads at once."""

    def __init__(self, code: Any) -> None:
        r = relax()
        self._machine = r.relax.VirtualMachine(code, r.t.tvm.cpu())

    def function(self, name: str) -> Callable[..., Sequence[Any]]:
        found: Callable[..., Sequence[Any]] = self._machine[name]
        return found

    @staticmethod
    def sizes(values: Sequence[int]) -> Any:
        """The last argument of every function."""
        import tvm_ffi

        return tvm_ffi.Shape(tuple(values))


def compile_functions(write: Callable[[Relax, Any], None]) -> Any:
    """The code of the functions that ``write(relax, builder)`` adds to a builder, for :class:`Machine`.

    Chains of elementwise operations, and reductions after them, become one loop nest each.
    """
    r = relax()
    tvm, passes = r.t.tvm, r.relax.transform
    target = tvm.target.Target({"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()})
    pipeline = tvm.transform.Sequential(
        [
            passes.RewriteDataflowReshape(),
            passes.ToNonDataflow(),
            passes.RemovePurityChecking(),
            passes.CallTIRRewrite(),
            passes.StaticPlanBlockMemory(),
            passes.LowerAllocTensor(),
            passes.KillAfterLastUse(),
            passes.LowerRuntimeBuiltin(),
            passes.ComputePrimValue(),
            passes.VMShapeLower(),
            passes.AttachGlobalSymbol(),
        ]
    )
    return r.relax.build(_fused(r, write), target, relax_pipeline=pipeline)


def fused_functions(write: Callable[[Relax, Any], None]) -> Sequence[Any]:
    """The names of the tensor functions that what ``write`` adds comes to, one per loop nest."""
    r = relax()
    module = _fused(r, write)
    return [name for name, function in module.functions.items() if isinstance(function, r.t.t.PrimFunc)]


def _fused(r: Relax, write: Callable[[Relax, Any], None]) -> Any:
    passes, builder = r.relax.transform, r.builder()
    write(r, builder)
    return r.t.tvm.transform.Sequential(
        [
            passes.LegalizeOps(),
            passes.AnnotateTIROpPattern(),
            passes.FuseOps(),
            passes.FuseTIR(),
            passes.DeadCodeElimination(),
        ]
    )(builder.get())
