"""Legal calls of every primitive, drawn by Hypothesis: operands and attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.program import BoundProgram
from boundflow_core.ir.types import DType, SymDim

__all__ = ["CASES", "OF_INDICES", "Case", "conv2d", "floats"]

Array = NDArray[Any]
Shape = tuple[int, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]
Cases = st.SearchStrategy["Case"]


@dataclass(frozen=True)
class Case:
    """One call: ``name(*arrays, **attrs)``."""

    name: str
    arrays: tuple[Array, ...]
    attrs: dict[str, Any]

    def program(self, dtype: DType = DType.FLOAT64, batch: tuple[int, ...] = ()) -> BoundProgram:
        """The call with all operands as inputs; axis 0 of the operands numbered in ``batch`` is the symbol B."""
        b = Builder(dtype)
        values = []
        for i, array in enumerate(self.arrays):
            shape = (SymDim.of("B"), *array.shape[1:]) if i in batch else array.shape
            kind = {"f": dtype, "i": DType.INT64, "b": DType.BOOL}[array.dtype.kind]
            values.append(b.input(f"x{i}", shape, kind))
        return b.finish({"y": b.emit(PRIMITIVES[self.name], *values, **self.attrs)[0]})

    @property
    def inputs(self) -> dict[str, Array]:
        return {f"x{i}": array for i, array in enumerate(self.arrays)}


def floats(shape: Shape, low: float = -4.0, high: float = 4.0) -> st.SearchStrategy[Array]:
    # Multiples of 1/16: exact in float32, and sums and products of few of them too.
    steps = st.integers(int(low * 16), int(high * 16)).map(lambda i: i / 16)
    return hnp.arrays(np.float64, shape, elements=steps)


shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)


@st.composite
def broadcastable(draw: Draw, count: int) -> list[Shape]:
    """Shapes that broadcast together."""
    full = draw(shapes)
    out = []
    for _ in range(count):
        kept = full[draw(st.integers(0, len(full))) :]
        out.append(tuple(1 if draw(st.booleans()) else dim for dim in kept))
    return out


def _unary(name: str, low: float = -4.0, high: float = 4.0, **attributes: st.SearchStrategy[Any]) -> Cases:
    @st.composite
    def cases(draw: Draw) -> Case:
        attrs = {key: draw(values) for key, values in attributes.items()}
        return Case(name, (draw(floats(draw(shapes), low, high)),), attrs)

    return cases()


def _binary(name: str, low: float = -4.0, high: float = 4.0, **attributes: st.SearchStrategy[Any]) -> Cases:
    @st.composite
    def cases(draw: Draw) -> Case:
        one, two = draw(broadcastable(2))
        attrs = {key: draw(values) for key, values in attributes.items()}
        return Case(name, (draw(floats(one)), draw(floats(two, low, high))), attrs)

    return cases()


@st.composite
def _where(draw: Draw) -> Case:
    condition, one, two = draw(broadcastable(3))
    return Case("where", (draw(hnp.arrays(bool, condition)), draw(floats(one)), draw(floats(two))), {})


@st.composite
def _cast(draw: Draw) -> Case:
    x = draw(floats(draw(shapes)))
    source = draw(st.sampled_from([np.float64, np.int64, bool]))
    return Case("cast", (x.astype(source),), {"dtype": draw(st.sampled_from(list(DType)))})


@st.composite
def _matmul(draw: Draw) -> Case:
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    lead = draw(broadcastable(2))
    ta, tb = draw(st.booleans()), draw(st.booleans())
    x = draw(floats((*lead[0], *((k, m) if ta else (m, k)))))
    y = draw(floats((*lead[1], *((n, k) if tb else (k, n)))))
    return Case("matmul", (x, y), {"transpose_a": ta, "transpose_b": tb})


@st.composite
def _window(draw: Draw) -> tuple[Shape, Shape, dict[str, Any]]:
    """Input size and attributes of a sliding window that fits, with asymmetric padding, stride and dilation."""
    kernel = draw(st.tuples(*[st.integers(1, 3)] * 2))
    stride = draw(st.tuples(*[st.integers(1, 3)] * 2))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * 2))
    padding = draw(st.tuples(*[st.integers(0, 2)] * 4))
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    borders = (padding[0] + padding[2], padding[1] + padding[3])
    spatial = tuple(
        draw(st.integers(max(1, span - border), span + 4)) for span, border in zip(spans, borders, strict=True)
    )
    return spatial, kernel, {"stride": stride, "padding": padding, "dilation": dilation}


@st.composite
def conv2d(draw: Draw) -> Case:
    spatial, kernel, attrs = draw(_window())
    groups, each_in, each_out, batch = (draw(st.integers(1, 2)) for _ in range(4))
    x = draw(floats((batch, groups * each_in, *spatial)))
    w = draw(floats((groups * each_out, each_in, *kernel)))
    return Case("conv2d", (x, w), {**attrs, "groups": groups})


@st.composite
def _conv2d_input_grad(draw: Draw) -> Case:
    forward = draw(conv2d())
    x, w = forward.arrays
    g = draw(floats(forward.program().outputs["y"].shape))
    return Case("conv2d_input_grad", (g, w), {**forward.attrs, "input_size": x.shape[2:]})


@st.composite
def _conv2d_weight_grad(draw: Draw) -> Case:
    forward = draw(conv2d())
    x, w = forward.arrays
    g = draw(floats(forward.program().outputs["y"].shape))
    return Case("conv2d_weight_grad", (x, g), {**forward.attrs, "kernel_size": w.shape[2:]})


@st.composite
def _max_pool2d(draw: Draw) -> Case:
    spatial, kernel, attrs = draw(_window())
    x = draw(floats((draw(st.integers(1, 2)), draw(st.integers(1, 2)), *spatial)))
    return Case("max_pool2d", (x,), {**attrs, "kernel": kernel})


def _reduction(name: str) -> Cases:
    @st.composite
    def cases(draw: Draw) -> Case:
        x = draw(floats(draw(shapes)))
        axes = draw(st.lists(st.integers(0, x.ndim - 1), unique=True).map(tuple)) if x.ndim else ()
        return Case(name, (x,), {"axes": axes, "keepdims": draw(st.booleans())})

    return cases()


@st.composite
def _reshape(draw: Draw) -> Case:
    x = draw(floats(draw(shapes)))
    shape = draw(st.permutations([*x.shape, 1]).map(tuple))
    return Case("reshape", (x,), {"shape": draw(st.sampled_from([shape, (x.size,), (1, x.size)]))})


@st.composite
def _permute(draw: Draw) -> Case:
    x = draw(floats(draw(shapes)))
    return Case("permute", (x,), {"axes": tuple(draw(st.permutations(range(x.ndim))))})


@st.composite
def _broadcast(draw: Draw) -> Case:
    (shape,) = draw(broadcastable(1))
    full = tuple(draw(st.integers(0, 3)) if dim == 1 else dim for dim in shape)
    return Case("broadcast", (draw(floats(shape)),), {"shape": (*draw(shapes), *full)})


@st.composite
def _slice(draw: Draw) -> Case:
    x = draw(floats(draw(shapes)))
    starts = tuple(draw(st.integers(0, dim)) for dim in x.shape)
    stops = tuple(draw(st.integers(start, dim)) for start, dim in zip(starts, x.shape, strict=True))
    steps = tuple(draw(st.integers(1, 3)) for _ in x.shape)
    return Case("slice", (x,), {"starts": starts, "stops": stops, "steps": steps})


@st.composite
def _concat(draw: Draw) -> Case:
    shape = draw(shapes.filter(bool))
    axis = draw(st.integers(0, len(shape) - 1))
    parts = [
        draw(floats((*shape[:axis], draw(st.integers(0, 3)), *shape[axis + 1 :])))
        for _ in range(draw(st.integers(1, 3)))
    ]
    return Case("concat", tuple(parts), {"axis": axis})


@st.composite
def _pad(draw: Draw) -> Case:
    x = draw(floats(draw(shapes)))
    low, high = (tuple(draw(st.integers(0, 2)) for _ in x.shape) for _ in range(2))
    return Case("pad", (x,), {"low": low, "high": high, "value": draw(st.sampled_from([0.0, -2.5, float("inf")]))})


@st.composite
def _gather_rows(draw: Draw) -> Case:
    x = draw(floats(draw(shapes.filter(bool))))
    axis = draw(st.integers(0, x.ndim - 1))
    index = draw(hnp.arrays(np.int64, draw(st.integers(0, 4)), elements=st.integers(0, x.shape[axis] - 1)))
    return Case("gather_rows", (x, index), {"axis": axis})


@st.composite
def _scatter_rows(draw: Draw) -> Case:
    x = draw(floats(draw(shapes.filter(bool))))
    axis = draw(st.integers(0, x.ndim - 1))
    index = np.array(draw(st.lists(st.integers(0, x.shape[axis] - 1), unique=True)), dtype=np.int64)
    rows = draw(floats((*x.shape[:axis], len(index), *x.shape[axis + 1 :])))
    return Case("scatter_rows", (x, index, rows), {"axis": axis})


@st.composite
def _scatter_add_rows(draw: Draw) -> Case:
    x = draw(floats(draw(shapes.filter(bool))))
    axis = draw(st.integers(0, x.ndim - 1))
    index = draw(hnp.arrays(np.int64, draw(st.integers(0, 5)), elements=st.integers(0, x.shape[axis] - 1)))
    rows = draw(floats((*x.shape[:axis], len(index), *x.shape[axis + 1 :])))
    return Case("scatter_add_rows", (x, index, rows), {"axis": axis})


@st.composite
def _row_numbers(draw: Draw) -> Case:
    x = draw(floats(draw(shapes.filter(bool))))
    return Case("row_numbers", (x,), {"axis": draw(st.integers(0, x.ndim - 1))})


@st.composite
def _running_count(draw: Draw) -> Case:
    return Case("running_count", (draw(hnp.arrays(np.bool_, draw(st.integers(0, 6)))),), {})


@st.composite
def _first_reaching(draw: Draw) -> Case:
    ascending = np.sort(draw(hnp.arrays(np.int64, draw(st.integers(1, 6)), elements=st.integers(-3, 3))))
    return Case("first_reaching", (ascending, draw(hnp.arrays(np.int64, 4, elements=st.integers(-5, 5)))), {})


# Primitives whose results are whole numbers, whatever the operands.
OF_INDICES = ("row_numbers", "running_count", "first_reaching")

CASES: Mapping[str, Cases] = {
    **{name: _binary(name) for name in ("add", "sub", "mul", "maximum", "minimum")},
    **{name: _unary(name) for name in ("neg", "abs", "sign", "floor", "exp", "tanh", "sin", "cos", "sigmoid", "erf")},
    "div": _binary("div", low=0.5),
    "log": _unary("log", low=0.125),
    "log1p": _unary("log1p", low=-0.875),
    "sqrt": _unary("sqrt", low=0.0),
    "pow": st.one_of(
        _unary("pow", exponent=st.sampled_from([0.0, 1.0, 2.0, 3.0])),
        _unary("pow", low=0.25, exponent=st.sampled_from([-1.0, -2.0, 0.5, 1.5])),
    ),
    "compare": _binary("compare", relation=st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"])),
    "where": _where(),
    "cast": _cast(),
    "matmul": _matmul(),
    "conv2d": conv2d(),
    "conv2d_input_grad": _conv2d_input_grad(),
    "conv2d_weight_grad": _conv2d_weight_grad(),
    "max_pool2d": _max_pool2d(),
    **{name: _reduction(name) for name in ("reduce_sum", "reduce_max", "reduce_min")},
    "reshape": _reshape(),
    "permute": _permute(),
    "broadcast": _broadcast(),
    "slice": _slice(),
    "concat": _concat(),
    "pad": _pad(),
    "gather_rows": _gather_rows(),
    "scatter_rows": _scatter_rows(),
    "scatter_add_rows": _scatter_add_rows(),
    "row_numbers": _row_numbers(),
    "running_count": _running_count(),
    "first_reaching": _first_reaching(),
}
