"""What executors tell a call would take, beside what it takes: the figures that executor "auto" chooses by.

    python benchmarks/choice.py NET.onnx... [--methods ibp,crown-ibp] [--batches 1,32] [--repeats 15]

One thread; medians of processor time, executors alternating. Code that must be compiled is compiled before.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from time import process_time

import numpy as np

import boundflow_core as bf
from boundflow_core.plugins import registry

ROWS = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--methods", default="ibp,crown-ibp")
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    names = [one.name for one in registry().executors.values() if one.cost is not None and one.unavailable() is None]
    print("| network | method | batch | " + " | ".join(f"{name}, ms: told / took" for name in names) + " |")
    print("|---|---|---|" + "---|" * len(names))
    for path in options.networks:
        for method in options.methods.split(","):
            for batch in map(int, options.batches.split(",")):
                cells = compare(path, method, batch, names, options.repeats)
                print(f"| {Path(path).stem} | {method} | {batch} | {' | '.join(cells)} |", flush=True)


def compare(path: str, method: str, batch: int, names: list[str], repeats: int) -> list[str]:
    """For each executor what it tells and what a call takes."""
    graph = bf.load(path)
    rng = np.random.default_rng(0)
    centre = rng.standard_normal((batch, *graph.input_type.shape), np.float32)
    region = bf.Box(centre - 0.01, centre + 0.01)
    spec = bf.LinearSpec(rng.standard_normal((ROWS, int(np.prod(np.array(graph.output_type.shape, int)))), np.float32))
    runs = {name: bf.compile(graph, method=method, executor=name, cache=False) for name in names}
    took: dict[str, list[float]] = {name: [] for name in names}
    for run in runs.values():
        run(region, spec)
    for _ in range(repeats):
        for name, run in runs.items():
            started = process_time()
            run(region, spec)
            took[name].append(process_time() - started)
    cells = []
    for name, run in runs.items():
        cost = registry().executor(name).cost
        assert cost is not None
        cells.append(f"{cost(run.plan).run * 1e3:.2f} / {statistics.median(took[name]) * 1e3:.2f}")
    return cells


if __name__ == "__main__":
    main()
