"""How many looks before a split."""

from __future__ import annotations

from boundflow_bab.looks import FIRST, LEAST, Looks


def test_looks_take_no_longer_than_the_rest_once_a_search_turns_out_long():
    looks = Looks(32)
    for _ in range(4):
        assert looks.number == 32
        looks.took(3.2, 32 * FIRST // 4)
        looks.done(3.2 + 1.05, FIRST // 4)
    # The rest of a split takes ten and a half times as long as a look.
    assert looks.number == 10
    looks.took(1e-6, 100)
    looks.done(1.0, 1)
    assert looks.number == 32
    for _ in range(30):
        looks.took(10.0, 10)
        looks.done(10.0, 1)
    assert looks.number == LEAST


def test_few_looks_stay_few():
    looks = Looks(1)
    looks.done(1.0, 2 * FIRST)
    assert looks.number == 1
    looks = Looks(4)
    looks.took(1.0, 1)
    looks.done(1.0, 2 * FIRST)
    assert looks.number == 4
