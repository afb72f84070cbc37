"""What the torch executor adds to each step: a planned chain of operations against the bare torch calls with ``out=``.

    python benchmarks/step_overhead.py [--steps 200] [--rounds 300]

Both run the same calls on memory of the same sizes, alternating, in one thread; medians are shown. The issue's bound is
2 us per step.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from time import perf_counter_ns
from typing import Any

import torch

from boundflow_core.builtin import boundflow_register_executors
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.planner.pipeline import bind_plan, make_plan

B = SymDim.of("B")
WEIGHT = torch.eye(4)

# Per kind: what writes the step, and the bare call.
KINDS: dict[str, tuple[Callable[[Builder, Value], Value], Callable[[Any, Any], Any]]] = {
    "tanh": (lambda b, x: b.tanh(x), lambda x, out: torch.tanh(x, out=out)),
    "maximum": (lambda b, x: b.maximum(x, 0.0), lambda x, out: torch.maximum(x, ZERO, out=out)),
    "matmul": (lambda b, x: b.matmul(x, b.constant(WEIGHT.numpy())), lambda x, out: torch.matmul(x, WEIGHT, out=out)),
    "matmul, transposed": (
        lambda b, x: b.matmul(x, b.constant(WEIGHT.numpy()), transpose_b=True),
        lambda x, out: torch.matmul(x, TRANSPOSED, out=out),
    ),
    "reduce_sum and add": (
        lambda b, x: b.add(x, b.reduce_sum(x, (1,), keepdims=True)),
        lambda x, out: torch.add(x, torch.sum(x, 1, True, out=SUM), out=out),
    ),
}
ZERO, TRANSPOSED, SUM = torch.zeros(()), WEIGHT.mT, torch.empty(2, 1)


def planned(write: Callable[[Builder, Value], Value], steps: int) -> tuple[Callable[[], None], int]:
    """Runs the tasks of a planned chain; and its number of steps."""
    b = Builder(DType.FLOAT32)
    x = b.input("x", (B, 4))
    for _ in range(steps):
        x = write(b, x)
    executor = next(e for e in boundflow_register_executors() if e.name == "torch")
    # without reuse, as in place or not makes a difference of its own
    plan = bind_plan(make_plan(b.finish({"out": x}), executor, reuse=False), {"B": 2})
    session: Any = executor.open(plan, None)
    session.start({"x": torch.ones(2, 4) * 0.1})
    names = tuple(task.name for task in plan.tasks)
    return partial(session.run_tasks, names), sum(len(task.ops) for task in plan.tasks)


def bare(call: Callable[[Any, Any], Any], steps: int) -> Callable[[], None]:
    values = [torch.ones(2, 4) * 0.1, *(torch.empty(2, 4) for _ in range(steps))]

    def run() -> None:
        for x, out in pairwise(values):
            call(x, out)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'':20} {'planned':>9} {'bare':>9} {'added':>9}   us per step, medians of {options.rounds} alternating runs"
    )
    with torch.no_grad():
        for kind, (write, call) in KINDS.items():
            run, count = planned(write, options.steps)
            pairs = {"planned": run, "bare": bare(call, options.steps)}
            times: dict[str, list[float]] = {name: [] for name in pairs}
            for _ in range(options.rounds):
                for name, function in pairs.items():
                    started = perf_counter_ns()
                    function()
                    times[name].append((perf_counter_ns() - started) / 1000 / count)
            one, other = (statistics.median(times[name]) for name in pairs)
            print(f"{kind:20} {one:9.3f} {other:9.3f} {one - other:+9.3f}")


if __name__ == "__main__":
    main()
