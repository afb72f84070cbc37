"""Executor `cuda` against the reference executor: on a GPU where there is one, and with a driver whose kernels run on
the processor (cuda_on_cpu.py). What is launched, with which arguments and in how many blocks, is the same.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import cuda_on_cpu
import numpy as np
import pytest
from crown_networks import small_mlp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm_networks import GRAPHS, check_close, region_of, small_cnn

import boundflow_core as bf
from boundflow_core.errors import OptionError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import live
from boundflow_core.ir.evaluate import bind_symbols, evaluate
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.plugins import registry
from boundflow_core.scheduler import RunCounts, Schedule
from boundflow_core.testing.primitives import CASES, Case
from boundflow_core.testing.programs import inputs_for, programs
from boundflow_tvm.cuda import executor as described

torch = pytest.importorskip("torch")

from boundflow_tvm.cuda import session  # noqa: E402 (imports torch)
from boundflow_tvm.cuda.compiler import compiled_by_nvrtc, nvrtc  # noqa: E402
from boundflow_tvm.cuda.driver import Arguments, Driver, GpuError  # noqa: E402

B = SymDim.of("B")
STREAM = 5
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
LAUNCHERS = [
    pytest.param("processor", marks=needs_compiler, id="processor"),
    pytest.param(
        "gpu",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is false: no GPU"),
        id="gpu",
    ),
]


def compiled(source):
    """Code for the processor; NVRTC, where it is, takes the source too."""
    assert nvrtc() is None or compiled_by_nvrtc(source)[:4] == b"\x7fELF"
    return cuda_on_cpu.compiled(source)


def processor(device=None):
    """What the executor takes for a GPU; torch's tensors for it lie on the CPU."""
    return session.Gpu(torch.device("cpu"), cuda_on_cpu.driver(), compiled, "processor", lambda: STREAM)


def available(executor):
    return tuple(replace(strategy, unavailable=lambda: None) for strategy in executor.strategies)


@pytest.fixture(params=LAUNCHERS)
def device(request, monkeypatch):
    """The device of the arrays; without a GPU the executor is registered with what it takes for one."""
    if request.param == "gpu":
        return "cuda"
    found = registry()
    executor = replace(
        found.executor("cuda"),
        unavailable=lambda: None,
        open=lambda plan, device: session.open_session(plan, device, processor),
        strategies=available(found.executor("cuda")),
    )
    changed = replace(found, executors={**found.executors, "cuda": executor})
    monkeypatch.setattr("boundflow_core.plugins.manager.cached_registry", lambda: changed)
    return "cpu"


def on(device, region):
    return bf.Box(*(torch.from_numpy(np.asarray(side)).to(device) for side in (region.lower, region.upper)))


def compare(graph, method, dtype, device, batches=(1, 3), rows=None, **options):
    want_of, got_of = (
        bf.compile(graph, method=method, executor=executor, dtype=dtype, cache=False, **options)
        for executor in ("reference", "cuda")
    )
    outputs = int(np.prod(graph.output_type.shape))
    matrix = None if rows is None else np.random.default_rng(5).standard_normal((rows, outputs))
    for batch in batches:
        region = region_of(graph, batch, batch)
        want = want_of(region, None if rows is None else bf.LinearSpec(matrix))
        got = got_of(on(device, region), None if rows is None else bf.LinearSpec(torch.from_numpy(matrix).to(device)))
        assert got.lower.device.type == got.upper.device.type == device
        check_close((got.lower.cpu(), got.upper.cpu()), (want.lower, want.upper), dtype)
    return got_of


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_interval_bounds_equal_the_reference(graph, dtype, device):
    run = compare(GRAPHS[graph](), "ibp", dtype, device, rows=2)
    assert run.stats.executor == "cuda" and run.stats.lowering[described.NAME] > 0


@pytest.mark.parametrize("method", ["crown-ibp", "crown"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_linear_bounds_equal_the_reference(graph, method, device):
    run = compare(GRAPHS[graph](), method, "float64" if graph == "residual" else "float32", device, (1, 1, 3), rows=2)
    entries = [entry for part in run.plan.lowering.entries.values() for entry in part]
    launched = {entry.op.name for entry in entries if entry.lowering.strategy == described.NAME}
    assert "fused" in launched and launched & {"backsubstitute", "relu_backsubstitute"}
    assert not launched & {"matmul", "conv2d", "conv2d_input_grad"}


def test_optimised_bounds_equal_the_reference(device):
    compare(small_cnn(3), "alpha-crown", "float64", device, batches=(2,), rows=2, iterations=3)


def test_arrays_of_the_caller_come_back_as_they_are(device):
    graph = small_mlp(1)
    region = region_of(graph, 2, 0)
    run = bf.compile(graph, method="crown", executor="cuda", dtype="float64")
    found = run(region).lower
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, run(on(device, region)).lower.cpu())


def ready(program, inputs):
    plan = make_plan(program, registry().executor("cuda"))
    plan = bind_plan(plan, bind_symbols(program, {name: np.shape(array) for name, array in inputs.items()}))
    return plan, registry().executor("cuda").open(plan, None)


def run_program(program, inputs):
    plan, opened = ready(program, inputs)
    return Schedule(plan, opened, "").run(inputs, RunCounts())


def check_program(program, inputs):
    wanted, found = evaluate(program, inputs), run_program(program, inputs)
    for name, want in wanted.items():
        got = np.asarray(found[name])
        tolerance = 1e-5 if want.dtype == np.float32 else 1e-12
        scale = np.abs(want[np.isfinite(want)].astype(np.float64)).max(initial=1.0)
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * scale, strict=True)


DRAWN = settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", PRIMITIVES)
@DRAWN
@given(data=st.data())
def test_every_primitive_equals_the_reference(name, data, device):
    case: Case = data.draw(CASES[name])
    check_program(case.program(data.draw(st.sampled_from([DType.FLOAT32, DType.FLOAT64])), ()), case.inputs)


@DRAWN
@given(program=programs)
def test_programs_equal_the_reference(program, device):
    check_program(program, inputs_for(program, {"B": 2, "S": 3}))


def test_weights_that_change_are_read_anew(device):
    """They lie in other places for each run, and in any order."""
    weight = torch.arange(6.0).reshape(2, 3).T
    parameter = torch.nn.Parameter(weight.clone())
    assert not parameter.is_contiguous()
    b = Builder(DType.FLOAT32)
    x = b.input("x", (B, 3, 2))
    program = b.finish({"y": b.tanh(x * b.constant(live(parameter))) + 1.0})
    inputs = {"x": np.ones((2, 3, 2), np.float32)}
    plan, opened = ready(program, inputs)
    schedule = Schedule(plan, opened, "")
    for number in range(3):
        parameter.data = weight * number
        found = np.asarray(schedule.run(inputs, RunCounts())["y"])
        np.testing.assert_allclose(found, np.broadcast_to(np.tanh(weight.numpy() * number) + 1, found.shape), rtol=1e-6)


def test_weights_in_another_order_are_read_in_order(device):
    b = Builder(DType.FLOAT32)
    x = b.input("x", (B, 3, 2))
    program = b.finish({"y": b.tanh(x * b.constant(np.arange(6, dtype=np.float32).reshape(2, 3).T))})
    check_program(program, {"x": np.ones((2, 3, 2), np.float32)})


def test_no_regions_launch_nothing(device):
    b = Builder(DType.FLOAT32)
    x = b.input("x", (B, 3))
    program = b.finish({"y": b.tanh(x) * x, "z": b.reduce_sum(b.exp(x), (0,))})
    found = run_program(program, {"x": np.zeros((0, 3), np.float32)})
    assert found["y"].shape == (0, 3) and np.asarray(found["z"]).tolist() == [0.0] * 3


# -- what a GPU is not needed for --------------------------------------------------------------------------------------


def test_kernels_of_all_sizes_are_compiled_once(device):
    run = compare(small_mlp(4), "ibp", "float64", device, batches=(1, 2, 5))
    assert run.stats.kernels["compiled"] <= 1


@needs_compiler
def test_launches_go_to_the_stream_of_torch():
    library = cuda_on_cpu.library()
    before = ctypes.c_int64.in_dll(library, "launches").value
    b = Builder(DType.FLOAT32)
    program = b.finish({"y": b.tanh(b.input("x", (B, 3)))})
    inputs = {"x": torch.ones(2, 3)}
    executor = registry().executor("cuda")
    executor = replace(executor, strategies=available(executor))
    plan = bind_plan(make_plan(program, executor), {"B": 2})
    opened = session.open_session(plan, None, processor)
    Schedule(plan, opened, "").run(inputs, RunCounts())
    assert ctypes.c_int64.in_dll(library, "launches").value == before + 1
    assert ctypes.c_void_p.in_dll(library, "last_stream").value == STREAM


@needs_compiler
def test_errors_of_the_driver_are_told():
    with pytest.raises(OptionError, match="GPU 3 cannot be used: cuDeviceGet: invalid device ordinal"):
        Driver(cuda_on_cpu.library(), 3)
    driver = cuda_on_cpu.driver()
    with pytest.raises(GpuError, match="cuModuleLoadData: no context"):
        driver.load(b"anything")
    with driver.current(), pytest.raises(GpuError, match="cuModuleLoadData: invalid argument"):
        driver.load(b"no file")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_says_why():
    reason = described.unavailable()
    assert reason
    with pytest.raises(OptionError, match="executor 'cuda' cannot run here: "):
        bf.compile(small_mlp(1), method="ibp", executor="cuda")
    with pytest.raises(OptionError, match="torch finds no GPU"):
        session.gpu_of(None)
    command = [sys.executable, "-m", "boundflow_core", "plugins", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {name: why for plugin in json.loads(done.stdout)["plugins"] for name, why in plugin["unavailable"].items()}
    assert found["cuda"] == found[described.NAME] == reason and "tilelang" in found["tilelang_jit"]


def test_nobody_takes_it_by_itself(device):
    run = bf.compile(small_mlp(1), method="ibp")
    run(on(device, region_of(small_mlp(1), 1, 0)))
    assert run.stats.executor != "cuda"


def test_arguments_lie_where_the_table_says():
    arguments = Arguments([2**63 - 1, 7])
    places = [ctypes.cast(place, ctypes.POINTER(ctypes.c_int64)) for place in arguments.table]
    assert [place[0] for place in places] == [2**63 - 1, 7]
    arguments.values[1] = 9
    assert places[1][0] == 9
