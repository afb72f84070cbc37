from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.types import DType
from boundflow_core.planner.storage import last_uses, nbytes, plan_storage


@st.composite
def programs(draw):
    b = Builder(DType.FLOAT32)
    values = [b.input("x", (draw(st.integers(1, 5)), 2))]
    for _ in range(draw(st.integers(1, 12))):
        x, y = (draw(st.sampled_from(values)) for _ in range(2))
        if draw(st.booleans()) or x.shape != y.shape:
            values.append(b.concat([x, x], 0) if draw(st.booleans()) else b.exp(x))
        else:
            values.append(b.add(x, y))
    results = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
    return b.finish({str(i): value for i, value in enumerate(results)})


@given(programs())
def test_peak_is_that_of_brute_force(program):
    made = {value: index for index, op in enumerate(program.ops) for value in op.outputs}
    needed = {
        value: [i for i, op in enumerate(program.ops) if value in op.inputs]
        + [len(program.ops)] * (value in program.outputs.values())
        for value in made
    }
    alive = [
        sum(nbytes(value) for value, first in made.items() if first <= now <= max(needed[value]))
        for now in range(len(program.ops))
    ]
    plan = plan_storage(program)
    assert plan.peak_bytes == max(alive, default=0)
    assert plan.naive_bytes == sum(map(nbytes, made))


def test_results_live_to_the_end():
    b = Builder(DType.FLOAT64)
    x = b.input("x", (4,))
    y = b.exp(x)
    program = b.finish({"y": y, "z": b.neg(b.abs(y))})
    assert last_uses(program)[y] == 3
    assert plan_storage(program).peak_bytes == 3 * 32
