"""Rows kept as windows against rows as full maps: the backward passes of the method crown, layer by layer.

    python benchmarks/crown_windows.py NET.onnx... [--eps E] [--rows R] [--dtype float32] [--repeats N]

For every value of a convolutional network that the method refines, its program is run with windows and with full maps
in turn, on the torch executor with one thread and one region. What is told is the median of the processor time, which
other programs on the machine disturb less than the clock, and the ratio of the two.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from unittest import mock

import numpy as np
import torch

import boundflow_core as bf
from boundflow_core.compiled import CompiledBounds, CompileOptions
from boundflow_core.ir.types import DType
from boundflow_core.plugins import registry
from boundflow_core.runner import Planning, ProgramRunner
from boundflow_core.workshop import Workshop, check_options, make_workshop
from boundflow_crown import bounds as crown_bounds
from boundflow_crown import recipe
from boundflow_crown.domain import LINEAR, relaxed_operands
from boundflow_crown.methods import CROWN
from boundflow_interval import INTERVAL


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    print(
        f"{'network':<24} {'value':<10} {'map':<12} {'rows':>5} {'windows':>10} {'full maps':>10} {'ratio':>6}  frames"
    )
    for path in arguments.networks:
        graph = bf.load(path)
        inside = known_bounds(graph, arguments.eps, arguments.dtype)
        workshop = workshop_of(graph, arguments.dtype)
        for name in relaxed_operands(graph):
            shape = graph.type_of(name).shape
            if len(shape) != 3 or name == graph.input:
                continue
            windows, full = runner(workshop, name, windows=True), runner(workshop, name, windows=False)
            if windows is None or full is None:
                continue  # bounded by intervals alone
            neurons = choose(inside, name, arguments.rows)
            inputs = {**inside, "neuron": neurons}
            calls = [partial(made, recipe.inputs_of(made, inputs)) for made in (windows, full)]
            times = alternate(calls, arguments.repeats)
            ours, theirs = (statistics.median(t) * 1e3 for t in times)
            size = "x".join(map(str, shape))
            print(
                f"{graph.name[:24]:<24} {name:<10} {size:<12} {len(neurons):>5} {ours:>7.2f} ms {theirs:>7.2f} ms "
                f"{ours / theirs:>6.2f}  {', '.join(frames(windows))}",
                flush=True,
            )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--eps", type=float, default=0.01)
    parser.add_argument("--rows", type=int, default=None, help="number of neurons; those that are undecided if absent")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=15)
    return parser.parse_args()


def known_bounds(graph: bf.PrimalGraph, eps: float, dtype: str) -> dict[str, np.ndarray]:
    """The region, and crown's bounds of all values inside, named as the programs name them."""
    names = registry()
    run = CompiledBounds(graph, CROWN, names, names.executor("torch"), CompileOptions(dtype=DType(dtype)))
    x = np.random.default_rng(0).random((1, *graph.input_type.shape)).astype(dtype)
    found = run(bf.Box(x - eps, x + eps))
    inside = {
        f"{side}:{name}": pair[i]
        for name, pair in found.intermediate.items()
        for i, side in enumerate(("lower", "upper"))
    }
    return {"lower": x - eps, "upper": x + eps, **inside}


def workshop_of(graph: bf.PrimalGraph, dtype: str) -> Workshop:
    planning = Planning(registry().executor("torch"), tuple(registry().passes.values()))
    domains = {"interval": INTERVAL, "linear": LINEAR}
    options = check_options(CROWN, {})
    return make_workshop(graph, CROWN, domains, dtype=DType(dtype), spec=None, options=options, planning=planning)


def runner(workshop: Workshop, name: str, *, windows: bool) -> ProgramRunner | None:
    """The program that bounds neurons of the value ``name``, where there is one."""
    rules = crown_bounds.WINDOW_RULES if windows else {}
    names = [other for other in relaxed_operands(workshop.graph) if other != workshop.graph.input]
    with mock.patch.object(crown_bounds, "WINDOW_RULES", rules):
        made = recipe._layer(workshop, name, tuple(names)).shared
        if made is not None:
            made.bind({})  # programs are written when they are first needed: now, under these rules
    return made


def choose(inside: dict[str, np.ndarray], name: str, count: int | None) -> np.ndarray:
    lower, upper = inside[f"lower:{name}"].reshape(-1), inside[f"upper:{name}"].reshape(-1)
    if count is None:
        return np.flatnonzero((lower < 0) & (upper > 0))
    return np.random.default_rng(1).choice(len(lower), min(count, len(lower)), replace=False)


def alternate(calls: list[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Seconds of processor time of each call, taken in turn."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, seconds in zip(calls, times, strict=True):
            started = time.process_time()
            call()
            seconds.append(time.process_time() - started)
    return times


def frames(made: ProgramRunner) -> list[str]:
    """The windows that the plan shows."""
    origins = [op.origin for op in made.plan.program.ops if "(window" in op.origin]
    return [origin.split("(window ")[1].rstrip(")") for origin in dict.fromkeys(origins)]


if __name__ == "__main__":
    main()
