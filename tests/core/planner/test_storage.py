"""The memory plan: nothing that is still needed is overwritten, by brute force over bytes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.errors import IRError
from boundflow_core.executors import reference
from boundflow_core.executors.workspace import NUMPY_WORKING, TORCH_WORKING, numpy_workspace, torch_workspace
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.program import BoundProgram, Op
from boundflow_core.ir.types import Attrs
from boundflow_core.planner.partition import dependencies, order_by_dependencies
from boundflow_core.planner.storage import MemoryTraits, StoragePlan, _is_free, plan_storage
from boundflow_core.testing.programs import B, programs

from .memory_model import check_memory

EVERYTHING = MemoryTraits(into=frozenset(reference.TRAITS.into | {"conv2d", "conv2d_input_grad", "max_pool2d", "pad"}))
NOTHING = MemoryTraits()
CONTIGUOUS = replace(EVERYTHING, strided=False)
TRAITS = [reference.TRAITS, EVERYTHING, NOTHING, CONTIGUOUS, replace(EVERYTHING, inplace=False)]


def planned(program: BoundProgram, traits: MemoryTraits = reference.TRAITS, *, reuse: bool = True) -> StoragePlan:
    beforehand = frozenset(program.constants) | {v for v, on in dependencies(program).items() if not on}
    return plan_storage(program, beforehand, traits, reuse=reuse).validate()


@settings(max_examples=300)
@given(programs, st.sampled_from(TRAITS), st.booleans(), st.sampled_from([(1, 1), (2, 3), (3, 1)]))
def test_nothing_that_is_needed_is_overwritten(
    program: BoundProgram, traits: MemoryTraits, reuse: bool, counts: tuple[int, int]
) -> None:
    program = order_by_dependencies(program)
    sizes = {"B": counts[0], "S": counts[1]}
    storage = planned(program, traits, reuse=reuse).bind(sizes)
    check_memory(program, storage, sizes)
    assert storage.arena_bytes <= storage.peak_bytes


def test_a_result_is_not_written_onto_what_is_also_read_through_a_slice() -> None:
    b = Builder()
    x = b.input("x", (B, 4))
    y = b.abs(x)
    program = b.finish({"out": b.mul(y, b.slice(y, (0, 0), (B, 1), (1, 1)))})
    check_memory(program, planned(program).bind({"B": 3}), {"B": 3})
    single = Builder()
    y = single.abs(single.input("x", (4,)))
    program = single.finish({"out": single.mul(y, single.slice(y, (0,), (1,), (1,)))})
    check_memory(program, planned(program), {})


def test_overlapping_live_values_are_found() -> None:
    b = Builder()
    x = b.input("x", (B, 4))
    first, second = b.exp(x), b.tanh(x)
    program = b.finish({"out": b.matmul(first, second, transpose_b=True)})
    storage = planned(program, reuse=False)
    where = storage.home[first]
    buffers = list(storage.buffers)
    both = (*buffers[where].alias_group, second)
    buffers[where] = replace(buffers[where], alias_group=both)
    planted = replace(storage, buffers=tuple(buffers), home={**storage.home, second: where})
    with pytest.raises(IRError, match="alive together"):
        planted.validate()
    with pytest.raises(AssertionError):
        check_memory(program, planted.bind({"B": 2}), {"B": 2})


def test_a_value_that_does_not_fit_is_found() -> None:
    b = Builder()
    x = b.input("x", (B, 4))
    out = b.broadcast(b.exp(x), (2, B, 4)) + 1.0
    program = b.finish({"out": out})
    storage = planned(program)
    where = storage.home[out]
    buffers = list(storage.buffers)
    buffers[where] = replace(buffers[where], elements=(4,))
    with pytest.raises(IRError, match="does not fit"):
        replace(storage, buffers=tuple(buffers)).validate()


def test_memory_is_shared_and_written_in_place_where_it_can_be() -> None:
    b = Builder()
    x = b.input("x", (B, 8))
    for _ in range(10):
        x = b.tanh(b.matmul(x, b.constant(np.eye(8))))
    program = b.finish({"out": x})
    shared, alone = planned(program).bind({"B": 8}), planned(program, reuse=False).bind({"B": 8})
    one = 8 * 8 * 8
    # and the copy of the result that the caller gets
    assert (shared.arena_bytes, shared.peak_bytes) == (2 * one, 3 * one)
    assert (alone.arena_bytes, alone.naive_bytes) == (21 * one, 21 * one)


spans = st.tuples(st.integers(-1, 12), st.integers(0, 4)).map(lambda span: (span[0], span[0] + span[1]))


@given(st.lists(spans, max_size=12))
def test_a_buffer_is_free_where_none_of_its_lives_is_met(lives: list[tuple[int, int]]) -> None:
    taken: list[tuple[int, int]] = []
    for start, end in lives:
        free = all(end < first or last < start for first, last in taken)
        assert _is_free(taken, start, end) == free
        if free:
            taken = sorted([*taken, (start, end)])


def test_only_operations_that_take_workspace_are_asked_for_it() -> None:
    b = Builder()
    x = b.input("x", (B, 4))
    program = b.finish({"out": b.tanh(b.exp(x))})
    asked: list[str] = []

    def workspace(op: Op, sizes: object, operands: object) -> int:
        asked.append(op.name)
        return 100

    peaks = {}
    for working in (None, frozenset({"tanh"}), frozenset[str]()):
        traits = MemoryTraits(into=frozenset({"exp", "tanh"}), workspace=workspace, working=working)
        asked.clear()
        peaks[working] = planned(program, traits).bind({"B": 1}).peak_bytes
        assert set(asked) == ({"exp", "tanh"} if working is None else working)
    assert peaks[None] == peaks[frozenset({"tanh"})] > peaks[frozenset()]


@pytest.mark.parametrize("working", [NUMPY_WORKING, TORCH_WORKING])
def test_kernels_that_are_not_asked_take_no_workspace(working: frozenset[str]) -> None:
    ask = numpy_workspace if working is NUMPY_WORKING else partial(torch_workspace, onednn=True)
    b = Builder()
    x = b.input("x", (2, 3))
    for name in PRIMITIVES.keys() - working:
        op = Op(PRIMITIVES[name], (x,), (x,), Attrs())
        assert ask(op, {}, ()) == 0
