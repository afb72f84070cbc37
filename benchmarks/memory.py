"""Memory of a method on benchmark networks: one buffer per value, as planned, and as measured while it runs.

    python benchmarks/memory.py ../shared/benchmarks [--batch 8] [--write docs/memory.md]

Measured is the highest sum of tensor memory from the start of a run to its end, weights and inputs of the caller not
counted: with NumPy by its allocation functions, with torch by the allocations that its profiler records. Scratch memory
that oneDNN and BLAS libraries take from the system is in neither. A float32 run on regions, no specification.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy_allocations import counted

import boundflow_core as bf
from boundflow_core.errors import BoundFlowError
from boundflow_core.ir.types import concrete_shape
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.plugins import registry

BEGIN, END = "<!-- table: written by benchmarks/memory.py -->", "<!-- end of table -->"


def prepared(plan: PlanBundle) -> Callable[[], Any]:
    """A run of ``plan`` on zeros, prepared."""
    session = registry().executor(plan.executor).open(plan, None)
    inputs = {v.name: np.zeros(concrete_shape(v.shape, plan.sizes), v.type.dtype.numpy) for v in plan.program.inputs}
    names = tuple(task.name for task in plan.tasks)

    def call() -> Any:
        with session.running():
            session.start(inputs)
            session.run_tasks(names)
            return session.results()

    return call


def measured_numpy(call: Callable[[], Any], arena: int) -> int:
    """Highest memory during ``call`` beside what was there before, and the arena, which was."""
    call()
    with counted() as held:
        result = call()
        del result
    return held.peak + arena


def measured_torch(call: Callable[[], Any], arena: int) -> int:
    """The same, from the allocations and releases that torch's profiler sees."""
    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
        del result
    held = peak = 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak + arena


MEASURE: Mapping[str, Callable[[Callable[[], Any], int], int]] = {"reference": measured_numpy, "torch": measured_torch}


def row(path: Path, batch: int, method: str) -> tuple[str, ...]:
    """The table's row of one network."""
    graph = bf.load(path)
    lower = np.zeros((batch, *concrete_shape(graph.input_type.shape, {})), np.float32)
    cells = []
    for executor, measure in MEASURE.items():
        run = bf.compile(graph, method=method, executor=executor, cache=False)
        run(bf.Box(lower, lower + 0.01))
        storage = run.plan.storage
        got = measure(prepared(run.plan), storage.arena_bytes)
        if not cells:
            cells.append(mib(storage.naive_bytes))
        share = storage.peak_bytes / storage.naive_bytes
        cells += [mib(storage.peak_bytes), f"{share:.0%}", mib(got), f"{got / storage.peak_bytes - 1:+.1%}"]
    return (f"{path.parent.parent.name}/{path.stem[:28]}", *cells)


def mib(count: int) -> str:
    return f"{count / 2**20:.3f}"


HEAD = (
    "network",
    "naive",
    "NumPy planned",
    "of naive",
    "measured",
    "off",
    "torch planned",
    "of naive",
    "measured",
    "off",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--method", default="ibp", help="the plan of its main program")
    parser.add_argument("--only", default="", help="part of a path")
    parser.add_argument("--write", type=Path, help="put the table into this file, between its marks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [HEAD, ("---", *["---:"] * (len(HEAD) - 1))]
    for path in sorted(options.folder.glob("*/onnx/*.onnx")):
        if options.only not in str(path):
            continue
        try:
            rows.append(row(path, options.batch, options.method))
        except BoundFlowError as error:
            rows.append((f"{path.parent.parent.name}/{path.stem[:28]}", f"not bounded: {error}"[:70], *[""] * 8))
        print("| " + " | ".join(rows[-1]) + " |", flush=True)
    if options.write:
        text = options.write.read_text()
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
        options.write.write_text(f"{before}{BEGIN}\nMiB, batches of {options.batch} regions.\n\n{table}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
