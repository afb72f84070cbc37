"""Forms: values that are rearrangements of others, not yet written, and the algebra of axes that they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Dim, Shape, size

__all__ = ["Form", "axis_order", "groups", "inverse", "reshape_form", "reorder_form", "whole"]


@dataclass(frozen=True)
class Form:
    """The value ``reshape(permute(base, axes), shape)``, where neither is written yet."""

    base: Value
    axes: tuple[int, ...]
    shape: Shape

    @property
    def moved(self) -> bool:
        """Whether elements of ``base`` change their order."""
        return self.axes != tuple(range(len(self.axes)))

    @property
    def trivial(self) -> bool:
        """Whether this is ``base`` itself."""
        return not self.moved and self.shape == self.base.shape

    @property
    def ordered_shape(self) -> Shape:
        """Shape of ``permute(base, axes)``."""
        return tuple(self.base.shape[axis] for axis in self.axes)

    @property
    def pure(self) -> bool:
        """Whether it is a permutation alone."""
        return self.shape == self.ordered_shape


def whole(value: Value) -> Form:
    """``value`` itself as a form."""
    return Form(value, tuple(range(value.rank)), value.shape)


def inverse(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def groups(left: Shape, right: Shape) -> list[tuple[range, range]]:
    """The finest split of two shapes of one size into runs of axes of equal size each.

    A reshape from ``left`` to ``right`` keeps every run's elements to itself. Where a dimension is 0 there is one run.
    """
    everything = [(range(len(left)), range(len(right)))]
    if 0 in left or 0 in right:
        return everything
    before, after = _prefixes(left), _prefixes(right)
    found: list[tuple[range, range]] = []
    i = j = 0
    for stop in range(1, len(left) + 1):
        match = next((k for k in range(j + 1, len(right) + 1) if after[k] == before[stop]), None)
        if match is not None:
            found.append((range(i, stop), range(j, match)))
            i, j = stop, match
    if not found:
        return everything
    # Axes of size 1 may remain at the end.
    (first, second) = found[-1]
    found[-1] = (range(first.start, len(left)), range(second.start, len(right)))
    return found


def _prefixes(shape: Shape) -> list[Dim]:
    return [size(shape[:count]) for count in range(len(shape) + 1)]


def reshape_form(form: Form, shape: Shape) -> Form:
    return Form(form.base, form.axes, shape)


def reorder_form(form: Form, axes: Sequence[int]) -> Form | None:
    """``permute(form, axes)``; None where it tears axes apart that ``form`` has merged."""
    shape = tuple(form.shape[axis] for axis in axes)
    parts = groups(form.ordered_shape, form.shape)
    owner = {axis: number for number, (_, mine) in enumerate(parts) for axis in mine}
    order: list[int] = []
    for axis in axes:
        number = owner[axis]
        if not order or order[-1] != number:
            order.append(number)
    within = [axis for number in order for axis in parts[number][1]] if len(set(order)) == len(order) else None
    if within != list(axes):
        return None
    return Form(form.base, tuple(form.axes[at] for number in order for at in parts[number][0]), shape)


def axis_order(form: Form, axis: int) -> NDArray[np.int64] | None:
    """How ``form`` orders axis ``axis`` where it changes nothing else.

    Returns:
        For each place along that axis of ``reshape(base, form.shape)`` the place of the same element in ``form``. None
        where other elements move, or a dimension is not known.
    """
    ordered = form.ordered_shape
    part = next((part for part in groups(ordered, form.shape) if axis in part[1]), None)
    if part is None or any(form.shape[other] != 1 for other in part[1] if other != axis):
        return None
    inside = part[0]
    local = form.axes[inside.start : inside.stop]
    if any(form.axes[at] != at for at in range(len(form.axes)) if at not in inside) or sorted(local) != list(inside):
        return None
    dims: list[int] = []
    for at in inside:
        dim = ordered[at]
        if not isinstance(dim, int):
            return None
        dims.append(dim)
    back = inverse([at - inside.start for at in local])
    return np.arange(int(np.prod(dims)), dtype=np.int64).reshape(dims).transpose(back).ravel()
