"""Loops: nothing is stale, nothing that stays is computed twice, and no step differs from a call of its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.errors import InputError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import BoundProgram
from boundflow_core.testing.programs import B, programs

from .loops import check_loop_against_calls, runner_of

VARYING = st.sampled_from(
    [("split",), ("region",), ("split", "spec"), ("region", "split"), ("region", "split", "spec")]
)
PICKS = st.lists(st.integers(0, 1000), min_size=1, max_size=4)


@settings(max_examples=300, deadline=None)
@given(programs, st.sampled_from([(1, 1), (2, 3)]), VARYING, PICKS, st.integers(0, 3))
def test_steps_are_calls(
    program: BoundProgram, counts: tuple[int, int], varying: tuple[str, ...], picks: list[int], carry: int
) -> None:
    sizes = dict(zip(("B", "S"), counts, strict=True))
    sizes = {symbol: sizes[symbol] for symbol in program.symbols()}
    check_loop_against_calls(program, "reference", sizes, varying, picks, carry)


@pytest.mark.parametrize("planning", [{"one_task": True}, {"reuse": False}, {"memory_limit": 700}])
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1))
def test_however_it_is_planned(planning: dict[str, object], carry: int) -> None:
    program = counting()
    check_loop_against_calls(program, "reference", {"B": 3}, ("state",), [7, 3, 5], carry, **planning)


def counting() -> BoundProgram:
    """Two states that change places, next to work that only the input that stays takes part in."""
    b = Builder()
    x = b.input("x", (B, 4), group="region")
    one, other = b.input("one", (B, 4), group="state"), b.input("other", (B, 4), group="state")
    factor = b.exp(b.tanh(x)) + b.abs(x)
    return b.finish({"total": one * factor - other, "next one": other * 1.0, "next other": one + factor})


def test_what_varies_comes_after_what_stays_however_many_inputs_that_needs() -> None:
    b = Builder()
    x, y, s = (b.input(name, (B, 4), group=name) for name in ("x", "y", "s"))
    # Operations that are rounded correctly: NumPy's exp may depend on where an array lies.
    alone = b.reduce_sum(b.abs(s) * b.sqrt(b.abs(s)), (1,), keepdims=True)
    program = b.finish({"out": b.sqrt(b.abs(x + y)) + alone, "next": s + alone})
    check_loop_against_calls(program, "reference", {"B": 2}, ("s",), [1], 0)
    check_loop_against_calls(program, "reference", {"B": 2}, ("s",), [2], 1)


SWAP = {"next one": "one", "next other": "other"}


def test_what_stays_is_computed_once() -> None:
    program = counting()
    runner = runner_of(program, "reference", ("state",))
    numbers = np.random.default_rng(0)
    arrays = {value.name: numbers.normal(size=(2, 4)) for value in program.inputs}
    with runner.loop(arrays, SWAP) as loop:
        tasks = []
        for _ in range(3):
            before = runner._stats.tasks_run
            loop.step({})
            tasks.append(runner._stats.tasks_run - before)
    assert tasks[0] > tasks[1] == tasks[2] > 0
    assert runner._stats.tasks_skipped == 2 * (tasks[0] - tasks[1])


def test_two_loops_at_once_do_not_meet() -> None:
    program = counting()
    runner, plain = runner_of(program, "reference", ("state",)), runner_of(program, "reference", ())
    numbers = np.random.default_rng(0)
    first, second = ({v.name: numbers.normal(size=(2, 4)) for v in program.inputs} for _ in range(2))
    with runner.loop(first, SWAP) as one, runner.loop(second, SWAP) as other:
        for _ in range(3):
            runner(second)  # nor does a call in between
            for loop, inputs in ((one, first), (other, second)):
                expected = plain(inputs)
                np.testing.assert_array_equal(loop.step({})["total"], expected["total"])
                inputs.update({name: expected[result] for result, name in SWAP.items()})
    assert len(runner._schedules) == 1


def test_loops_refuse_what_does_not_fit() -> None:
    program = counting()
    runner = runner_of(program, "reference", ("state",))
    arrays = {value.name: np.ones((2, 4)) for value in program.inputs}
    for inputs, carried, message in (
        ({"x": arrays["x"]}, SWAP, "needs the inputs"),
        ({"one": arrays["one"], "other": arrays["other"]}, SWAP, "needs the inputs"),
        (arrays, {"total": "x"}, "no input of"),
        (arrays, {"nothing": "one"}, "no result"),
        ({**arrays, "x": np.ones((3, 4))}, SWAP, "must have shape"),
    ):
        with pytest.raises(InputError, match=message):
            runner.loop(inputs, carried)
    with runner.loop(arrays, {"next one": "one"}) as loop:
        for step in ({}, {"other": np.ones((1, 4))}, {"one": np.ones((2, 4)), "other": np.ones((2, 4))}):
            with pytest.raises(InputError, match="a step takes"):
                loop.step(step)
