"""Executor "auto": what takes least by estimate, and the reason told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy import EXECUTORS, METHOD, REGISTRY, network, with_registry

from boundflow_core import Box, LinearSpec
from boundflow_core import compiled as compiled_module
from boundflow_core.compiled import CompiledBounds, CompileOptions
from boundflow_core.errors import OptionError, UnknownNameError
from boundflow_core.executors.rates import REFERENCE as RATES
from boundflow_core.extension import LoweringStrategy, why_unavailable
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.planner.cost import Cost, Rates, arithmetic, moved, running_ops, step_seconds
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.selection import Candidates, candidates, check_lowering, choose

REFERENCE = EXECUTORS["reference"]
BOX = Box(np.zeros((2, 5)), np.ones((2, 5)))


def executor(name, prepare=0.0, run=0.0, **changes):
    """The reference under another name, which tells these costs and notes what it was asked about."""
    asked = []

    def cost(plan):
        asked.append(dict(plan.sizes))
        return Cost(prepare, run)

    one = replace(REFERENCE, name=name, cost=cost, **changes)
    object.__setattr__(one, "asked", asked)
    return one


def bounds(executors, *, registry=None, **options):
    registry = registry or with_registry(executors={one.name: one for one in executors})
    found = candidates(registry, "auto", differentiable=False)
    return CompiledBounds(network(), METHOD, registry, found, CompileOptions(dtype=DType.FLOAT64, **options))


# -- what operations come to ------------------------------------------------------------------------------------------


def test_arithmetic_and_memory_of_operations():
    b = Builder(DType.FLOAT32)
    x, w = b.input("x", (SymDim.of("B"), 3, 6, 6)), b.constant(np.zeros((4, 3, 3, 3)))
    y = b.conv2d(x, w, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1)
    z = b.matmul(b.reshape(y, (SymDim.of("B"), 64)), b.constant(np.zeros((64, 5))))
    plan = bind_plan(make_plan(b.finish({"z": b.exp(z)}), REFERENCE), {"B": 2})
    by_name = {op.name: op for op in plan.program.ops}
    sizes = {"B": 2}
    assert arithmetic(by_name["conv2d"], sizes) == 2 * 2 * 4 * 4 * 4 * 27
    assert arithmetic(by_name["matmul"], sizes) == 2 * 2 * 5 * 64 and arithmetic(by_name["exp"], sizes) == 10
    assert moved(by_name["matmul"], sizes) == 4 * (2 * 64 + 64 * 5 + 2 * 5)
    assert [op.name for op in running_ops(plan)] == ["conv2d", "matmul", "exp"]  # the reshape is a view
    rates = Rates(call=1.0, bytes=1e30, arithmetic={"conv2d": 3456.0, "matmul": 640.0}, elements={"exp": 10.0})
    assert step_seconds(plan, rates) == pytest.approx(3 + 2 + 2 + 1)


def test_what_is_computed_beforehand_costs_nothing():
    b = Builder(DType.FLOAT32)
    w = b.abs(b.constant(np.ones((5, 5))))
    plan = bind_plan(make_plan(b.finish({"y": b.matmul(b.input("x", (SymDim.of("B"), 5)), w)}), REFERENCE), {"B": 1})
    assert [op.name for op in running_ops(plan)] == ["matmul"]
    assert REFERENCE.cost(plan) == Cost(0.0, step_seconds(plan, RATES))


# -- the choice -------------------------------------------------------------------------------------------------------


def test_the_least_for_the_calls_to_expect():
    quick_start, quick_run = executor("now", run=1e-3), executor("later", prepare=1.0, run=1e-4)
    for calls, name in ((1, "now"), (1000, "now"), (2000, "later")):
        run = bounds([quick_start, quick_run], calls=calls)
        assert run.executor == name == run.stats.executor
    assert run.stats.executor_reason == (
        "least for 2000 calls by estimate: later 1 s before and 0.1 ms a call, now 1 ms a call"
    )


def test_what_takes_long_to_start_is_not_planned_in_vain():
    slow = executor("slow", startup=lambda: 1.5)
    run = bounds([executor("quick", run=1e-3), slow], calls=1)
    assert run.executor == "quick" and slow.asked == []
    assert run.stats.executor_reason.endswith("slow 1.5 s before anything")
    run = bounds([executor("quick", run=1e-3), slow], calls=10_000)
    assert run.executor == "slow" and "slow 1.5 s before and 0 ms a call" in run.stats.executor_reason


def test_executors_that_tell_no_cost_count_by_rank():
    low, high = (replace(REFERENCE, name=name, rank=rank, cost=None) for name, rank in (("low", -1), ("high", 9)))
    assert bounds([low, executor("told")]).executor == "told"
    run = bounds([executor("told"), high])
    assert run.executor == "high" and "highest rank" in run.stats.executor_reason
    assert choose(Candidates((low,), "why"), lambda _: None, 1).reason == "why"


def test_plans_of_executors_that_were_not_chosen_do_not_count():
    alone = CompiledBounds(network(), METHOD, REGISTRY, REFERENCE, CompileOptions(dtype=DType.FLOAT64))
    run = bounds([executor("one", run=2.0), executor("other", run=1.0), executor("third", run=3.0)])
    run(BOX), alone(BOX)
    assert run.stats.plans == alone.stats.plans == 1 and run.stats.calls == 1
    assert run.stats.lowering == {"other": alone.stats.lowering["reference"]}
    assert run.plan.executor == "other"


def test_the_choice_is_made_for_the_sizes_of_the_first_call_of_each_kind():
    one = executor("one")
    run = bounds([one, executor("two", run=1.0)], batch=2)
    run(BOX)
    assert one.asked == [{"B": 2}]
    run(BOX, LinearSpec(np.ones((4, 3))))
    assert one.asked == [{"B": 2}, {"B": 2, "S": 4}]
    run(BOX, LinearSpec(np.ones((7, 3))))
    assert len(one.asked) == 2


def test_arrays_elsewhere_take_the_highest_rank(monkeypatch):
    run = bounds([executor("here"), executor("anywhere", run=1.0, rank=10)])
    assert run.executor == "here"
    monkeypatch.setattr(compiled_module, "device_of", lambda array: "cuda:0")
    run(BOX)
    assert run.executor == "anywhere" and "arrays on cuda:0" in run.stats.executor_reason
    monkeypatch.undo()
    np.testing.assert_array_equal(run(BOX).lower, bounds([executor("here")])(BOX).lower)


def test_reasons_without_a_choice():
    assert CompiledBounds(network(), METHOD, REGISTRY, REFERENCE, CompileOptions()).stats.executor_reason == "asked for"
    assert bounds([executor("one")]).stats.executor_reason == "the only one that can run here what is asked"


# -- strategies that are asked for ------------------------------------------------------------------------------------


def strategy(name, supports=lambda op, known: None, seconds=1.0, unavailable=lambda: None):
    return LoweringStrategy(name, "", "mine", unavailable, supports, lambda op, known: seconds)


def test_a_strategy_that_is_asked_for_runs_what_it_supports():
    only_matmul = strategy("products", lambda op, known: None if op.name == "matmul" else "no product", 9.0)
    mine = replace(REFERENCE, name="mine", strategies=(strategy("all"), only_matmul))
    registry = with_registry(executors={"mine": mine})
    plain = bounds([], registry=registry)
    assert set(plain.plan.lowering.counts) <= {"all", "mine"} and not plain.stats.fallbacks
    run = bounds([], registry=registry, lowering="products")
    counts = run.plan.lowering.counts
    assert counts["products"] == 4 and run.plan.lowering.asked == "products"
    others = {key: n for key, n in run.stats.fallbacks.items() if key.endswith(": products: no product, runs on all")}
    assert sum(others.values()) == counts["all"] and others == run.stats.fallbacks
    reasons = {e.lowering.reason for part in run.plan.lowering.entries.values() for e in part if e.op.name == "maximum"}
    assert all(reason.startswith("products is asked for, but: no product; all is estimated") for reason in reasons)


def test_executors_of_strategies():
    broken = strategy("broken", unavailable=lambda: "nothing is installed")
    mine = replace(REFERENCE, name="mine", strategies=(strategy("own"), broken))
    registry = with_registry(executors={**EXECUTORS, "mine": mine})
    found = candidates(registry, "auto", differentiable=False, lowering="own")
    assert found == Candidates((mine,), "strategy own is asked for")
    with pytest.raises(OptionError, match="'reference' has no lowering strategy 'own'; its strategies: none"):
        candidates(registry, "reference", differentiable=False, lowering="own")
    with pytest.raises(OptionError, match="'broken' cannot be used here: nothing is installed"):
        candidates(registry, "mine", differentiable=False, lowering="broken")
    with pytest.raises(UnknownNameError, match=r"no lowering strategy is called 'relax_vm'; .*boundflow-tvm"):
        candidates(registry, "auto", differentiable=False, lowering="relax_vm")


def test_an_executor_whose_check_fails_is_left_alone():
    def fails():
        raise ZeroDivisionError("of the check itself")

    registry = with_registry(executors={"bad": executor("bad", rank=99, unavailable=fails), "reference": REFERENCE})
    assert [one.name for one in candidates(registry, "auto", differentiable=False).executors] == ["reference"]
    with pytest.raises(OptionError, match="its check raised ZeroDivisionError: of the check itself"):
        candidates(registry, "bad", differentiable=False)


def test_whatever_a_check_gives_is_text_or_nothing():
    def leaves():
        raise SystemExit(3)

    assert why_unavailable(executor("bad", unavailable=leaves)) == "its check raised SystemExit: 3"
    for given, expected in ((ValueError("no GPU"), "no GPU"), ("", None), (None, None), (False, None)):
        assert why_unavailable(executor("odd", unavailable=lambda given=given: given)) == expected


def test_a_strategy_whose_check_fails_is_left_alone():
    def fails():
        raise ZeroDivisionError("of the check itself")

    strategy = LoweringStrategy("bad", "", "reference", fails, lambda *_: None, lambda *_: 0.0, lambda op: None)
    one = replace(REFERENCE, strategies=(strategy,))
    assert np.isfinite(bounds([one])(BOX).lower).all()
    with pytest.raises(OptionError, match="lowering strategy 'bad' cannot be used here: its check raised"):
        check_lowering(one, "bad")
