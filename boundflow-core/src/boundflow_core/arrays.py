"""Arrays of callers, NumPy or torch: recognising them, and casting regions so that they never shrink."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from boundflow_core.errors import InputError
from boundflow_core.ir.constants import as_numpy
from boundflow_core.ir.types import DType, Shape, format_shape
from boundflow_core.regions import Box, LpBall, Region
from boundflow_core.specs import LinearSpec

__all__ = ["ball_arrays", "box_arrays", "concatenate", "device_of", "is_torch", "like", "nonzero", "spec_arrays"]


def is_torch(array: Any) -> bool:
    """Whether ``array`` is a torch tensor; torch is not imported for it."""
    return hasattr(array, "detach")


def like(array: Any, sample: Any) -> Any:
    """``array`` as the kind that ``sample`` is: a torch tensor on its device, or a NumPy array."""
    if is_torch(sample):
        import torch

        return torch.as_tensor(np.array(array) if isinstance(array, np.ndarray) else array, device=sample.device)
    return as_numpy(array)


def device_of(array: Any) -> str:
    """Name of the device that ``array`` lies on; NumPy arrays are on the CPU."""
    return str(array.device) if is_torch(array) else "cpu"


def nonzero(mask: Any) -> tuple[Any, ...]:
    """Indices [R] of the true elements of ``mask``, one vector per axis, of the kind of ``mask``."""
    return tuple(mask.nonzero(as_tuple=True)) if is_torch(mask) else tuple(np.nonzero(mask))


def concatenate(parts: Sequence[Any], axis: int) -> Any:
    """``parts`` joined along ``axis``; a single one is given back as it is."""
    if len(parts) == 1:
        return parts[0]
    if is_torch(parts[0]):
        import torch

        return torch.cat(list(parts), dim=axis)
    return np.concatenate(parts, axis=axis)


def box_arrays(region: Region, dtype: DType, shape: Shape) -> tuple[Any, Any]:
    """Lower and upper corner [B, *shape] of the smallest box of ``dtype`` numbers around ``region``.

    A ball of another norm than infinity is enclosed in its box. Casts round outwards, so the box never loses a point.

    Raises:
        InputError: the region is not made for inputs of ``shape``.
    """
    if isinstance(region, Box):
        lower, upper = _batched(region.lower, shape, "the region"), _batched(region.upper, shape, "the region")
    elif isinstance(region, LpBall):
        center = _batched(region.center, shape, "the region's center")
        center, eps = _wide(center), _radius(region.eps, center)
        lower, upper = _outward_sum(center, -eps, -np.inf), _outward_sum(center, eps, np.inf)
    else:
        raise InputError(f"a region is a Box or an LpBall, not {type(region).__name__}")
    return _cast(lower, dtype, -np.inf), _cast(upper, dtype, np.inf)


def ball_arrays(ball: LpBall, dtype: DType, shape: Shape) -> tuple[Any, Any]:
    """Center [B, *shape] and radius [B], in ``dtype`` numbers, of a ball around ``ball``, whose p is 1 or 2.

    A cast moves the center: the radius grows by the p-norm of that move and is rounded up, so no point is lost.

    Raises:
        InputError: the ball is not made for inputs of ``shape``.
    """
    center = _batched(ball.center, shape, "the region's center")
    with np.errstate(over="ignore"):
        cast = _plain_cast(center, dtype)
    wide = _wide(center)
    radius = _radius(ball.eps, wide).reshape(-1)
    move = _wide(cast) - wide
    norm = _norm_above((move.detach() if is_torch(move) else move).reshape(len(move), -1), ball.p)
    return cast, _cast(_outward_sum(radius, norm, np.inf), dtype, np.inf)


def _norm_above(x: Any, p: float) -> Any:
    """A number [B] not below the p-norm, p = 1 or 2, of each row of ``x`` [B, n], and 0 where the row is."""
    size = abs(x)
    if p == 2:  # by the largest, so that no square overflows or vanishes
        largest = size.max(1).values if is_torch(x) else size.max(1)
        scale = largest + (largest == 0)
        norm = ((size / scale[:, None]) ** 2).sum(1) ** 0.5 * scale
    else:
        norm = size.sum(1)
    # A sum of n terms loses at most n units in the last place, the rest of the formula less than 8.
    return norm * (1 + (x.shape[1] + 8) * float(np.finfo(np.float64).eps))


def spec_arrays(spec: LinearSpec, outputs: int, batch: int, dtype: DType) -> tuple[Any, Any]:
    """``C`` [B or 1, S, n] and ``offset`` [B or 1, S] of a specification for ``outputs`` values and ``batch`` regions.

    Raises:
        InputError: the rows are made for another number of outputs or regions.
    """
    rows = spec.C if is_torch(spec.C) else np.asarray(spec.C)
    if rows.shape[-1] != outputs:
        raise InputError(f"C has rows of {rows.shape[-1]} numbers, but the network has {outputs} outputs")
    rows = rows if len(rows.shape) == 3 else rows[None]
    if rows.shape[0] not in (1, batch):
        raise InputError(f"C is made for {rows.shape[0]} regions, but {batch} were given")
    if spec.offset is None:
        offset = rows[..., 0] * 0 if is_torch(rows) else np.zeros(rows.shape[:-1], rows.dtype)
    else:
        offset = like(spec.offset if is_torch(spec.offset) else np.asarray(spec.offset), rows)
        offset = offset if len(offset.shape) == 2 else offset[None]
        offset = offset + rows[..., 0] * 0
    return _plain_cast(rows, dtype), _plain_cast(offset, dtype)


def _batched(array: Any, shape: Shape, what: str) -> Any:
    array = array if isinstance(array, np.ndarray) or is_torch(array) else np.asarray(array)
    actual = tuple(array.shape)
    if actual == shape:
        return array[None]
    if actual[1:] == shape and actual:
        if actual[0] == 0:
            raise InputError(f"{what} is empty: its batch axis has size 0")
        return array
    raise InputError(
        f"{what} has shape {format_shape(actual)}, but the network takes {format_shape(shape)} "
        f"(one region) or {format_shape(('B', *shape))} (a batch of them)"  # type: ignore[arg-type]
    )


def _radius(eps: Any, center: Any) -> Any:
    """``eps`` as float64 numbers that broadcast against ``center``."""
    if not is_torch(eps):
        eps = np.asarray(eps, dtype=np.float64)
    eps = _wide(like(eps, center))
    if eps.ndim == 1 and eps.shape[0] != center.shape[0]:
        raise InputError(f"eps has {eps.shape[0]} radii, but the regions are {center.shape[0]}")
    return eps.reshape((-1,) + (1,) * (len(center.shape) - 1)) if eps.ndim == 1 else eps


def _wide(array: Any) -> Any:
    return array.double() if is_torch(array) else array.astype(np.float64)


def _plain_cast(array: Any, dtype: DType) -> Any:
    if is_torch(array):
        import torch

        return array.to(getattr(torch, dtype.value))
    return array.astype(dtype.numpy, copy=False)


def _outward_sum(x: Any, y: Any, direction: float) -> Any:
    """``x + y`` in float64, one step towards ``direction`` where rounding went the other way.

    The rounding error is exact by Knuth's TwoSum (The Art of Computer Programming, volume 2, 4.2.2).
    """
    total = x + y
    part = total - x
    error = (x - (total - part)) + (y - part)
    return _moved(total, error < 0 if direction < 0 else error > 0, direction)


def _cast(array: Any, dtype: DType, direction: float) -> Any:
    """``array`` in ``dtype``, each number that the cast moved against ``direction`` pushed one step towards it."""
    if array.dtype == dtype.numpy if isinstance(array, np.ndarray) else str(array.dtype) == f"torch.{dtype.value}":
        return array
    with np.errstate(over="ignore"):
        cast = _plain_cast(array, dtype)
    wide, exact = _wide(cast), _wide(array)
    return _moved(cast, wide > exact if direction < 0 else wide < exact, direction)


def _moved(array: Any, where: Any, direction: float) -> Any:
    """``array`` with the numbers ``where`` pushed to the next one in ``direction``; gradients pass through."""
    if is_torch(array):
        import torch

        if not bool(where.any()):
            return array
        plain = array.detach()
        step = torch.nextafter(plain, plain.new_tensor(direction)) - plain
        return array + torch.where(where, step, 0.0)
    with np.errstate(over="ignore", under="ignore"):
        return np.where(where, np.nextafter(array, array.dtype.type(direction)), array)
