"""How fast an answer from the cache is: a second identical call against the first one after compilation.

python benchmarks/cache.py ../shared/benchmarks/cifar10_resnet/onnx/resnet_2b.onnx [--executor torch]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
from pathlib import Path
from time import perf_counter

import numpy as np

import boundflow_core as bf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("--executor", default="auto")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--profile", action="store_true", help="show where the time of hits goes")
    options = parser.parse_args()
    graph = bf.load(options.network)
    numbers = np.random.default_rng(0)
    shape = (options.batch, *map(int, graph.input_type.shape))  # type: ignore[arg-type]
    outputs = int(np.prod(graph.output_type.shape))  # type: ignore[arg-type]
    regions = [bf.LpBall(numbers.normal(size=shape).astype(np.float32), 0.01) for _ in range(options.rounds)]
    specs = [bf.LinearSpec(numbers.normal(size=(9, outputs)).astype(np.float32)) for _ in range(options.rounds)]
    run = bf.compile(graph, executor=options.executor, batch=options.batch, spec_rows=9)

    def seconds(region: bf.LpBall, spec: bf.LinearSpec) -> float:
        started = perf_counter()
        run(region, spec)
        return perf_counter() - started

    before = run.stats.compile_seconds
    first = seconds(regions[0], specs[0]) - (run.stats.compile_seconds - before)
    misses, hits, other_specs = [], [], []
    for region, spec in zip(regions[1:], specs[1:], strict=True):
        misses.append(seconds(region, spec))
        other_specs.append(seconds(region, specs[0]))
        hits.append(seconds(region, spec))
    hit = statistics.median(hits)
    print(f"{options.network.name}, executor {run.executor}, {options.batch} regions; milliseconds")
    print(f"first call, without compiling   {first * 1e3:8.3f}   {first / hit:6.1f} times a hit")
    miss, other = statistics.median(misses), statistics.median(other_specs)
    print(f"another region (median)         {miss * 1e3:8.3f}   {miss / hit:6.1f}")
    print(f"another specification           {other * 1e3:8.3f}   {other / hit:6.1f}")
    print(f"the same call again             {hit * 1e3:8.3f}")
    print(f"tasks: {run.stats.tasks_run} run, {run.stats.tasks_skipped} not; {run.options.cache.stats}")
    if options.profile:
        with cProfile.Profile() as profile:
            for _ in range(200):
                run(regions[-1], specs[-1])
        pstats.Stats(profile).sort_stats("tottime").print_stats(18)


if __name__ == "__main__":
    main()
