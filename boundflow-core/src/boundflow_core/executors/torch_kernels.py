"""The primitives in torch: one function from an operation to its callable each, the tables at the bottom.

Kernels of ``INTO`` take ``out=``, memory to write into, which may be the memory of an elementwise operand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F

from boundflow_core.executors.torch_convolution import conv2d, conv2d_input_grad
from boundflow_core.ir.program import Op
from boundflow_core.ir.types import DType

__all__ = ["DTYPES", "INTO", "KERNELS"]

Kernel = Callable[..., torch.Tensor]

DTYPES = {
    DType.FLOAT32: torch.float32,
    DType.FLOAT64: torch.float64,
    DType.INT64: torch.int64,
    DType.BOOL: torch.bool,
}


def _compare(op: Op) -> Kernel:
    relation: Kernel = getattr(torch, op.attrs["relation"])
    return relation


def _sign(op: Op) -> Kernel:
    """torch.sign makes 0 of NaN, which would hide that a bound is undefined.

    To choose element by element costs ten times as much as to clamp, which keeps NaN: half of the largest number,
    multiplied by twice, makes more than 1 of any number above zero.
    """
    large = torch.finfo(DTYPES[op.inputs[0].type.dtype]).max / 2

    def sign(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if out is None:  # gradients may be recorded
            return torch.where(torch.isnan(x), x, torch.sign(x))
        return torch.mul(x, large, out=out).mul_(large).clamp_(-1.0, 1.0)

    return sign


def _pow(op: Op) -> Kernel:
    exponent = op.attrs["exponent"]
    return lambda x, out=None: torch.pow(x, exponent, out=out)


def _cast(op: Op) -> Kernel:
    dtype = DTYPES[DType(op.attrs["dtype"])]
    return lambda x, out=None: x.to(dtype) if out is None else out.copy_(x)


def _matmul(op: Op) -> Kernel:
    a, b = op.attrs["transpose_a"], op.attrs["transpose_b"]
    if a or b:
        return lambda x, y, out=None: torch.matmul(x.mT if a else x, y.mT if b else y, out=out)
    product: Kernel = torch.matmul
    return product


def _conv2d_weight_grad(op: Op) -> Kernel:
    """Torch pads both sides alike, so other borders are added to the input first."""
    stride, dilation, groups = list(op.attrs["stride"]), list(op.attrs["dilation"]), op.attrs["groups"]
    top, left, bottom, right = op.attrs["padding"]
    even = (top, left) == (bottom, right)
    padding = [top, left] if even else [0, 0]

    def weight_grad(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        x = x if even else F.pad(x, (left, right, top, bottom))
        # Its values do not matter, only where and how large a weight would be.
        weight = x.new_empty(1).expand(g.shape[1], x.shape[1] // groups, *op.attrs["kernel_size"])
        backward = torch.ops.aten.convolution_backward
        out: torch.Tensor = backward(
            g, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [False, True, False]
        )[1]
        return out

    return weight_grad


def _max_pool2d(op: Op) -> Kernel:
    kernel, stride, dilation = (list(op.attrs[key]) for key in ("kernel", "stride", "dilation"))
    top, left, bottom, right = op.attrs["padding"]
    if not any(op.attrs["padding"]):
        return lambda x: F.max_pool2d(x, kernel, stride, dilation=dilation)
    border = (left, right, top, bottom)
    return lambda x: F.max_pool2d(F.pad(x, border, value=-torch.inf), kernel, stride, dilation=dilation)


def _reduction(function: Callable[..., torch.Tensor]) -> Callable[[Op], Kernel]:
    def kernel(op: Op) -> Kernel:
        axes, keepdims = list(op.attrs["axes"]), op.attrs["keepdims"]
        if not axes:
            return lambda x, out=None: x.clone() if out is None else out.copy_(x)
        return lambda x, out=None: function(x, dim=axes, keepdim=keepdims, out=out)

    return kernel


def _reshape(op: Op) -> Kernel:
    shape = op.attrs["shape"]

    def reshape(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if out is None:
            return x.reshape(shape)
        out.view(x.shape).copy_(x)
        return out

    return reshape


# Views, but for operands that the plan has no place for: weights that may change.


def _permute(op: Op) -> Kernel:
    axes = op.attrs["axes"]
    return lambda x, out=None: x.permute(axes) if out is None else out.copy_(x.permute(axes))


def _broadcast(op: Op) -> Kernel:
    shape = op.attrs["shape"]
    return lambda x, out=None: x.expand(shape) if out is None else out.copy_(x)


def _slice(op: Op) -> Kernel:
    index = tuple(map(slice, op.attrs["starts"], op.attrs["stops"], op.attrs["steps"]))
    return lambda x, out=None: x[index] if out is None else out.copy_(x[index])


def _concat(op: Op) -> Kernel:
    axis = op.attrs["axis"]
    return lambda *xs, out=None: torch.cat(xs, dim=axis, out=out)


def _pad(op: Op) -> Kernel:
    sides = [side for pair in zip(reversed(op.attrs["low"]), reversed(op.attrs["high"]), strict=True) for side in pair]
    value, low = op.attrs["value"], op.attrs["low"]

    def pad(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if out is None:
            return F.pad(x, sides, value=value)
        out.fill_(value)
        out[tuple(slice(first, first + dim) for first, dim in zip(low, x.shape, strict=True))].copy_(x)
        return out

    return pad


def _gather_rows(op: Op) -> Kernel:
    axis = op.attrs["axis"]
    return lambda x, index, out=None: torch.index_select(x, axis, index, out=out)


def _scatter_rows(op: Op) -> Kernel:
    axis = op.attrs["axis"]

    def scatter(
        base: torch.Tensor, index: torch.Tensor, rows: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        if out is None:
            return base.index_copy(axis, index, rows)
        return out.copy_(base).index_copy_(axis, index, rows)

    return scatter


def _scatter_add_rows(op: Op) -> Kernel:
    axis = op.attrs["axis"]

    def scatter(
        base: torch.Tensor, index: torch.Tensor, rows: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        if out is None:
            return base.index_add(axis, index, rows)
        return out.copy_(base).index_add_(axis, index, rows)

    return scatter


def _row_numbers(op: Op) -> Kernel:
    axis = op.attrs["axis"]

    def row_numbers(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if out is None:
            return torch.arange(x.shape[axis], device=x.device)
        return torch.arange(x.shape[axis], out=out)

    return row_numbers


def _running_count(op: Op) -> Kernel:
    return lambda mask, out=None: torch.cumsum(mask, 0, dtype=torch.int64, out=out)


def _first_reaching(op: Op) -> Kernel:
    last = int(op.inputs[0].shape[0]) - 1  # type: ignore[arg-type]
    return lambda ascending, wanted, out=None: torch.searchsorted(ascending, wanted, out=out).clamp_(max=last)


def _plain(names: Sequence[str]) -> dict[str, Callable[[Op], Kernel]]:
    """Primitives that torch has under the same name, or nearly."""

    def plain(name: str) -> Callable[[Op], Kernel]:
        function: Kernel = getattr(torch, name)
        return lambda op: function

    return {name: plain(name) for name in names}


KERNELS: Mapping[str, Callable[[Op], Kernel]] = {
    **_plain(("add", "sub", "mul", "div", "maximum", "minimum", "neg", "abs", "floor", "exp", "log", "log1p")),
    **_plain(("sqrt", "tanh", "sin", "cos", "sigmoid", "erf", "where")),
    "compare": _compare,
    "sign": _sign,
    "pow": _pow,
    "cast": _cast,
    "matmul": _matmul,
    "conv2d": conv2d,
    "conv2d_input_grad": conv2d_input_grad,
    "conv2d_weight_grad": _conv2d_weight_grad,
    "reduce_sum": _reduction(torch.sum),
    "reduce_max": _reduction(torch.amax),
    "reduce_min": _reduction(torch.amin),
    "max_pool2d": _max_pool2d,
    "reshape": _reshape,
    "permute": _permute,
    "broadcast": _broadcast,
    "slice": _slice,
    "concat": _concat,
    "pad": _pad,
    "gather_rows": _gather_rows,
    "scatter_rows": _scatter_rows,
    "scatter_add_rows": _scatter_add_rows,
    "row_numbers": _row_numbers,
    "running_count": _running_count,
    "first_reaching": _first_reaching,
}

INTO = frozenset(KERNELS) - {"conv2d_weight_grad", "max_pool2d"}
