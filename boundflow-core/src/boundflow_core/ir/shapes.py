"""Rules of types of the primitives: one small function each, from operand types and attributes to the output type."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from boundflow_core.errors import IRError
from boundflow_core.ir.types import Attrs, Dim, DType, Shape, TensorType, format_shape, size

Types = Sequence[TensorType]


@lru_cache(maxsize=4096)
def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's broadcasting, where a symbolic dimension equals only itself.

    Raises:
        IRError: two dimensions differ and neither is 1.
    """
    rank = max(len(shape) for shape in shapes)
    out: list[Dim] = []
    for axis in range(-rank, 0):
        dims = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(dims) > 1:
            raise IRError(f"shapes {' and '.join(map(format_shape, shapes))} do not broadcast")
        out.append(dims.pop() if dims else 1)
    return tuple(out)


def _operands(types: Types, count: int) -> Types:
    if len(types) != count:
        raise IRError(f"{count} operands are needed, not {len(types)}")
    return types


def _per_axis(kind: TensorType, *lists: Sequence[Dim]) -> None:
    if any(len(items) != kind.rank for items in lists):
        raise IRError(f"one number an axis is needed for {kind}")


def _given_shape(attrs: Attrs) -> Shape:
    shape: Shape = attrs["shape"]
    if any(isinstance(dim, int) and dim < 0 for dim in shape):
        raise IRError(f"{format_shape(shape)} has a negative dimension")
    return shape


def _same_dtype(types: Types) -> DType:
    first = types[0].dtype
    if any(kind.dtype is not first for kind in types):
        dtypes = {str(kind.dtype) for kind in types}
        raise IRError(f"operands have different element types: {', '.join(sorted(dtypes))}")
    return first


def _require_float(dtype: DType) -> DType:
    if not dtype.is_float:
        raise IRError(f"a float operand is needed, not {dtype}")
    return dtype


def _require_number(dtype: DType) -> DType:
    if dtype is DType.BOOL:
        raise IRError("operands must be numbers, not bool")
    return dtype


def _axis(axis: int, rank: int) -> int:
    if not 0 <= axis < rank:
        raise IRError(f"axis {axis} is outside 0..{rank - 1}")
    return axis


def _dims(kind: TensorType, rank: int, what: str) -> Shape:
    if kind.rank != rank:
        raise IRError(f"{what} must have {rank} axes, not {format_shape(kind.shape)}")
    return kind.shape


def _int(dim: Dim, what: str) -> int:
    if not isinstance(dim, int):
        raise IRError(f"{what} must be known, not {dim}")
    return dim


def unary(types: Types, attrs: Attrs) -> TensorType:
    (x,) = _operands(types, 1)
    return TensorType(_require_float(x.dtype), x.shape)


def binary(types: Types, attrs: Attrs) -> TensorType:
    x, y = _operands(types, 2)
    return TensorType(_same_dtype(types), x.shape if x.shape == y.shape else broadcast_shapes(x.shape, y.shape))


def arithmetic(types: Types, attrs: Attrs) -> TensorType:
    """Of numbers: what booleans give differs between frameworks."""
    out = binary(types, attrs)
    return TensorType(_require_number(out.dtype), out.shape)


def quotient(types: Types, attrs: Attrs) -> TensorType:
    out = binary(types, attrs)
    return TensorType(_require_float(out.dtype), out.shape)


def compare(types: Types, attrs: Attrs) -> TensorType:
    if attrs["relation"] not in ("lt", "le", "gt", "ge", "eq", "ne"):
        raise IRError(f"unknown relation {attrs['relation']!r}")
    return TensorType(DType.BOOL, binary(types, attrs).shape)


def where(types: Types, attrs: Attrs) -> TensorType:
    condition, x, y = _operands(types, 3)
    if condition.dtype is not DType.BOOL:
        raise IRError(f"the condition must be bool, not {condition.dtype}")
    return TensorType(_same_dtype((x, y)), broadcast_shapes(condition.shape, x.shape, y.shape))


def cast(types: Types, attrs: Attrs) -> TensorType:
    (x,) = _operands(types, 1)
    if attrs["dtype"] not in list(DType):
        raise IRError(f"unknown element type {attrs['dtype']!r}")
    return TensorType(DType(attrs["dtype"]), x.shape)


def matmul(types: Types, attrs: Attrs) -> TensorType:
    x, y = _operands(types, 2)
    if x.rank < 2 or y.rank < 2:
        raise IRError("matmul takes operands of two axes or more")
    m, k = (x.shape[-1], x.shape[-2]) if attrs["transpose_a"] else x.shape[-2:]
    k2, n = (y.shape[-1], y.shape[-2]) if attrs["transpose_b"] else y.shape[-2:]
    if k != k2:
        raise IRError(f"matmul contracts {k} against {k2} ({format_shape(x.shape)} by {format_shape(y.shape)})")
    lead = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return TensorType(_require_float(_same_dtype(types)), (*lead, m, n))


def window_output(size_in: int, kernel: int, stride: int, low: int, high: int, dilation: int) -> int:
    """Number of positions of a sliding window along one axis."""
    if min(kernel, stride, dilation) < 1 or min(low, high) < 0:
        raise IRError(
            f"a window has kernel, stride and dilation of at least 1 and no negative padding, "
            f"not {kernel}, {stride}, {dilation} and {low}, {high}"
        )
    count = (size_in + low + high - dilation * (kernel - 1) - 1) // stride + 1
    if count < 1:
        raise IRError(f"a window of {kernel} (dilation {dilation}) does not fit into {size_in} + {low} + {high}")
    return count


def _conv_geometry(attrs: Attrs) -> tuple[tuple[int, int, int, int], ...]:
    top, left, bottom, right = attrs["padding"]
    return tuple(
        (attrs["stride"][axis], low, high, attrs["dilation"][axis])
        for axis, (low, high) in enumerate(((top, bottom), (left, right)))
    )


def conv2d(types: Types, attrs: Attrs) -> TensorType:
    x, w = _operands(types, 2)
    n, c, *spatial = _dims(x, 4, "the input")
    out, c_group, *kernel = _dims(w, 4, "the weight")
    if attrs["groups"] < 1:
        raise IRError(f"the number of groups must be positive, not {attrs['groups']}")
    if _int(c, "channels") != _int(c_group, "channels") * attrs["groups"] or _int(out, "channels") % attrs["groups"]:
        raise IRError(f"channels do not match: {x} by {w} in {attrs['groups']} groups")
    positions = [
        window_output(_int(s, "height and width"), _int(k, "kernel"), stride, low, high, dilation)
        for s, k, (stride, low, high, dilation) in zip(spatial, kernel, _conv_geometry(attrs), strict=True)
    ]
    return TensorType(_require_float(_same_dtype(types)), (n, out, *positions))


def conv2d_input_grad(types: Types, attrs: Attrs) -> TensorType:
    g, w = _operands(types, 2)
    n = _dims(g, 4, "the gradient")[0]
    _, c_group, _, _ = _dims(w, 4, "the weight")
    out = TensorType(g.dtype, (n, _int(c_group, "channels") * attrs["groups"], *attrs["input_size"]))
    if conv2d((out, w), attrs).shape != g.shape:
        raise IRError(f"{g} is no gradient of a convolution from {out} by {w}")
    return TensorType(_require_float(_same_dtype(types)), out.shape)


def conv2d_weight_grad(types: Types, attrs: Attrs) -> TensorType:
    x, g = _operands(types, 2)
    channels, outputs = _dims(x, 4, "the input")[1], _dims(g, 4, "the gradient")[1]
    if attrs["groups"] < 1:
        raise IRError(f"the number of groups must be positive, not {attrs['groups']}")
    out = TensorType(g.dtype, (outputs, _int(channels, "channels") // attrs["groups"], *attrs["kernel_size"]))
    if conv2d((x, out), attrs).shape != g.shape:
        raise IRError(f"{g} is no gradient of a convolution from {x} by {out}")
    return TensorType(_require_float(_same_dtype(types)), out.shape)


def max_pool2d(types: Types, attrs: Attrs) -> TensorType:
    (x,) = _operands(types, 1)
    n, c, *spatial = _dims(x, 4, "the input")
    positions = [
        window_output(_int(s, "height and width"), k, stride, low, high, dilation)
        for s, k, (stride, low, high, dilation) in zip(spatial, attrs["kernel"], _conv_geometry(attrs), strict=True)
    ]
    return TensorType(_require_float(x.dtype), (n, c, *positions))


def reduce(types: Types, attrs: Attrs) -> TensorType:
    (x,) = _operands(types, 1)
    axes = {_axis(axis, x.rank) for axis in attrs["axes"]}
    if len(axes) != len(attrs["axes"]):
        raise IRError(f"axes {attrs['axes']} name an axis twice")
    if attrs["keepdims"]:
        shape: Shape = tuple(1 if axis in axes else dim for axis, dim in enumerate(x.shape))
    else:
        shape = tuple(dim for axis, dim in enumerate(x.shape) if axis not in axes)
    return TensorType(x.dtype, shape)


def reduce_sum(types: Types, attrs: Attrs) -> TensorType:
    out = reduce(types, attrs)
    return TensorType(_require_number(out.dtype), out.shape)


def extremum(types: Types, attrs: Attrs) -> TensorType:
    out = reduce(types, attrs)
    if any(types[0].shape[axis] == 0 for axis in attrs["axes"]):
        raise IRError(f"{types[0]} has no largest or smallest element along axes {attrs['axes']}")
    return out


def reshape(types: Types, attrs: Attrs) -> TensorType:
    (x,) = _operands(types, 1)
    shape = _given_shape(attrs)
    if size(x.shape) != size(shape):
        raise IRError(f"{format_shape(x.shape)} cannot be reshaped to {format_shape(shape)}")
    return TensorType(x.dtype, shape)


def permute(types: Types, attrs: Attrs) -> TensorType:
    (x,) = _operands(types, 1)
    if sorted(attrs["axes"]) != list(range(x.rank)):
        raise IRError(f"{attrs['axes']} is no permutation of {x.rank} axes")
    return TensorType(x.dtype, tuple(x.shape[axis] for axis in attrs["axes"]))


def broadcast(types: Types, attrs: Attrs) -> TensorType:
    (x,) = _operands(types, 1)
    shape = _given_shape(attrs)
    if broadcast_shapes(x.shape, shape) != shape:
        raise IRError(f"{format_shape(x.shape)} does not broadcast to {format_shape(shape)}")
    return TensorType(x.dtype, shape)


def slice_(types: Types, attrs: Attrs) -> TensorType:
    (x,) = _operands(types, 1)
    _per_axis(x, attrs["starts"], attrs["stops"], attrs["steps"])
    out: list[Dim] = []
    for dim, start, stop, step in zip(x.shape, attrs["starts"], attrs["stops"], attrs["steps"], strict=True):
        if (start, stop, step) == (0, dim, 1):
            out.append(dim)
        elif isinstance(dim, int) and 0 <= start <= stop <= dim and step > 0:
            out.append(len(range(start, stop, step)))
        elif _is_multiple(dim, start) and _is_multiple(dim, stop) and step == 1:
            out.append(_difference(stop, start))
        else:
            raise IRError(f"slice {start}:{stop}:{step} is outside a dimension of {dim}")
    return TensorType(x.dtype, tuple(out))


def _is_multiple(dim: Dim, part: Dim) -> bool:
    """Whether ``part`` is a multiple, by an integer, of the symbols of ``dim``, and no larger."""
    if isinstance(dim, int):
        return False
    if isinstance(part, int):
        return part == 0
    return part.symbols == dim.symbols and 0 <= part.coefficient <= dim.coefficient


def _difference(stop: Dim, start: Dim) -> Dim:
    return stop if start == 0 else stop + (-1) * start


def concat(types: Types, attrs: Attrs) -> TensorType:
    if not types:
        raise IRError("nothing to join")
    axis = _axis(attrs["axis"], types[0].rank)
    rests = {kind.shape[:axis] + kind.shape[axis + 1 :] for kind in types}
    if len(rests) != 1 or len({kind.rank for kind in types}) != 1:
        raise IRError(f"{' and '.join(map(str, types))} cannot be joined along axis {axis}")
    total: Dim = types[0].shape[axis]
    for kind in types[1:]:
        total = total + kind.shape[axis]
    shape = types[0].shape
    return TensorType(_same_dtype(types), (*shape[:axis], total, *shape[axis + 1 :]))


def pad(types: Types, attrs: Attrs) -> TensorType:
    (x,) = _operands(types, 1)
    _per_axis(x, attrs["low"], attrs["high"])
    out = [
        dim if low == high == 0 else _int(dim, "a padded dimension") + low + high
        for dim, low, high in zip(x.shape, attrs["low"], attrs["high"], strict=True)
    ]
    if any(side < 0 for side in (*attrs["low"], *attrs["high"])):
        raise IRError("padding is never negative; use slice")
    return TensorType(x.dtype, tuple(out))


def _indices(kind: TensorType) -> Dim:
    if kind.dtype is not DType.INT64 or kind.rank != 1:
        raise IRError(f"indices must be one axis of int64, not {kind}")
    return kind.shape[0]


def gather_rows(types: Types, attrs: Attrs) -> TensorType:
    x, index = _operands(types, 2)
    axis = _axis(attrs["axis"], x.rank)
    return TensorType(x.dtype, (*x.shape[:axis], _indices(index), *x.shape[axis + 1 :]))


def scatter_rows(types: Types, attrs: Attrs) -> TensorType:
    base, index, rows = _operands(types, 3)
    axis = _axis(attrs["axis"], base.rank)
    expected = (*base.shape[:axis], _indices(index), *base.shape[axis + 1 :])
    if rows.shape != expected:
        raise IRError(f"rows must have shape {format_shape(expected)}, not {format_shape(rows.shape)}")
    return TensorType(_same_dtype((base, rows)), base.shape)


def scatter_add_rows(types: Types, attrs: Attrs) -> TensorType:
    out = scatter_rows(types, attrs)
    return TensorType(_require_number(out.dtype), out.shape)


def row_numbers(types: Types, attrs: Attrs) -> TensorType:
    (x,) = _operands(types, 1)
    return TensorType(DType.INT64, (x.shape[_axis(attrs["axis"], x.rank)],))


def running_count(types: Types, attrs: Attrs) -> TensorType:
    (mask,) = _operands(types, 1)
    if mask.dtype is not DType.BOOL or mask.rank != 1:
        raise IRError(f"a vector of booleans is needed, not {mask}")
    return TensorType(DType.INT64, mask.shape)


def first_reaching(types: Types, attrs: Attrs) -> TensorType:
    ascending, wanted = _operands(types, 2)
    if _indices(ascending) == 0:
        raise IRError(f"{ascending} has no place to name")
    return TensorType(DType.INT64, (_indices(wanted),))
