"""Time of the methods over their floor: the matrix products and convolutions that a call runs, in plain torch.

    python benchmarks/crown_floor.py ../shared/benchmarks [--repeats 15] [--only NAME] [--write docs/performance.md]
    python benchmarks/crown_floor.py ../shared/benchmarks --profile --methods crown [--only NAME]

A call's floor is read off the programs that it ran: every ``matmul``, ``conv2d``, ``conv2d_input_grad`` and
``conv2d_weight_grad`` at the sizes of that call, on random data, back to back, each by whichever plain torch call of a
few is fastest on its shapes. Products with a single vector are not in it: sums of biases and bounds are the method's
own overhead, however they are written. Rows that a piece is filled up with are in it. Call and floor alternate in one
process; told are medians of the processor time, which other programs on the machine disturb less than the clock. One
thread, float32, executor torch, nothing cached. "of single runs" is the share of calls for each region of the batch by
itself, one after another; these alternate with calls for the whole batch.

"fresh" is the time of calls on regions that were not seen before: other numbers of neurons are undecided then, so that
programs are prepared for other sizes on the way.

``--profile`` tells instead what the operations of a call cost, by kind: how often a kind ran, the bytes that its
operands and results have, what copying as many bytes takes, what plain torch takes (of the floor's operations), its
time, and its share of the time of all operations. Those that only tell where elements lie cost nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

import boundflow_core as bf
from boundflow_core.executors.convolution import Convolution
from boundflow_core.executors.torch import TorchBackend
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.program import Op
from boundflow_core.planner.plan import PlanBundle
from boundflow_core.scheduler import Schedule

BEGIN, END = "<!-- table: written by benchmarks/crown_floor.py -->", "<!-- end of table -->"

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown")


@dataclass(frozen=True)
class Net:
    """A benchmark network, the radius of its regions, and how many times the floor each method may take."""

    name: str
    path: str
    eps: float
    goals: tuple[float, float, float, float]


NETS = (
    Net("mnist-net_256x4", "mnist_fc/onnx/mnist-net_256x4.onnx", 0.03, (3, 3, 1.7, 2.5)),
    Net("cifar_base_kw", "oval21/onnx/cifar_base_kw.onnx", 0.03, (3, 3, 1.7, 2.5)),
    Net("resnet_2b", "cifar10_resnet/onnx/resnet_2b.onnx", 0.005, (3, 3, 2.5, 2.5)),
    Net("ACASXU_run2a_1_1", "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx", 0.05, (15, 15, 15, 15)),
)


Stages = list[tuple[PlanBundle, tuple[str, ...]]]


@contextmanager
def recorded() -> Iterator[Stages]:
    """The tasks that run meanwhile, with their plans, bound to sizes."""
    stages: Stages = []
    original = Schedule.run_tasks

    def run_tasks(self: Schedule, names: tuple[str, ...]) -> None:
        stages.append((self.plan, names))
        original(self, names)

    with mock.patch.object(Schedule, "run_tasks", run_tasks):
        yield stages


def contractions(stages: Stages) -> list[Op]:
    """The operations that cannot be avoided, of concrete shapes."""
    names = ("matmul", "conv2d", "conv2d_input_grad", "conv2d_weight_grad")
    found = []
    for plan, tasks in stages:
        bound = dict(zip(plan.program.ops, plan.program.bind(plan.sizes).ops, strict=True))
        ops = [bound[op] for name in tasks for op in plan.graph[name].ops]
        found += [op for op in ops if op.name in names and not _is_sum(op)]
    return found


def _is_sum(op: Op) -> bool:
    """Whether ``op`` is a product with a vector, as biases and bounds are summed up by; a floor is without these."""
    return op.name == "matmul" and op.outputs[0].shape[-1] == 1


def candidates(op: Op) -> list[Callable[[], Any]]:
    """Plain torch calls that compute ``op``."""
    operands = [torch.rand([int(d) for d in value.shape]) for value in op.inputs]  # type: ignore[arg-type]
    result = torch.empty([int(d) for d in op.outputs[0].shape])  # type: ignore[arg-type]
    if op.name == "matmul":
        x = operands[0].mT if op.attrs["transpose_a"] else operands[0]
        y = operands[1].mT if op.attrs["transpose_b"] else operands[1]
        calls = [partial(torch.matmul, x, y, out=result)]
        if x.ndim == 2 and y.ndim == 2:
            calls.append(partial(torch.mm, x, y, out=result))
        if x.ndim > 2 and y.ndim == 2 and x.is_contiguous():
            calls.append(partial(torch.mm, x.reshape(-1, x.shape[-1]), y, out=result.reshape(-1, y.shape[-1])))
        return calls
    options: dict[str, Any] = {"stride": list(op.attrs["stride"]), "dilation": list(op.attrs["dilation"])}
    options["groups"] = op.attrs["groups"]
    top, left, bottom, right = op.attrs["padding"]
    padding = (max(top, bottom), max(left, right))  # a little more than needed, where borders differ
    x, w = operands
    if op.name == "conv2d":
        calls = [partial(F.conv2d, x, w, padding=padding, **options)]
        if (top, left) != (bottom, right):
            padded = F.pad(x, (left, right, top, bottom))
            calls.append(partial(F.conv2d, padded, w, **options))
        return calls
    if op.name == "conv2d_input_grad":
        calls = [
            partial(F.conv_transpose2d, x, w, padding=(min(top, bottom), min(left, right)), **options),
            partial(F.conv_transpose2d, x, w, **options),
        ]
        inner = Convolution.of(op, {}).subpixel
        if options["groups"] == 1 and min(inner.padding) >= 0:
            # As a convolution of stride 1, without bringing its channels to their places.
            weight = torch.rand(inner.outputs, inner.channels, *inner.kernel)
            top, left, bottom, right = inner.padding
            calls.append(partial(F.conv2d, x, weight, padding=(max(top, bottom), max(left, right))))
            calls.append(partial(F.conv2d, F.pad(x, (left, right, top, bottom)), weight))
        return calls
    weight = x.new_empty(1).expand(w.shape[1], x.shape[1] // options["groups"], *op.attrs["kernel_size"])
    padded = F.pad(x, (left, right, top, bottom))
    backward = torch.ops.aten.convolution_backward
    tail = (options["stride"], [0, 0], options["dilation"], False, [0, 0], options["groups"], [False, True, False])
    return [partial(backward, w, padded, weight, None, *tail)]


def multiply_adds(op: Op) -> int:
    """Number of multiplications of ``op``."""
    shapes = [[int(d) for d in value.shape] for value in (*op.inputs, *op.outputs)]  # type: ignore[arg-type]
    if op.name == "matmul":
        return prod(shapes[2]) * shapes[0][-2 if op.attrs["transpose_a"] else -1]
    if op.name == "conv2d":
        return prod(shapes[2]) * prod(shapes[1][1:])
    if op.name == "conv2d_input_grad":
        return prod(shapes[0]) * prod(shapes[1][1:])
    return prod(shapes[1]) * prod(shapes[2][1:])


def fastest(op: Op) -> int:
    """Number of the fastest of :func:`candidates`."""
    times = [min(seconds(call) for _ in range(4)) for call in candidates(op)]
    return times.index(min(times))


def seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def floor_of(stages: Stages) -> tuple[Callable[[], None], int]:
    """The floor as a call, and its multiply-adds. Equal operations share the choice, but not their data."""
    chosen: dict[Any, int] = {}
    calls = []
    ops = contractions(stages)
    for op in ops:
        key = (op.name, tuple(value.shape for value in op.inputs), op.attrs)
        if key not in chosen:
            chosen[key] = fastest(op)
        calls.append(candidates(op)[chosen[key]])

    def floor() -> None:
        for call in calls:
            call()

    return floor, sum(multiply_adds(op) for op in ops)


def alternate(ours: Callable[[], Any], floor: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Medians of the times of both, in seconds, in turns."""
    ours(), floor(), ours(), floor()
    pairs = [(seconds(ours), seconds(floor)) for _ in range(repeats)]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


@dataclass(frozen=True)
class Cases:
    """Random regions and margin rows of a network."""

    graph: bf.PrimalGraph
    eps: float

    def draw(self, seed: int, batch: int) -> tuple[bf.Box, bf.LinearSpec]:
        """``batch`` boxes around points in [0, 1], and for each the margins of its label over all others."""
        x = torch.from_numpy(np.random.default_rng(seed).random((batch, *self.graph.input_type.shape), np.float32))
        scores = evaluate_graph(self.graph, x.numpy()).reshape(batch, -1)
        eye = np.eye(scores.shape[1], dtype=np.float32)
        labels = scores.argmax(1)
        rows = np.stack([np.delete(eye[label] - eye, label, 0) for label in labels])
        return bf.Box(x - self.eps, x + self.eps), bf.LinearSpec(torch.from_numpy(rows))


@dataclass(frozen=True)
class Line:
    """One line of the table; times in seconds."""

    net: str
    method: str
    batch: int
    ours: float
    floor: float
    fresh: float
    work: int
    goal: float | None
    peak: int
    share: float = float("nan")

    @property
    def ratio(self) -> float:
        return self.ours / self.floor

    def cells(self) -> list[str]:
        goal = "" if self.goal is None else f"{self.goal:g}"
        times = [f"{t * 1e3:.2f}" for t in (self.ours, self.floor)]
        share = "" if self.share != self.share else f"{self.share:.2f}"
        fresh = "" if self.fresh != self.fresh else f"{self.fresh * 1e3:.2f}"
        return [self.net, self.method, str(self.batch), *times, f"{self.ratio:.2f}", goal, share, fresh,
                f"{self.work / 1e6:.1f}", f"{self.peak / 2**20:.1f}"]  # fmt: skip


HEADER = ("network", "method", "regions", "ms", "floor ms", "ratio", "goal", "of single runs", "fresh ms")
HEADER += ("M multiply-adds", "peak MiB")


def measure(cases: Cases, net: Net, method: str, batch: int, repeats: int, goal: float | None) -> Line:
    run = bf.compile(cases.graph, method=method, executor="torch", dtype="float32", cache=False)
    region, spec = cases.draw(0, batch)
    call = partial(run, region, spec)
    call()
    with recorded() as stages:
        call()
    floor, work = floor_of(stages)
    ours, least = alternate(call, floor, repeats)
    fresh = [cases.draw(seed, batch) for seed in range(1, 1 + min(repeats, 9))] if batch == 1 else []
    times = [seconds(partial(run, *drawn)) for drawn in fresh]
    peak = max(plan.storage.peak_bytes for plan, _ in stages)
    share = float("nan") if batch == 1 else share_of_singles(call, cases, method, batch, max(3, repeats // 2))
    return Line(net.name, method, batch, ours, least, statistics.median(times) if times else float("nan"),
                work, goal, peak, share)  # fmt: skip


# -- where the time goes ----------------------------------------------------------------------------------------------


@dataclass
class Spent:
    """What the operations of one kind took in a call, and what plain torch takes for them if they are contractions."""

    count: int = 0
    bytes: int = 0
    seconds: float = 0.0
    plain: float = 0.0


def bytes_per_second() -> float:
    """Bytes read and written by copying arrays of the size of a few rows' maps, 16 MiB of them in turns."""
    arrays = [torch.rand(2**19) for _ in range(8)]
    pairs = [(arrays[n], arrays[n - 1]) for n in range(8)]
    times = [seconds(partial(target.copy_, source)) for _ in range(20) for target, source in pairs]
    return 2 * 2**21 / statistics.median(times)


@contextmanager
def spending(spent: dict[str, Spent]) -> Iterator[None]:
    """Kernels that are made meanwhile note what they take, those that compute weights beforehand too."""
    original = TorchBackend.kernel

    def kernel(self: TorchBackend, op: Op, fixed: Any) -> Callable[..., Any]:
        inner, mine = original(self, op, fixed), spent.setdefault(op.name, Spent())
        moved = sum(prod(v.shape) * v.type.dtype.itemsize for v in (*op.inputs, *op.outputs))  # type: ignore[arg-type]

        def noted(*arrays: Any, **options: Any) -> Any:
            start = time.thread_time()
            result = inner(*arrays, **options)
            mine.seconds += time.thread_time() - start
            mine.count, mine.bytes = mine.count + 1, mine.bytes + moved
            return result

        return noted

    with mock.patch.object(TorchBackend, "kernel", kernel):
        yield


def profile(cases: Cases, net: Net, method: str, batch: int, repeats: int) -> str:
    """The table of :class:`Spent` of a call, a mean over repeated calls, those that take most time first."""
    spent: dict[str, Spent] = {}
    with spending(spent):
        run = bf.compile(cases.graph, method=method, executor="torch", dtype="float32", cache=False)
        call = partial(run, *cases.draw(0, batch))
        call()
        with recorded() as stages:
            call()
        for mine in spent.values():
            mine.count, mine.bytes, mine.seconds = 0, 0, 0.0
        for _ in range(repeats):
            call()
    for op in contractions(stages):
        each = candidates(op)[fastest(op)]
        spent[op.name].plain += statistics.median(seconds(each) for _ in range(3))
    speed, whole = bytes_per_second(), sum(mine.seconds for mine in spent.values())
    rows = [["operation", "count", "MB", "copy ms", "plain ms", "ms", "share"], ["---", *["---:"] * 6]]
    for name, mine in sorted(spent.items(), key=lambda item: -item[1].seconds):
        if mine.count:
            moved = mine.bytes / repeats
            rows.append([name, f"{mine.count / repeats:.0f}", f"{moved / 1e6:.2f}", f"{moved / speed * 1e3:.2f}",
                         f"{mine.plain * 1e3:.2f}" if mine.plain else "", f"{mine.seconds / repeats * 1e3:.2f}",
                         f"{mine.seconds / whole:.0%}"])  # fmt: skip
    head = f"{net.name}, {method}, {batch} regions: {whole / repeats * 1e3:.2f} ms in operations"
    return f"{head}; copies at {speed / 1e9:.1f} GB/s\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def share_of_singles(whole: Callable[[], Any], cases: Cases, method: str, batch: int, repeats: int) -> float:
    """Time of a call for a batch as a part of that of calls for each of its regions."""
    run = bf.compile(cases.graph, method=method, executor="torch", dtype="float32", cache=False)
    region, spec = cases.draw(0, batch)
    each = [
        partial(run, bf.Box(region.lower[n : n + 1], region.upper[n : n + 1]), bf.LinearSpec(spec.C[n : n + 1]))
        for n in range(batch)
    ]

    def singles() -> None:
        for call in each:
            call()

    together, apart = alternate(whole, singles, repeats)
    return together / apart


def lines(root: Path, only: str, methods: tuple[str, ...], repeats: int, batches: bool) -> Iterator[Line]:
    for net in NETS:
        if only not in net.name or not (root / net.path).exists():
            continue
        cases = Cases(bf.load(root / net.path), net.eps)
        for method, goal in zip(METHODS, net.goals, strict=True):
            if method in methods:
                yield measure(cases, net, method, 1, repeats, goal)
                if batches and method != "alpha-crown":
                    yield measure(cases, net, method, 32, max(3, repeats // 4), None)


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def write(path: Path, text: str, begin: str, end: str) -> None:
    """Replaces what stands between the marks ``begin`` and ``end`` of the page ``path``."""
    head, rest = path.read_text().split(begin)
    path.write_text(f"{head}{begin}\n{text}{end}{rest.split(end)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the benchmark networks")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--no-batches", action="store_true", help="leave the batches of 32 regions out")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    parser.add_argument("--profile", action="store_true", help="tell what the operations of a call cost, by kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.profile:
        for net in NETS:
            if arguments.only in net.name and (arguments.root / net.path).exists():
                cases = Cases(bf.load(arguments.root / net.path), net.eps)
                for method in arguments.methods:
                    for batch in (1,) if arguments.no_batches else (1, 32):
                        print(profile(cases, net, method, batch, arguments.repeats), flush=True)
        return
    found = []
    for line in lines(
        arguments.root, arguments.only, tuple(arguments.methods), arguments.repeats, not arguments.no_batches
    ):
        found.append(line)
        print("  ".join(f"{cell:>10}" for cell in line.cells()), file=sys.stderr, flush=True)
    text = table(HEADER, (line.cells() for line in found))
    print(text)
    if arguments.write:
        write(arguments.write, text, BEGIN, END)


if __name__ == "__main__":
    main()
