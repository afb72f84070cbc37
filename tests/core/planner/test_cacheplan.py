"""Stages: what runs again together, and what is kept so that it need not."""

from __future__ import annotations

from hypothesis import given, settings

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import BoundProgram
from boundflow_core.planner.pipeline import make_plan
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.testing.programs import B, S, programs

from ..running import executor_of


def planned(program: BoundProgram) -> PlanBundle:
    return make_plan(program, executor_of("reference"))


def test_stages_of_region_and_specification() -> None:
    b = Builder()
    x, rows = b.input("x", (B, 4), group="region"), b.input("C", (S, 4), group="spec")
    deep = b.tanh(x)
    part = b.slice(deep, (0, 0), (B, 2), (1, 1))
    out = b.matmul(b.broadcast(b.reshape(deep, (B, 1, 4)), (B, 3, 4)), rows, transpose_b=True)
    plan = planned(b.finish({"out": out, "part": part}))
    stages = {stage.name: stage for stage in plan.cache.stages}
    assert list(stages) == ["region", "region+spec"]
    # the memory that the view shows, once, and the result
    assert {value.name for value in stages["region"].keeps} == {deep.name, part.name}
    assert stages["region+spec"].sources == {"region"}
    assert stages["region+spec"].symbols == ("B", "S")
    assert all(stage.cached for stage in stages.values())


def test_moving_data_alone_is_not_worth_keeping() -> None:
    b = Builder()
    x = b.input("x", (B, 4), group="region")
    (stage,) = planned(b.finish({"out": b.permute(x, (1, 0))})).cache.stages
    assert not stage.cached


@settings(max_examples=100)
@given(programs)
def test_stages_keep_all_that_later_ones_read(program: BoundProgram) -> None:
    plan = planned(program)
    views = plan.storage.views
    there = set(plan.program.inputs) | set(plan.program.constants)
    there |= {v for op in plan.program.ops for v in op.outputs if v not in views}
    for stage in plan.cache.stages:
        made = {value for name in stage.tasks for op in plan.graph[name].ops for value in op.outputs}
        for name in stage.tasks:
            for value in plan.graph[name].inputs:
                assert value in made or value in there or views[value].base in there
        assert set(stage.keeps) <= made
        there |= set(stage.keeps)
    assert all(value in there or views[value].base in there for value in plan.program.outputs.values())
