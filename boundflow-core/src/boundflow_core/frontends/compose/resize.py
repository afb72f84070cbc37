"""Resampling along axes, which is linear in the image: a choice of indices (nearest) or a matrix (linear).

Coordinates are ONNX's: https://onnx.ai/onnx/operators/onnx__Resize.html, where a position i of n_out stands for a
position of the n_in source elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.errors import IRError
from boundflow_core.frontends.compose.layout import axis_of, gather, permute
from boundflow_core.ir.primal_builder import Operand, PrimalBuilder

__all__ = ["COORDINATES", "NEAREST", "apply_along", "linear_matrix", "nearest_index", "resize_linear", "resize_nearest"]

Array = NDArray[Any]


def _half_pixel(i: Array, n_in: int, n_out: int, scale: Any) -> Array:
    return np.asarray((i + i.dtype.type(0.5)) / scale - i.dtype.type(0.5))


def _align_corners(i: Array, n_in: int, n_out: int, scale: Any) -> Array:
    return i * 0 if n_out == 1 else np.asarray(i * (n_in - 1) / (n_out - 1), dtype=i.dtype)


def _half_pixel_symmetric(i: Array, n_in: int, n_out: int, scale: Any) -> Array:
    """Half a pixel, about the middle of the image where ``scale * n_in`` is no whole number."""
    offset = n_in / 2 * (1 - n_out / (float(scale) * n_in))
    return np.asarray(offset + _half_pixel(i, n_in, n_out, scale), dtype=i.dtype)


COORDINATES: Mapping[str, Callable[[Array, int, int, Any], Array]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": lambda i, n_in, n_out, scale: i * 0 if n_out == 1 else _half_pixel(i, n_in, n_out, scale),
    "align_corners": _align_corners,
    "asymmetric": lambda i, n_in, n_out, scale: np.asarray(i / scale),
    "tf_half_pixel_for_nn": lambda i, n_in, n_out, scale: np.asarray((i + i.dtype.type(0.5)) / scale),
}

NEAREST: Mapping[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda at: np.ceil(at - at.dtype.type(0.5)),
    "round_prefer_ceil": lambda at: np.floor(at + at.dtype.type(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _positions(n_in: int, n_out: int, scale: float | None, coordinates: str, dtype: type[np.floating[Any]]) -> Array:
    if coordinates not in COORDINATES:
        raise IRError(f"coordinate mode {coordinates!r} is not one of {', '.join(COORDINATES)}")
    factor = dtype(n_out) / dtype(n_in) if scale is None else dtype(scale)
    return COORDINATES[coordinates](np.arange(n_out, dtype=dtype), n_in, n_out, factor)


def nearest_index(
    n_in: int,
    n_out: int,
    scale: float | None = None,
    coordinates: str = "asymmetric",
    nearest: str = "floor",
) -> NDArray[np.int64]:
    """Source element of each of ``n_out`` positions.

    Computed in float32 as runtimes do, since a coordinate that lands on a border decides between two elements.

    Args:
        scale: n_out / n_in where None.
        coordinates, nearest: keys of :data:`COORDINATES` and :data:`NEAREST`. torch's "nearest" is asymmetric and
            floor, its "nearest-exact" half_pixel and round_prefer_ceil.
    """
    if nearest not in NEAREST:
        raise IRError(f"rounding mode {nearest!r} is not one of {', '.join(NEAREST)}")
    at = NEAREST[nearest](_positions(n_in, n_out, scale, coordinates, np.float32))
    return np.clip(at, 0, n_in - 1).astype(np.int64)


def linear_matrix(
    n_in: int, n_out: int, scale: float | None = None, coordinates: str = "half_pixel"
) -> NDArray[np.float64]:
    """Weights [n_out, n_in] of linear interpolation, the border elements going on beyond the border.

    Args:
        scale: n_out / n_in where None.
        coordinates: a key of :data:`COORDINATES`.
    """
    at = np.clip(_positions(n_in, n_out, scale, coordinates, np.float64), 0, n_in - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, n_in - 1)
    matrix = np.zeros((n_out, n_in))
    np.add.at(matrix, (np.arange(n_out), low), 1 - (at - low))
    np.add.at(matrix, (np.arange(n_out), high), at - low)
    return matrix


def apply_along(g: PrimalBuilder, x: Operand, matrix: Array, axis: int) -> Any:
    """``matrix`` [out, in] applied to each line of ``x`` along ``axis``."""
    rank = len(x.shape)
    axis = axis_of(axis, rank)
    order = [*range(axis), *range(axis + 1, rank), axis]
    back = [order.index(place) for place in range(rank)]
    return permute(g, g.op("linear", permute(g, x, order), matrix), back)


def resize_nearest(g: PrimalBuilder, x: Operand, indices: Mapping[int, NDArray[np.int64]]) -> Any:
    """``x`` resampled by an index vector (of :func:`nearest_index`) along each of some axes."""
    for axis, index in indices.items():
        x = gather(g, x, index, axis)
    return x


def resize_linear(g: PrimalBuilder, x: Operand, matrices: Mapping[int, Array]) -> Any:
    """``x`` resampled by a matrix (of :func:`linear_matrix`) along each of some axes."""
    for axis, matrix in matrices.items():
        if matrix.shape[0] != matrix.shape[1] or not np.array_equal(matrix, np.eye(len(matrix))):
            x = apply_along(g, x, matrix, axis)
    return x
