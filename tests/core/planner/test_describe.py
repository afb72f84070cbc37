"""The description of a plan: complete, serializable, and its figures equal to those added up by brute force."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.ir.program import BoundProgram
from boundflow_core.planner.describe import describe_plan
from boundflow_core.planner.description import BufferEntry, PlanDescription
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.testing.programs import inputs_for, programs, write_random

from ..running import run, schedule

SIZES = st.sampled_from([{"B": 1, "S": 1}, {"B": 2, "S": 3}, {"B": 5, "S": 1}])


def plan_of(program: BoundProgram, sizes: dict[str, int], *, reuse: bool = True, one_task: bool = False) -> PlanBundle:
    return schedule(program, sizes, reuse=reuse, one_task=one_task).plan


def held(buffer: BufferEntry, step: int) -> int:
    """Bytes of a buffer that some value needs while a step runs: of what it is a view of, where it is one."""
    size = {value["name"]: value["bytes"] for value in buffer["values"]}
    alive = [value for value in buffer["values"] if value["first_def"] <= step <= value["last_use"]]
    return max((size[value["view_of"] or value["name"]] for value in alive), default=0)


def check_memory_of(plan: PlanDescription) -> None:
    storage = plan["storage"]
    ops = sum(len(task["ops"]) for task in plan["tasks"])
    assert [entry["step"] for entry in storage["steps"]] == list(range(-1, ops + 1))
    everything = [value for buffer in plan["buffers"] for value in buffer["values"]]
    for entry in storage["steps"]:
        step = entry["step"]
        assert entry["arena_used"] == sum(held(b, step) for b in plan["buffers"] if b["planned"]), step
        assert entry["own"] == sum(held(b, step) for b in plan["buffers"] if not b["planned"]), step
        assert entry["naive"] == sum(value["bytes"] for value in everything if value["first_def"] <= step), step
        assert entry["arena_used"] <= storage["arena_bytes"]
    assert storage["steps"][-1]["naive"] == storage["naive_bytes"]
    assert max(entry["own"] + entry["workspace"] for entry in storage["steps"]) == storage["beside_bytes"]
    assert storage["peak_bytes"] == storage["arena_bytes"] + storage["beside_bytes"]
    assert storage["arena_buffers"] + storage["own_buffers"] == len(plan["buffers"])


@settings(max_examples=150)
@given(programs, SIZES, st.booleans(), st.booleans())
def test_memory_at_each_step_is_what_the_lifetimes_say(
    program: BoundProgram, sizes: dict[str, int], reuse: bool, one_task: bool
) -> None:
    check_memory_of(describe_plan(plan_of(program, sizes, reuse=reuse, one_task=one_task)))


@given(programs, SIZES)
def test_a_description_holds_the_whole_plan(program: BoundProgram, sizes: dict[str, int]) -> None:
    bundle = plan_of(program, sizes)
    plan = describe_plan(bundle)
    assert json.loads(json.dumps(plan, allow_nan=False)) == plan
    assert plan["sizes"] == bundle.sizes
    assert [task["name"] for task in plan["tasks"]] == [task.name for task in bundle.tasks]
    steps = [op["step"] for task in plan["tasks"] for op in task["ops"]]
    assert sorted(steps) == list(range(len(bundle.program.ops)))
    for task in plan["tasks"]:
        for op in task["ops"]:
            assert op["name"] == bundle.program.ops[op["step"]].name
            assert op["outputs"] == [value.name for value in bundle.program.ops[op["step"]].outputs]
    assert len(plan["edges"]) == len(bundle.graph.edges)
    names = [value["name"] for buffer in plan["buffers"] for value in buffer["values"]]
    assert len(names) == len(set(names)) and set(names) == {value.name for value in bundle.storage.home}
    staged = [name for stage in plan["stages"] for name in stage["tasks"]]
    assert sorted(staged) == sorted(task["name"] for task in plan["tasks"] if task["stage"])
    assert sum(row["ops"] for row in plan["lowering"]["table"]) == sum(plan["lowering"]["ops"].values()) == len(steps)


@given(programs, SIZES)
def test_buffers_of_the_arena_do_not_overlap(program: BoundProgram, sizes: dict[str, int]) -> None:
    plan = describe_plan(plan_of(program, sizes))
    spans = sorted((b["offset"], b["offset"] + b["bytes"]) for b in plan["buffers"] if b["offset"] is not None)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert all(end <= plan["storage"]["arena_bytes"] for _, end in spans)
    assert all((b["offset"] is None) == (not b["planned"]) for b in plan["buffers"])


def test_memory_says_where_results_lie() -> None:
    """On a program that has all kinds: each kind is what the buffers say of the value."""
    seen = set()
    for seed in range(20):
        plan = describe_plan(plan_of(write_random(seed, 30), {"B": 2, "S": 3}))
        values = {value["name"]: (value, buffer) for buffer in plan["buffers"] for value in buffer["values"]}
        for op in (op for task in plan["tasks"] for op in task["ops"]):
            (name,) = op["outputs"]
            seen.add(op["memory"])
            if op["memory"] == "beforehand":
                assert name not in values
                continue
            value, buffer = values[name]
            assert (value["view_of"] is not None) == (op["memory"] == "view")
            assert (value["written_onto"] is not None) == (op["memory"] == "in place")
            assert buffer["planned"] or op["memory"] in ("own", "view")
    assert {"arena", "in place", "view", "own"} <= seen


def test_kernels_are_counted_by_their_keys_at_these_sizes() -> None:
    plan = describe_plan(plan_of(write_random(3, 25), {"B": 2, "S": 3}))
    kernels = {op["kernel"] for task in plan["tasks"] for op in task["ops"]}
    assert plan["lowering"]["kernels"] == len(kernels)
    assert not any("B" in text.partition("{")[0] for text in kernels)


def test_a_plan_without_sizes_cannot_be_described() -> None:
    made = schedule(write_random(1, 10), {"B": 1, "S": 1})
    run(made, inputs_for(made.plan.program, {"B": 1, "S": 1}))

    with pytest.raises(KeyError):
        describe_plan(replace(made.plan, sizes={}, storage=made.plan.storage.bind({})))
