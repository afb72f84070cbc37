"""Whole methods on compiled kernels against the torch executor, on public networks.

    python benchmarks/tvm_methods.py ../shared/benchmarks [--repeats 15] [--only NAME] [--write docs/performance.md]

The same regions and rows run compiled and on executor torch, in turn, in one process with one thread; told are medians
of the processor time, which other programs on the machine disturb less than the clock, and their ratio. "of peak" is
the compiled time over what the call's matrix products and convolutions, as torch's program has them, would take at the
rate of a product of matrices of 512 x 512. "cold" is the processor time of the first two calls with an empty folder of
compiled code (the first bounds one region in stages, the second in one program), "warm" that of the same calls with
a new object and no code in the process, but the folder filled. Set glibc's variables as for benchmarks/crown_floor.py.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from crown_floor import (
    METHODS,
    NETS,
    Cases,
    Net,
    alternate,
    contractions,
    multiply_adds,
    recorded,
    seconds,
    table,
    write,
)

import boundflow_core as bf
from boundflow_tvm import session
from boundflow_tvm.cache import KernelCache

BEGIN, END = "<!-- table: written by benchmarks/tvm_methods.py -->", "<!-- end of the table of compiled methods -->"
CASES = (
    ("ibp", 1),
    ("ibp", 32),
    ("ibp", 256),
    *((method, n) for method in METHODS[1:] for n in (1, 32)),
)
# Further networks of convolutions.
MORE = (
    Net("cifar_wide_kw", "oval21/onnx/cifar_wide_kw.onnx", 0.03, (3, 3, 1.7, 2.5)),
    Net("resnet_3b2_bn", "sri_resnet_a/onnx/resnet_3b2_bn_mixup_adv_4.0_bs128_lr-1.onnx", 0.003, (3, 3, 2.5, 2.5)),
)
HEADER = ("network", "method", "regions", "tvm ms", "torch ms", "ratio", "of peak", "cold s", "warm s")


@dataclass(frozen=True)
class Line:
    """One line of the table; times in seconds."""

    net: str
    method: str
    regions: int
    tvm: float
    torch: float
    least: float
    cold: float
    warm: float

    def cells(self) -> list[str]:
        times = [f"{t * 1e3:.2f}" for t in (self.tvm, self.torch)]
        ratios = [f"{self.torch / self.tvm:.1f}", f"{self.tvm / self.least:.1f}"]
        return [self.net, self.method, str(self.regions), *times, *ratios, f"{self.cold:.1f}", f"{self.warm:.2f}"]


@contextmanager
def folder_for_code() -> Iterator[None]:
    """An empty folder of compiled code."""
    with (
        tempfile.TemporaryDirectory(prefix="boundflow-") as folder,
        mock.patch.dict(os.environ, {"BOUNDFLOW_CACHE_DIR": folder}),
    ):
        yield


def first_calls(make: Callable[[], Callable[[], Any]]) -> tuple[float, Callable[[], Any]]:
    """Time of the first two calls of a new object, with no compiled code in the process."""
    with mock.patch.object(session, "KERNELS", KernelCache()):
        call = make()
        return seconds(call) + seconds(call), call


def measure(cases: Cases, net: Net, method: str, regions: int, repeats: int, rate: float) -> Line:
    box, spec = cases.draw(0, regions)
    arrays = bf.Box(np.asarray(box.lower), np.asarray(box.upper)), bf.LinearSpec(np.asarray(spec.C))

    def make(executor: str) -> Callable[[], Any]:
        run = bf.compile(cases.graph, method=method, executor=executor, dtype="float32", cache=False)
        return partial(run, *(arrays if executor == "tvm" else (box, spec)))

    with folder_for_code():
        cold, _ = first_calls(partial(make, "tvm"))
        warm, compiled = first_calls(partial(make, "tvm"))
    plain = make("torch")
    plain()
    with recorded() as stages:
        plain()
    work = 2 * sum(multiply_adds(op) for op in contractions(stages))
    ours, theirs = alternate(compiled, plain, repeats)
    return Line(net.name, method, regions, ours, theirs, work / rate, cold, warm)


def peak() -> float:
    """Floating-point operations per second of a product of matrices."""
    x, y = torch.rand(512, 512), torch.rand(512, 512)
    out = torch.empty(512, 512)
    return 2 * 512**3 / min(seconds(partial(torch.mm, x, y, out=out)) for _ in range(30))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the benchmark networks")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", default="", help="networks with this in their name")
    parser.add_argument("--regions", type=int, nargs="+", help="cases of so many regions alone")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--write", type=Path, help="page whose table is to be replaced")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[list[str]] = []
    rate = peak()
    for net in (*NETS, *MORE):
        if arguments.only not in net.name or not (arguments.root / net.path).exists():
            continue
        cases = Cases(bf.load(arguments.root / net.path), net.eps)
        for method, regions in CASES:
            if method in arguments.methods and (arguments.regions is None or regions in arguments.regions):
                rows.append(measure(cases, net, method, regions, arguments.repeats, rate).cells())
                print(" | ".join(rows[-1]), flush=True)
                if arguments.write:
                    write(arguments.write, table(HEADER, rows), BEGIN, END)
    print(f"\nproducts of matrices: {rate / 1e9:.0f} GFLOP/s\n\n{table(HEADER, rows)}")


if __name__ == "__main__":
    main()
