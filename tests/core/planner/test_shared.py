"""Memory that plans share which run in turn."""

from __future__ import annotations

import threading
import time

import numpy as np
from toy import SHAPE, compiled

import boundflow_core as bf
from boundflow_core.planner.shared import SharedMemory, SharedPiece


def test_a_piece_grows_and_those_who_had_less_keep_what_they_have():
    piece, made = SharedPiece(), []

    def allocate(count):
        made.append(count)
        return np.empty(count, np.uint8)

    first, again = piece.take(100, allocate), piece.take(40, allocate)
    more = piece.take(120, allocate)
    assert first is again and more is not first
    assert made == [100, 150] and piece.take(150, allocate) is more


def test_whoever_takes_more_gets_it_while_others_take():
    piece, taking = SharedPiece(), threading.Event()
    piece.take(100, lambda count: np.empty(count, np.uint8))

    def slow(count):
        taking.set()
        time.sleep(0.1)
        return np.empty(count, np.uint8)

    other = threading.Thread(target=lambda: piece.take(1000, slow))
    other.start()
    taking.wait()
    assert len(piece.take(900, slow)) >= 900
    other.join()


def test_there_is_one_piece_for_each_executor_and_device():
    shared = SharedMemory()
    assert shared.on("torch", "cpu") is shared.on("torch", "cpu")
    assert len({id(shared.on(*place)) for place in (("torch", "cpu"), ("torch", "cuda"), ("reference", "cpu"))}) == 3


def boxes(count, seed):
    x = np.random.default_rng(seed).normal(size=(count, *SHAPE))
    return bf.Box(x - 0.1, x + 0.1)


def test_calls_of_any_sizes_in_any_order_give_what_they_give_with_memory_of_their_own():
    shared, own = compiled(share_memory=True), compiled()
    for count, seed in ((3, 0), (64, 1), (3, 2), (1, 3), (64, 4), (200, 5), (3, 0)):
        ours, theirs = shared(boxes(count, seed)), own(boxes(count, seed))
        np.testing.assert_array_equal(ours.lower, theirs.lower)
        np.testing.assert_array_equal(ours.upper, theirs.upper)


def test_threads_take_turns():
    shared, own, wrong = compiled(share_memory=True), compiled(), []

    def work(count):
        for seed in range(40):
            ours, theirs = shared(boxes(count, seed)), own(boxes(count, seed))
            if not (np.array_equal(ours.lower, theirs.lower) and np.array_equal(ours.upper, theirs.upper)):
                wrong.append((count, seed))

    threads = [threading.Thread(target=work, args=(count,)) for count in (300, 301, 302)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
