from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from boundflow_core.errors import IRError
from boundflow_core.executors import reference
from boundflow_core.executors.steps import make_runner
from boundflow_core.extension import Executor
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import live
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.program import Composite
from boundflow_core.planner.pipeline import make_plan

EXECUTOR = Executor("reference", "", 0, lambda: None, reference.prepare)


class Parameter:
    def __init__(self, values):
        self.values = np.array(values, dtype=np.float32)
        self.dtype, self.shape = self.values.dtype, self.values.shape

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.values


def counted(program):
    calls: Counter[str] = Counter()

    def kernel(op):
        def call(*arrays):
            calls[op.name] += 1
            return op.spec.reference(arrays, op.attrs)

        return call

    def load(constant, value):
        return np.asarray(constant.numpy(), dtype=value.type.dtype.numpy)

    return make_runner(program, kernel, load, lambda value: np.asarray), calls


def test_what_follows_from_frozen_constants_runs_once():
    b = Builder()
    x = b.input("x", (2,))
    program = b.finish({"y": b.neg(x) + b.exp(b.abs(b.constant(np.array([0.0, -1.0]))))})
    runner, calls = counted(program)
    assert calls == {"abs": 1, "exp": 1}
    for number in (1, 2):
        assert runner({"x": np.zeros(2)})["y"].tolist() == pytest.approx([1, np.e])
        assert calls == {"abs": 1, "exp": 1, "neg": number, "add": number}


def test_live_constants_and_what_follows_from_them_are_read_at_each_run():
    weight = Parameter([1.0, 2.0])
    b = Builder()
    x = b.input("x", (2,))
    runner, calls = counted(b.finish({"y": x * b.abs(b.constant(live(weight)))}))
    assert runner({"x": np.ones(2)})["y"].tolist() == [1, 2]
    weight.values[:] = [-3, -4]
    assert runner({"x": np.ones(2)})["y"].tolist() == [3, 4] and calls["abs"] == 2


def test_values_are_freed_after_their_last_use_and_views_of_them_stay():
    b = Builder()
    x = b.input("x", (2, 2))
    y = b.exp(x)
    view = b.permute(y, (1, 0))
    program = b.finish({"sum": b.neg(y), "view": b.abs(view), "kept": view, "x": x})
    runner, _ = counted(program)
    freed = [slot for step in runner.steps for slot in step.frees]
    assert len(freed) == len(set(freed)) == 1
    array = np.array([[1.0, 2], [3, 4]])
    for _ in range(2):
        results = runner({"x": array})
        for name, value in evaluate(program, {"x": array}).items():
            np.testing.assert_array_equal(results[name], value)


def test_a_result_may_be_a_constant_or_an_input():
    b = Builder()
    x, c = b.input("x", (1,)), b.constant(np.array([5.0]))
    runner, _ = counted(b.finish({"x": x, "c": c, "n": b.neg(c)}))
    results = runner({"x": np.array([1.0])})
    assert (results["x"][0], results["c"][0], results["n"][0]) == (1, 5, -5)


def test_operations_of_several_results_are_refused():
    two = Composite("two", "", lambda b, xs, attrs: (b.exp(xs[0]), b.neg(xs[0])))
    b = Builder()
    y, z = b.emit(two, b.input("x", (1,)))
    with pytest.raises(IRError, match="two has 2 outputs"):
        counted(b.finish({"y": y, "z": z}))


def test_the_reference_executor_runs_plans():
    two = Composite("two", "", lambda b, xs, attrs: (b.exp(xs[0]), b.neg(xs[0])))
    b = Builder()
    y, z = b.emit(two, b.input("x", (1,)))
    plan = make_plan(b.finish({"y": y, "z": z / 0.0}), {}, EXECUTOR)
    results = reference.prepare(plan)({"x": [1.0]})
    assert results["y"][0] == pytest.approx(np.e) and results["z"][0] == -np.inf
    assert plan.lowering.counts == {"reference": 3}
    assert plan.lowering.fallbacks == {"two: reference has no fused kernel, runs its decomposition": 1}
