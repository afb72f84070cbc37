"""Plans run as the interpreter does, whatever memory, tasks and cache the plan makes use of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.cache import BoundCache
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.program import BoundProgram
from boundflow_core.testing.programs import B, inputs_for, live, programs

from ..running import Array, assert_equal, run, run_once, schedule

SIZES = st.sampled_from([{"B": 1, "S": 1}, {"B": 2, "S": 3}, {"B": 3, "S": 1}])


@settings(max_examples=250)
@given(programs, SIZES, st.booleans(), st.booleans(), st.booleans())
def test_random_programs_run_as_the_interpreter_runs_them(
    program: BoundProgram, sizes: dict[str, int], reuse: bool, one_task: bool, cached: bool
) -> None:
    inputs = inputs_for(program, sizes)
    before = {name: array.copy() for name, array in inputs.items()}
    sizes = {symbol: sizes[symbol] for symbol in program.symbols()}
    cache = BoundCache() if cached else None
    made = schedule(program, sizes, reuse=reuse, one_task=one_task, cache=cache)
    first = run(made, inputs)
    # Sums of arrays that lie otherwise in memory are rounded otherwise, so not bit for bit.
    assert_equal(first, evaluate(program, inputs), rtol=1e-12)
    kept = {name: array.copy() for name, array in first.items()}
    for array in first.values():
        assert array.flags.writeable
        array[...] = 0
    other = run(made, inputs_for(program, sizes, seed=1))
    assert_equal(other, evaluate(program, inputs_for(program, sizes, seed=1)), rtol=1e-12)
    assert_equal(run(made, inputs), kept)
    assert_equal(inputs, before)


@settings(max_examples=100)
@given(programs, SIZES)
def test_all_plans_give_the_same_bits(program: BoundProgram, sizes: dict[str, int]) -> None:
    inputs = inputs_for(program, sizes)
    plain = run_once(program, inputs, "reference", reuse=False, one_task=True)
    for reuse in (False, True):
        for one_task in (False, True):
            got = run_once(program, inputs, "reference", reuse=reuse, one_task=one_task, cache=BoundCache())
            assert_equal(got, plain)


@settings(max_examples=150)
@given(programs, SIZES, st.lists(st.sampled_from(["x", "y", "alpha", "C"]), min_size=1, max_size=4), st.booleans())
def test_calls_that_share_some_inputs_give_the_same_bits_as_without_a_cache(
    program: BoundProgram, sizes: dict[str, int], changes: list[str], one_task: bool
) -> None:
    sizes = {symbol: sizes[symbol] for symbol in program.symbols()}
    cached = schedule(program, sizes, cache=BoundCache(), one_task=one_task)
    plain = schedule(program, sizes)
    old, new = inputs_for(program, sizes), inputs_for(program, sizes, seed=1)
    calls = [old, *({**old, name: new[name]} for name in changes), old, new]
    for inputs in calls:
        assert_equal(run(cached, inputs), run(plain, inputs))


# -- where nothing, or next to nothing, is to be done -----------------------------------------------------------------


def degenerate() -> dict[str, BoundProgram]:
    def made(write: object) -> BoundProgram:
        b = Builder()
        return b.finish(write(b, b.input("x", (B, 4), group="region")))  # type: ignore[operator]

    weights = np.arange(8.0).reshape(4, 2)
    return {
        "output is input": made(lambda b, x: {"out": x}),
        "output is constant": made(lambda b, x: {"out": b.constant(weights)}),
        "output is weight that may change": made(lambda b, x: {"out": b.constant(live(weights))}),
        "output follows from constants": made(lambda b, x: {"out": b.neg(b.constant(weights)), "x": b.neg(x)}),
        "output depends on the batch alone": made(lambda b, x: {"out": b.broadcast(b.constant(weights), (B, 4, 2))}),
        "output is a view of the input": made(lambda b, x: {"out": b.permute(x, (1, 0))}),
        "one output under two names": made(lambda b, x: {"one": b.exp(x), "two": b.exp(x)}),
        "scalar output": made(lambda b, x: {"out": b.reduce_sum(x, (0, 1))}),
        "views of weights that may change": made(
            lambda b, x: {
                "permuted": b.permute(b.constant(live(weights)), (1, 0)),
                "sliced": b.slice(b.constant(live(weights)), (1, 0), (4, 2), (2, 1)),
                "spread": b.exp(b.broadcast(b.constant(live(weights)), (B, 4, 2))),
                "product": b.matmul(x, b.permute(b.reshape(b.constant(live(weights)), (2, 4)), (1, 0))),
            }
        ),
        "spread input": made(
            lambda b, x: {"out": b.broadcast(b.reshape(b.exp(x), (B, 1, 4)), (B, 3, 4)), "sum": b.reduce_sum(x, (1,))}
        ),
        "choice between flags": made(
            lambda b, x: {"out": b.where(b.compare(x, 0.0, "lt"), b.compare(x, 1.0, "lt"), b.compare(x, -1.0, "lt"))}
        ),
    }


@pytest.mark.parametrize("name", degenerate())
@pytest.mark.parametrize("one_task", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_next_to_nothing_to_do(name: str, one_task: bool, batch: int) -> None:
    program = degenerate()[name]
    inputs = {"x": np.random.default_rng(0).normal(size=(batch, 4))}
    for cache in (None, BoundCache()):
        made = schedule(program, {"B": batch}, cache=cache, one_task=one_task)
        for _ in range(3):
            got = run(made, inputs)
            assert_equal(got, evaluate(program, inputs))
            for array in got.values():
                array[...] = 7.0


def with_convolution() -> BoundProgram:
    """A value that a kernel allocates: viewed, kept for later stages, and written over afterwards."""
    b = Builder()
    x = b.input("x", (B, 1, 4, 4), group="region")
    rows = b.input("C", (3, 32), group="spec")
    out = b.conv2d(x, b.constant(np.ones((2, 1, 3, 3))), padding=(1, 1, 1, 1))
    flat = b.reshape(b.permute(out, (0, 2, 3, 1)), (B, 32))
    wide = b.broadcast(b.reshape(b.reduce_sum(out, (2, 3)), (B, 2, 1)), (B, 2, 5))
    product = b.matmul(flat, rows, transpose_b=True)
    in_place = b.matmul(b.reshape(out, (B, 32)), rows, transpose_b=True)
    return b.finish(
        {
            "out": product,
            "view of it": in_place,
            "viewed": b.permute(out, (0, 3, 2, 1)),
            "spread": b.matmul(wide, b.matmul(b.constant(np.ones((5, 32))), rows, transpose_b=True)),
            "abs": b.neg(b.abs(out)),
        }
    )


def test_values_that_kernels_allocate_survive_in_the_cache() -> None:
    program = with_convolution()
    numbers = np.random.default_rng(0)
    made = schedule(program, {"B": 2}, cache=BoundCache())
    regions = [numbers.normal(size=(2, 1, 4, 4)) for _ in range(2)]
    specs = [numbers.normal(size=(3, 32)) for _ in range(3)]
    for region in (0, 1, 0, 1):
        for spec in (0, 1, 2, 0):
            inputs: dict[str, Array] = {"x": regions[region], "C": specs[spec]}
            assert_equal(run(made, inputs), evaluate(program, inputs), rtol=1e-12)
