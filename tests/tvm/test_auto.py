"""Executor "auto" beside compiled kernels: what must be compiled first counts, what is compiled already does not."""

from __future__ import annotations

import numpy as np
import pytest
from crown_networks import small_mlp

import boundflow_core as bf
from boundflow_core.ir.program import Composite
from boundflow_core.ir.types import DType
from boundflow_core.plugins import registry
from boundflow_core.workshop import write_program
from boundflow_tvm.cache import KERNELS
from boundflow_tvm.costs import plan_cost


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """No compiled code, neither in the process nor in a folder."""
    monkeypatch.setenv("BOUNDFLOW_CACHE_DIR", str(tmp_path))
    KERNELS.forget()


def box(network, batch=1):
    return bf.Box(np.zeros((batch, *network.input_type.shape)), np.ones((batch, *network.input_type.shape)))


def test_a_single_call_never_pays_for_compiling(empty):
    network = small_mlp(1)
    for calls in (1, 100):
        run = bf.compile(network, method="ibp", calls=calls)
        assert run.executor != "tvm" and "tvm" in run.stats.executor_reason


def test_what_is_compiled_already_costs_nothing(empty):
    network = small_mlp(2)
    cold = bf.compile(network, method="ibp", executor="tvm")
    before = plan_cost(cold.plan)
    assert before.prepare > 0.1 and before.run > 0
    cold(box(network))
    assert plan_cost(cold.plan).prepare == 0
    KERNELS.forget()
    assert 0 < plan_cost(cold.plan).prepare < before.prepare
    assert plan_cost(cold.plan).run == before.run
    many = bf.compile(network, method="ibp", calls=10**9)
    least = min(("tvm", before.run), *((name, registry().executor(name).cost(cold_on(network, name)).run)
                for name in ("reference", "torch") if registry().executor(name).unavailable() is None),
                key=lambda item: item[1])  # fmt: skip
    assert many.executor == least[0]
    np.testing.assert_allclose(many(box(network)).lower, cold(box(network)).lower, rtol=1e-5, atol=1e-6)


def cold_on(network, executor):
    return bf.compile(network, method="ibp", executor=executor).plan


def test_larger_sizes_cost_more():
    network = small_mlp(3)
    costs = [plan_cost(bf.compile(network, method="ibp", executor="tvm", batch=n).plan).run for n in (1, 64, 4096)]
    assert costs == sorted(costs) and costs[2] > 4 * costs[0]
    relax = bf.compile(network, method="ibp", lowering="relax_vm")
    assert plan_cost(relax.plan).prepare > 0.5


def test_each_composite_runs_whole_or_is_told_as_a_fallback():
    network = small_mlp(1)
    chosen = registry().method("ibp")
    domains = {name: registry().domain(name) for name in chosen.domains}
    program = write_program(network, chosen, domains, dtype=DType.FLOAT32, spec="shared", options=dict(chosen.options))
    written = {op.name for op in program.ops if isinstance(op.spec, Composite)}
    assert written
    spec = bf.LinearSpec(np.ones((2, int(np.prod(network.output_type.shape)))))
    for lowering in (None, "relax_vm", "call_tir"):
        run = bf.compile(network, method="ibp", executor="tvm", lowering=lowering, dtype="float32", cache=False)
        run(box(network, 3), spec)
        entries = [entry for part in run.plan.lowering.entries.values() for entry in part]
        whole = {entry.op.name for entry in entries if isinstance(entry.op.spec, Composite)}
        told = {reason.split(":")[0] for reason in run.stats.fallbacks}
        assert written <= whole | told, (written, whole, told)
        assert all(entry.lowering.reason for entry in entries)
        if lowering == "relax_vm":
            assert not whole
