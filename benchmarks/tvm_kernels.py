"""Time of each kernel template against the torch executor's way of the same operation, on the layers of real networks.

    python benchmarks/tvm_kernels.py ../shared/benchmarks [--only NAME] [--regions 1 32] [--seconds 1]

Methods `ibp` and `crown` run once on each network; every operation that a template takes becomes a program of its own,
of the sizes of that call, on random data, and runs compiled and on executor torch, in turn, in one process with one
thread. Told are medians of the processor time, their ratio, and the rate of multiplications and additions as a share
of what torch reaches on a product of matrices of 512 x 512.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from crown_floor import NETS, Net

import boundflow_core as bf
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.program import BoundProgram, Op
from boundflow_core.ir.types import DType, concrete_shape
from boundflow_core.planner import pipeline
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.plugins import registry
from boundflow_core.runner import ProgramRunner
from boundflow_core.scheduler import RunCounts, Schedule
from boundflow_tvm.kernels import template_of
from boundflow_tvm.rowfusion import fuse_rows


def programs(net: Net, folder: Path, method: str, regions: int) -> Iterator[tuple[BoundProgram, Mapping[str, int]]]:
    """Programs that a call runs, with composites whole, and their sizes."""
    graph = bf.load(folder / net.path)
    rng, whole, runs = np.random.default_rng(0), {}, []
    original, run_original = pipeline.decompose, ProgramRunner._run

    def decompose(program: BoundProgram, *rest: Any) -> BoundProgram:
        whole.setdefault((program.name, tuple(v.name for v in program.inputs)), program)  # again if some remain
        return original(program, *rest)

    def run(self: ProgramRunner, inputs: Any, sizes: Any, device: str) -> Any:
        runs.append((self.program, dict(sizes)))
        return run_original(self, inputs, sizes, device)

    with mock.patch.object(pipeline, "decompose", decompose), mock.patch.object(ProgramRunner, "_run", run):
        count = graph.type_of(graph.output).shape[0]
        rows = np.eye(count, dtype=np.float32)[1:] - np.eye(count, dtype=np.float32)[:1]
        centre = rng.random((regions, *graph.type_of(graph.input).shape), dtype=np.float32)
        compiled = bf.compile(graph, method=method, spec_rows=len(rows), executor="torch", cache=False)
        compiled(bf.LpBall(torch.tensor(centre), net.eps), bf.LinearSpec(torch.tensor(rows)))
    for program, sizes in runs:
        yield whole[program.name, tuple(v.name for v in program.inputs)], sizes


def alone(op: Op, known: Mapping[Any, Any], sizes: Mapping[str, int]) -> tuple[BoundProgram, dict[str, Any]]:
    """``op`` as a program of its own, and random operands."""
    b, rng = Builder(DType.FLOAT32, op.name), np.random.default_rng(0)
    values, arrays = [], {}
    for number, value in enumerate(op.inputs):
        if value in known:
            values.append(b.constant(known[value]))
            continue
        values.append(b.input(f"x{number}", value.shape, value.type.dtype))
        shape = concrete_shape(value.shape, sizes)
        floats = value.type.dtype.is_float
        # Numbers of regions or places: the first of all, which are the only ones sure to be there.
        arrays[f"x{number}"] = rng.random(shape).astype(np.float32) - 0.5 if floats else np.zeros(shape, np.int64)
    outputs = b.write(op.spec, values, op.attrs)
    return b.finish({f"y{i}": value for i, value in enumerate(outputs)}), arrays


def runner(program: BoundProgram, arrays: dict[str, Any], sizes: Mapping[str, int], name: str) -> Callable[[], Any]:
    executor = registry().executor(name)
    used = {symbol: sizes[symbol] for symbol in program.symbols()}
    plan = bind_plan(make_plan(program, executor, registry().passes.values()), used)
    schedule = Schedule(plan, executor.open(plan, None), "")
    operands = {n: torch.from_numpy(a) for n, a in arrays.items()} if name == "torch" else arrays
    return lambda: schedule.run(operands, RunCounts())


def medians(calls: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Seconds of processor time of each call, run in turn."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(next(iter(times.values()))) < 5:
        for name, call in calls.items():
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--regions", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x, y = torch.rand(512, 512), torch.rand(512, 512)
    peak = 2 * 512**3 / medians({"mm": lambda: torch.mm(x, y)}, 1.0)["mm"] / 1e9
    print(f"products of matrices: {peak:.0f} GFLOP/s\n")
    print("| network | regions | program | operation | tvm us | torch us | ratio | GFLOP/s | of peak |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for net in NETS:
        if arguments.only not in net.name:
            continue
        for regions in arguments.regions:
            seen = set()
            for program, sizes in programs(net, arguments.folder, "crown", regions):
                fused = fuse_rows(program)
                known = {v: c.numpy() for v, c in fused.constants.items() if not c.is_live}
                for op in fused.ops:
                    if known.keys() >= set(op.inputs):
                        single, _ = alone(op, known, sizes)
                        known.update(zip(op.outputs, evaluate(single, {}).values(), strict=True))
                        continue
                    kernel = template_of(op, [value in known for value in op.inputs])
                    if kernel is None or (kernel.key, tuple(sizes.items())) in seen:
                        continue
                    seen.add((kernel.key, tuple(sizes.items())))
                    single, arrays = alone(op, known, sizes)
                    calls = {name: runner(single, arrays, sizes, name) for name in ("tvm", "torch")}
                    found = medians(calls, arguments.seconds)
                    rows = np.prod(concrete_shape(op.outputs[-1].shape[: 2 if op.name == "row_program" else 1], sizes))
                    if op.name == "row_program" and op.attrs["program"].mirrored:
                        rows = rows / 2
                    rate = kernel.flops * rows / found["tvm"] / 1e9
                    size = ", ".join(f"{k}={v}" for k, v in sizes.items())
                    print(
                        f"| {net.name} | {regions} | {program.name.split('(')[0]} {size} | {op.name} | "
                        f"{found['tvm'] * 1e6:.0f} | {found['torch'] * 1e6:.0f} | "
                        f"{found['torch'] / found['tvm']:.1f} | {rate:.0f} | {rate / peak:.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
