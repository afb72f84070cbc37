"""The kernels: one thread for each element of a chain, one block for each row of what is reduced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from boundflow_core.ir.program import Op, Primitive
from boundflow_core.ir.types import Dim, DType, Shape, SymDim, TensorType, concrete_dim, size
from boundflow_tvm.backend_cuda import Grid
from boundflow_tvm.codegen.loops import Frame, element
from boundflow_tvm.codegen.scalar import LoopNest, loop_nest
from boundflow_tvm.cuda.blocks import THREADS, declared, grid_size, joined, places, strided
from boundflow_tvm.fused import FUSED, steps_of

__all__ = ["STEPS", "CudaKernel", "kernel_of", "refused"]

# Left to libraries, or written for one thread each on the CPU.
_LIBRARY = ("matmul", "conv2d", "conv2d_input_grad", "conv2d_weight_grad")
_SERIAL = ("max_pool2d", "scatter_rows", "scatter_add_rows", "running_count", "first_reaching")


@dataclass(frozen=True)
class CudaKernel:
    """A kernel, and how many blocks of :data:`boundflow_tvm.cuda.blocks.THREADS` threads it runs in.

    Attributes:
        key: text that equals only where the code does.
        symbols: symbols of the shapes, in order.
        work: how many elements, or rows, there are.
        share: how many of these a block takes.
        build: its function, see :meth:`boundflow_tvm.backend_cuda.Grid.kernel`. Its parameters are pointers ``p0``,
            ``p1``... to operands and results, which lie in order, and the values ``size_S`` of the symbols as int64.
    """

    key: str
    symbols: tuple[str, ...]
    work: Dim
    share: int
    build: Callable[[], Any] = field(compare=False)

    def blocks(self, sizes: Mapping[str, int]) -> int:
        return -(-concrete_dim(self.work, sizes) // self.share)


def refused(op: Op) -> str | None:
    """Why there is no kernel for ``op``, or None."""
    if op.name in STEPS or op.spec is FUSED:
        return None
    if op.name in _LIBRARY:
        return "left to cuBLAS and cuDNN"
    if not isinstance(op.spec, Primitive) or op.name in _SERIAL:
        return "no kernel for CUDA takes it"
    return None


def kernel_of(op: Op) -> CudaKernel:
    """The kernel for ``op``, which is not :func:`refused`."""
    types = [value.type for value in (*op.inputs, *op.outputs)]
    symbols = tuple(sorted({s for kind in types for dim in kind.shape if isinstance(dim, SymDim) for s in dim.symbols}))
    key = f"{op.name}({', '.join(map(str, types))}) {{{op.attrs}}}"
    nest = None if op.name in STEPS else loop_nest(steps_of(op))
    if nest is None:
        work, share = size(op.inputs[0].shape[: op.attrs["front"]]), 1
    elif nest.reduction:
        work, share = size([nest.extents[axis] for axis in _kept(nest)]), 1
    else:
        work, share = size(nest.extents), THREADS

    def build() -> Any:
        grid = Grid()
        frame = Frame(grid.t, types, symbols)
        if nest is None:
            return STEPS[op.name](grid, frame, op)
        return (_reduced if nest.reduction else _elementwise)(grid, frame, nest)

    return CudaKernel(key, symbols, work, share, build)


def _kept(nest: LoopNest) -> list[int]:
    return [axis for axis in range(len(nest.extents)) if axis not in nest.reduced]


def _parameters(frame: Frame) -> list[Any]:
    return [*frame.pointers, *frame.sizes.values()]


def _in_memory(frame: Frame, value: Any, dtype: DType) -> Any:
    t = frame.t
    return t.select(value, t.number(1, "int8"), t.number(0, "int8")) if dtype is DType.BOOL else value


def _elementwise(grid: Grid, frame: Frame, nest: LoopNest) -> Any:
    t = frame.t
    total = grid_size(frame, nest.extents)

    def body(block: Any, thread: Any) -> Any:
        number = block * t.int(THREADS) + thread
        axes = places(frame, number, nest.extents)
        statements, value = element(frame, nest, axes)
        value = _in_memory(frame, value, nest.code[-1].dtype)
        store = t.store(frame.buffers[-1], frame.index(nest.store, axes), value)
        return declared(frame, t.when(t.t.LT(number, total), t.seq(*statements, store)))

    blocks = t.t.truncdiv(total + t.int(THREADS - 1), t.int(THREADS))
    return grid.kernel(_parameters(frame), blocks, THREADS, body)


def _reduced(grid: Grid, frame: Frame, nest: LoopNest) -> Any:
    t, dtype = frame.t, nest.code[-1].dtype
    kept, over = _kept(nest), sorted(nest.reduced)
    rows, columns = ([nest.extents[axis] for axis in axes] for axes in (kept, over))

    def body(block: Any, thread: Any) -> Any:
        axes: list[Any] = [None] * len(nest.extents)
        for axis, place in zip(kept, places(frame, block, rows), strict=True):
            axes[axis] = place

        def sweep(add: Callable[[Any], Any]) -> Any:
            def one(number: Any) -> Any:
                for axis, place in zip(over, places(frame, number, columns), strict=True):
                    axes[axis] = place
                statements, value = element(frame, nest, axes)
                return t.seq(*statements, add(_in_memory(frame, value, dtype)))

            return strided(grid, thread, grid_size(frame, columns), one)

        def write(total: Any) -> Any:
            return t.store(frame.buffers[-1], frame.index(nest.store, axes), total)

        return declared(frame, joined(grid, thread, dtype, nest.reduction, sweep, write))

    return grid.kernel(_parameters(frame), grid_size(frame, rows), THREADS, body)


# -- rows of linear bounds through the lines of an activation ---------------------------------------------------------


def _backsubstitute(grid: Grid, frame: Frame, op: Op) -> Any:
    """(A, lower slope, lower bias, upper slope, upper bias) to (A+ ls + A- us, sum A+ lb + A- ub), in one pass.

    A row of A is read once, by one block. Without a lower bias (relu) that is zero.
    """
    t, front = frame.t, op.attrs["front"]
    dtype, shape = op.inputs[0].type.dtype, op.inputs[0].shape
    lower = ("lower_slope", "lower_bias") if len(op.inputs) == 5 else ("lower_slope",)
    names = ("rows", *lower, "upper_slope", "upper_bias")
    kinds: dict[str, TensorType] = {name: value.type for name, value in zip(names, op.inputs, strict=True)}
    buffers = dict(zip((*names, "through", "bias"), frame.buffers, strict=True))
    zero = t.number(0.0, str(dtype))

    def body(block: Any, thread: Any) -> Any:
        at_front = places(frame, block, shape[:front])

        def sweep(add: Callable[[Any], Any]) -> Any:
            def one(column: Any) -> Any:
                axes = [*at_front, *places(frame, column, shape[front:])]
                where = {name: _address(frame, axes, kind.shape) for name, kind in kinds.items()}
                seen = {name: t.var(name, str(dtype)) for name in kinds}
                loads = [t.bind(seen[name], t.load(buffers[name], where[name])) for name in kinds]
                a = seen["rows"]
                # as maximum(A, 0) and minimum(A, 0) do: NaN stays NaN
                above, below = (t.select(t.t.Or(test(a, zero), t.t.isnan(a)), a, zero) for test in (t.t.GT, t.t.LT))
                through = above * seen["lower_slope"] + below * seen["upper_slope"]
                term = below * seen["upper_bias"]
                if "lower_bias" in seen:
                    term = above * seen["lower_bias"] + term
                return t.seq(*loads, t.store(buffers["through"], where["rows"], through), add(term))

            return strided(grid, thread, grid_size(frame, shape[front:]), one)

        return declared(
            frame,
            joined(grid, thread, dtype, "reduce_sum", sweep, lambda total: t.store(buffers["bias"], block, total)),
        )

    return grid.kernel(_parameters(frame), grid_size(frame, shape[:front]), THREADS, body)


def _address(frame: Frame, axes: Sequence[Any], shape: Shape) -> Any:
    """Where the element at ``axes`` lies in an array of ``shape``, which is broadcast to theirs."""
    total = frame.t.int(0)
    for place, (axis, dim) in enumerate(zip(axes[len(axes) - len(shape) :], shape, strict=True)):
        if dim != 1:
            total = total + axis * frame.dim(size(shape[place + 1 :]))
    return total


STEPS: Mapping[str, Callable[[Grid, Frame, Op], Any]] = {
    "backsubstitute": _backsubstitute,
    "relu_backsubstitute": _backsubstitute,
}
"""Kernels of composites of others, by name."""
