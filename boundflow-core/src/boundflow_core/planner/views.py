"""Values that are views of others: how reshapes, permutations, slices and broadcasts lie in the memory they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from boundflow_core.ir.program import Op, Value
from boundflow_core.ir.types import Dim, Shape

__all__ = ["Strided", "contiguous", "is_channels_last", "is_row_major", "row_major", "view_of"]


@dataclass(frozen=True)
class Strided:
    """How a value lies in the memory of ``base``: element ``i`` at ``offset + sum(i * strides)``, in elements."""

    base: Value
    strides: tuple[Dim, ...]
    offset: Dim = 0


@lru_cache(maxsize=4096)
def row_major(shape: Shape) -> tuple[Dim, ...]:
    """Strides of a contiguous array."""
    strides: list[Dim] = []
    step: Dim = 1
    for dim in reversed(shape):
        strides.append(step)
        step = step * dim
    return tuple(reversed(strides))


def contiguous(value: Value) -> Strided:
    """A value with memory of its own."""
    return Strided(value, row_major(value.shape))


def view_of(op: Op, views: Mapping[Value, Strided], *, strided: bool) -> Strided | None:
    """How the result of ``op`` lies in its operand's memory; None where it needs memory of its own.

    Args:
        strided: whether views may have other strides than a contiguous array.
    """
    rule = _RULES.get(op.name)
    source = views.get(op.inputs[0]) if op.inputs else None
    if rule is None or source is None or (op.name != "reshape" and not strided):
        return None
    return rule(op, source)


def _is_row_major(shape: Shape, strides: tuple[Dim, ...]) -> bool:
    """Whether the elements lie in order; an axis of size 1 may have any stride."""
    expected = row_major(shape)
    return strides == expected or all(
        dim == 1 or have == want for dim, have, want in zip(shape, strides, expected, strict=True)
    )


def is_row_major(value: Value, view: Strided) -> bool:
    """Whether the elements of ``value`` lie in order."""
    return _is_row_major(value.shape, view.strides)


def is_channels_last(value: Value, view: Strided) -> bool:
    """Whether the elements of ``value`` [N, C, ...] lie in order with their channels as the last axis."""
    if value.rank < 2:
        return False
    axes = (0, *range(2, value.rank), 1)
    return _is_row_major(tuple(value.shape[a] for a in axes), tuple(view.strides[a] for a in axes))


def _reshape(op: Op, source: Strided) -> Strided | None:
    if not _is_row_major(op.inputs[0].shape, source.strides):
        return None
    return Strided(source.base, row_major(op.outputs[0].shape), source.offset)


def _permute(op: Op, source: Strided) -> Strided:
    return Strided(source.base, tuple(source.strides[axis] for axis in op.attrs["axes"]), source.offset)


def _broadcast(op: Op, source: Strided) -> Strided:
    shape = op.inputs[0].shape
    new = len(op.attrs["shape"]) - len(shape)
    kept = tuple(
        0 if dim == 1 and wide != 1 else stride
        for dim, wide, stride in zip(shape, op.attrs["shape"][new:], source.strides, strict=True)
    )
    return Strided(source.base, (0,) * new + kept, source.offset)


def _slice(op: Op, source: Strided) -> Strided | None:
    offset = source.offset
    for start, stride in zip(op.attrs["starts"], source.strides, strict=True):
        if start == 0 or stride == 0:
            continue
        step = start * stride
        if offset != 0 and not (isinstance(offset, int) and isinstance(step, int)):
            return None  # a sum of different symbols is no dimension
        offset = step if offset == 0 else offset + step
    strides = tuple(stride * step for stride, step in zip(source.strides, op.attrs["steps"], strict=True))
    return Strided(source.base, strides, offset)


_RULES: Mapping[str, Callable[[Op, Strided], Strided | None]] = {
    "reshape": _reshape,
    "permute": _permute,
    "broadcast": _broadcast,
    "slice": _slice,
}
