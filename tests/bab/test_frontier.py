"""Queues by worst bound: the same items in the same order, whether all of them fit into memory or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_bab.frontier import Boxes, Frontier


def boxes(bounds):
    bounds = np.asarray(bounds, dtype=np.float64)
    return Boxes(bounds, np.stack([bounds, bounds + 1], axis=1), np.stack([bounds + 2, bounds + 3], axis=1))


ITEM = boxes([0.0])
BYTES = sum(array.nbytes for array in ITEM.arrays)

STEPS = st.lists(
    st.one_of(
        st.lists(st.integers(-50, 50), min_size=0, max_size=12).map(lambda found: ("add", found)),
        st.integers(1, 9).map(lambda count: ("take", count)),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, limit=st.integers(1, 12))
def test_spilled_or_not_the_worst_come_first(steps, limit):
    queue, waiting = Frontier(boxes([])), []
    small = Frontier(boxes([]), limit=limit * BYTES)
    for kind, what in steps:
        if kind == "add":
            for one in (queue, small):
                one.add(boxes(what))
            waiting += [float(bound) for bound in what]
        elif waiting:
            found, other = queue.take(what), small.take(what)
            waiting.sort()
            expected, waiting = waiting[:what], waiting[what:]
            for items in (found, other):
                assert sorted(items.bound) == expected
                np.testing.assert_array_equal(items.lower[:, 1], items.bound + 1)
                np.testing.assert_array_equal(items.upper[:, 1], items.bound + 3)
        assert len(queue) == len(small) == len(waiting)
        if waiting:
            assert queue.worst == small.worst == min(waiting)
            np.testing.assert_array_equal(small.distinct("bound"), np.unique(waiting))
        assert kind == "take" or len(small) - small.spilled <= limit
    assert sorted(small.held.bound) == sorted(waiting) and small.spilled == 0


def test_what_does_not_fit_is_on_disk_until_it_is_its_turn():
    queue = Frontier(boxes([]), limit=10 * BYTES)
    for start in range(0, 100, 5):
        queue.add(boxes(np.arange(start, start + 5)))
    assert len(queue) == 100 and queue.spilled >= 90
    assert queue.take(3).bound.tolist() == [0, 1, 2] and queue.spilled >= 90
    assert sorted(queue.take(97).bound) == list(range(3, 100)) and queue.spilled == 0


def test_files_are_closed_once_they_are_read():
    queue = Frontier(boxes([]), limit=2 * BYTES)
    queue.add(boxes([1.0, 2.0, 3.0, 4.0]))
    (part,) = queue._spilled
    queue.take(4)
    assert part.file.closed


@pytest.mark.parametrize("count", [1, 2, 5])
def test_it_can_run_empty_and_go_on(count):
    queue = Frontier(boxes([]), limit=2 * BYTES)
    queue.add(boxes(np.arange(count)))
    queue.take(count)
    queue.add(boxes([7.0]))
    assert queue.take(4).bound.tolist() == [7.0]
