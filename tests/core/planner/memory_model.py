"""Brute force over bytes: which value each byte of the arena holds at each step, whatever the plan's reasons."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.ir.program import BoundProgram, Op, Primitive, Value
from boundflow_core.ir.types import concrete_dim, concrete_shape
from boundflow_core.planner.storage import StoragePlan

# Layout operations that may be views; whether one is can be seen from whether it has the base of its operand.
LAYOUT = ("reshape", "permute", "broadcast", "slice")


def addresses(value: Value, storage: StoragePlan, sizes: dict[str, int]) -> NDArray[Any]:
    """First byte of each element of a planned value, in its shape."""
    seen, item = storage.views[value], value.type.dtype.itemsize
    at = np.full((), storage.offsets[storage.home[value]] + concrete_dim(seen.offset, sizes) * item)
    shape, strides = concrete_shape(value.shape, sizes), concrete_shape(seen.strides, sizes)
    for dim, stride in zip(shape, strides, strict=True):
        at = at[..., None] + np.arange(dim) * stride * item
    return at


def check_memory(program: BoundProgram, storage: StoragePlan, sizes: dict[str, int]) -> None:
    """Runs through ``program``, marking each byte with who wrote it, and checks that all reads find their own."""
    owner = np.full(storage.arena_bytes, -1)
    names: dict[int, Value] = {}

    def planned(value: Value) -> bool:
        return value in storage.home and storage.offsets[storage.home[value]] >= 0

    def every_byte(value: Value) -> NDArray[Any]:
        at = addresses(value, storage, sizes).ravel()
        return np.unique(at[:, None] + np.arange(value.type.dtype.itemsize))

    def write(value: Value) -> None:
        names[value.id] = value
        assert len(np.unique(addresses(value, storage, sizes))) == addresses(value, storage, sizes).size
        touched = every_byte(value)
        assert touched.size == 0 or (touched.min() >= 0 and touched.max() < storage.arena_bytes), f"{value} leaves it"
        owner[touched] = value.id

    def check_read(value: Value, what: str) -> None:
        if planned(value):
            base = storage.views[value].base
            found = set(owner[every_byte(value)].tolist()) - {base.id}
            assert not found, f"{what} reads {value}, but finds {[names.get(one) for one in found]}"

    for index, offset in enumerate(storage.offsets):
        assert offset < 0 or offset % storage.buffers[index].alignment == 0
    for value in program.inputs:
        write(value)
    for op in program.ops:
        for value in op.inputs:
            check_read(value, str(op))
        (out,) = op.outputs
        if not planned(out):
            continue
        if storage.views[out].base is not out:
            assert op.name in LAYOUT
            continue
        _check_in_place(op, out, storage, sizes, planned)
        write(out)
    for value in program.outputs.values():
        check_read(value, "the caller")


def _check_in_place(op: Op, out: Value, storage: StoragePlan, sizes: dict[str, int], planned: Any) -> None:
    """An operation may write onto an operand only element by element, each onto its own."""
    target = addresses(out, storage, sizes)
    for value in op.inputs:
        if not planned(value):
            continue
        source = addresses(value, storage, sizes)
        item, other = out.type.dtype.itemsize, value.type.dtype.itemsize
        written = np.unique(target.ravel()[:, None] + np.arange(item))
        read = np.unique(source.ravel()[:, None] + np.arange(other))
        if np.intersect1d(written, read).size:
            assert isinstance(op.spec, Primitive) and op.spec.kind == "elementwise", f"{op} overwrites what it reads"
            assert source.shape == target.shape and (source == target).all(), f"{op} overwrites before it has read"
