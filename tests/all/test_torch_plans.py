"""Plans on the torch executor: the interpreter's results, whatever memory, tasks and cache the plan makes use of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import boundflow_core as bf
from boundflow_core.cache import BoundCache
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.program import BoundProgram
from boundflow_core.testing.programs import inputs_for, programs

from ..core.executors.test_steps import degenerate, with_convolution
from ..core.running import assert_equal, run, run_once, schedule

SIZES = st.sampled_from([{"B": 1, "S": 1}, {"B": 2, "S": 3}])
NUMBERS = np.random.default_rng(0)


@settings(max_examples=150)
@given(programs, SIZES)
def test_all_plans_give_the_same_bits(program: BoundProgram, sizes: dict[str, int]) -> None:
    inputs = inputs_for(program, sizes)
    plain = run_once(program, inputs, "torch", reuse=False, one_task=True)
    assert_equal(plain, evaluate(program, inputs), rtol=1e-12)
    for reuse in (False, True):
        for one_task in (False, True):
            got = run_once(program, inputs, "torch", reuse=reuse, one_task=one_task, cache=BoundCache())
            assert_equal(got, plain)


@settings(max_examples=100)
@given(programs, SIZES, st.lists(st.sampled_from(["x", "y", "alpha", "C"]), min_size=1, max_size=4))
def test_calls_that_share_some_inputs(program: BoundProgram, sizes: dict[str, int], changes: list[str]) -> None:
    sizes = {symbol: sizes[symbol] for symbol in program.symbols()}
    cached, plain = schedule(program, sizes, "torch", cache=BoundCache()), schedule(program, sizes, "torch")
    old, new = inputs_for(program, sizes), inputs_for(program, sizes, seed=1)
    for inputs in [old, *({**old, name: new[name]} for name in changes), old, new]:
        before = {name: array.copy() for name, array in inputs.items()}
        got = run(cached, inputs)
        assert_equal(got, run(plain, inputs))
        assert_equal(inputs, before)
        for array in got.values():
            array[...] = 0


@pytest.mark.parametrize("name", degenerate())
@pytest.mark.parametrize("one_task", [False, True])
def test_next_to_nothing_to_do(name: str, one_task: bool) -> None:
    program = degenerate()[name]
    inputs = {"x": NUMBERS.normal(size=(2, 4))}
    for cache in (None, BoundCache()):
        made = schedule(program, {"B": 2}, "torch", cache=cache, one_task=one_task)
        for _ in range(3):
            got = run(made, inputs)
            assert_equal(got, evaluate(program, inputs), rtol=1e-12)
            for array in got.values():
                array[...] = 7


def test_values_that_kernels_allocate_survive_in_the_cache() -> None:
    program = with_convolution()
    made, plain = schedule(program, {"B": 2}, "torch", cache=BoundCache()), schedule(program, {"B": 2}, "torch")
    regions, specs = NUMBERS.normal(size=(2, 2, 1, 4, 4)), NUMBERS.normal(size=(3, 3, 32))
    for region in (0, 1, 0, 1):
        for spec in (0, 1, 2, 0):
            inputs = {"x": regions[region], "C": specs[spec]}
            assert_equal(run(made, inputs), run(plain, inputs))


def module() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


REGION = bf.LpBall(NUMBERS.normal(size=(2, 6)).astype(np.float32), 0.1)


def by_optimizer(net: torch.nn.Sequential) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    net(torch.ones(1, 6)).sum().backward()
    optimizer.step()


def by_data(net: torch.nn.Sequential) -> None:
    net[0].weight.data += 0.5  # leaves the version counter as it is


def by_numpy(net: torch.nn.Sequential) -> None:
    net[0].weight.detach().numpy()[...] *= -1


def by_loading(net: torch.nn.Sequential) -> None:
    net.load_state_dict({name: value * 2 for name, value in net.state_dict().items()})


@pytest.mark.parametrize("change", [by_optimizer, by_data, by_numpy, by_loading])
@pytest.mark.parametrize("cache", [True, "process"])
def test_weights_that_change_are_seen(change: object, cache: object) -> None:
    net = module()
    graph = bf.load(net, example_inputs=(torch.zeros(1, 6),))
    run_ = bf.compile(graph, cache=cache)
    before = run_(REGION)
    run_(REGION)
    change(net)  # type: ignore[operator]
    got, want = run_(REGION), bf.compile(graph, cache=False)(REGION)
    np.testing.assert_array_equal(got.lower, want.lower)
    np.testing.assert_array_equal(got.upper, want.upper)
    assert (got.lower != before.lower).any()


def test_other_networks_of_the_same_shapes_in_one_process() -> None:
    nets = [module(), module()]
    with torch.no_grad():
        nets[1][2].bias += 1.0
    for _ in range(2):
        for net in nets:
            graph = bf.load(net, example_inputs=(torch.zeros(1, 6),))
            got, want = bf.compile(graph, cache="process")(REGION), bf.compile(graph, cache=False)(REGION)
            np.testing.assert_array_equal(got.lower, want.lower)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_another_device_misses() -> None:
    run_ = bf.compile(bf.load(module(), example_inputs=(torch.zeros(1, 6),)))
    center = torch.as_tensor(REGION.center)
    on_cpu = run_(bf.LpBall(center, 0.1))
    on_gpu = run_(bf.LpBall(center.cuda(), 0.1))
    assert on_gpu.lower.is_cuda and not on_cpu.lower.is_cuda
    torch.testing.assert_close(on_gpu.lower.cpu(), on_cpu.lower)
