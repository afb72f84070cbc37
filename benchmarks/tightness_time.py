"""Tightness against time of the methods: the table and the picture of docs/methods.md.

    python benchmarks/tightness_time.py [--benchmarks ../shared/benchmarks] [--rounds 9] [--write docs/methods.md]

On the networks of the demo, and on some public ones where their folder is given: margins of the label over all other
outputs, for a ball around each of a few inputs, one region a call, nothing cached, executor torch, float32, one thread.
Methods take turns in one process; times are medians of processor time over those of ibp, so that a busy machine moves
all of them alike. Widths are means over rows and regions, over those of ibp.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

import boundflow_core as bf

BEGIN, END = "<!-- table: written by benchmarks/tightness_time.py -->", "<!-- end of table -->"
METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ibp": ("ibp", {}),
    "crown-ibp": ("crown-ibp", {}),
    "crown": ("crown", {}),
    "alpha-crown": ("alpha-crown", {}),
    "alpha-crown, optimized inside": ("alpha-crown", {"intermediate": "optimized"}),
}
PUBLIC = {
    "mnist-net_256x4": ("mnist_fc/onnx/mnist-net_256x4.onnx", 0.02),
    "cifar_base_kw": ("oval21/onnx/cifar_base_kw.onnx", 0.01),
    "resnet_2b": ("cifar10_resnet/onnx/resnet_2b.onnx", 0.004),
}
REGIONS = 4


@dataclass(frozen=True)
class Found:
    """Of one method on one network, over those of ibp."""

    network: str
    eps: float
    method: str
    width: float
    seconds: float


def networks(root: Path | None) -> Iterator[tuple[str, Any, NDArray[Any], float]]:
    """Name, network, inputs [REGIONS, *input] and radius."""
    data = files("boundflow_core.demo") / "data"
    with (data / "digits_test.npz").open("rb") as file:
        images = np.load(file)["images"][:REGIONS] / 16.0
    for name in ("digits_mlp", "digits_cnn"):
        graph = bf.load(str(data / f"{name}.onnx"))
        yield name, graph, images.reshape(REGIONS, *graph.input_type.shape), 0.04
    for name, (path, eps) in PUBLIC.items() if root is not None else ():
        assert root is not None
        graph = bf.load(root / path)
        yield name, graph, np.random.default_rng(0).uniform(0, 1, (REGIONS, *graph.input_type.shape)), eps


def measure(name: str, graph: Any, inputs: NDArray[Any], eps: float, rounds: int) -> list[Found]:
    from boundflow_core.forward import evaluate_graph

    scores = evaluate_graph(graph, inputs).reshape(len(inputs), -1)
    eye = np.eye(scores.shape[1])
    calls = [
        (bf.LpBall(x[None], eps), bf.LinearSpec(np.delete(eye[label] - eye, label, 0)))
        for x, label in zip(inputs, scores.argmax(1), strict=True)
    ]
    runs = {
        title: bf.compile(graph, method=method, executor="torch", cache=False, **options)
        for title, (method, options) in METHODS.items()
    }
    widths = dict.fromkeys(runs, 0.0)
    for region, spec in calls:  # also the first calls, which prepare
        for title, run in runs.items():
            bounds = run(region, spec)
            widths[title] += float(np.mean(np.asarray(bounds.upper) - np.asarray(bounds.lower)))
    seconds: dict[str, list[float]] = {title: [] for title in runs}
    for number in range(rounds):
        region, spec = calls[number % len(calls)]
        for title, run in runs.items():
            run(region, spec)  # what the one before has left in the processor's caches is of no use
            started = time.process_time()
            run(region, spec)
            seconds[title].append(time.process_time() - started)
    medians = {title: statistics.median(times) for title, times in seconds.items()}
    return [
        Found(name, eps, title, widths[title] / widths["ibp"], medians[title] / medians["ibp"]) for title in METHODS
    ]


def table(found: Sequence[Found]) -> str:
    head = ("network", "radius", *(f"{title}: width, time" for title in list(METHODS)[1:]))
    lines = [head, ["---"] * len(head)]
    for network in dict.fromkeys(one.network for one in found):
        of = [one for one in found if one.network == network]
        lines.append(
            [network, f"{of[0].eps:g}", *(f"{100 * one.width:.3g}%, {one.seconds:.3g}" for one in of[1:])],
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def draw(found: Sequence[Found], path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "boundflow"  # the same file from the same numbers
    figure = Figure(figsize=(8.6, 4.2))
    axes = figure.add_subplot()
    markers = dict(zip(METHODS, "osD^v", strict=True))
    for number, network in enumerate(dict.fromkeys(one.network for one in found)):
        of = [one for one in found if one.network == network]
        axes.plot([one.seconds for one in of], [one.width for one in of], color=f"C{number}", lw=1, label=network)
        for one in of:
            axes.plot(one.seconds, one.width, markers[one.method], color=f"C{number}", ms=6)
    networks_legend = axes.legend(
        loc="lower left", bbox_to_anchor=(1.0, 0.0), frameon=False, title="network", alignment="left"
    )
    axes.add_artist(networks_legend)
    handles = [axes.plot([], [], marker, color="0.3", ls="none", label=title)[0] for title, marker in markers.items()]
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, title="method", alignment="left"
    )
    axes.set(xscale="log", yscale="log", xlabel="time of a call, ibp = 1", ylabel="mean width, ibp = 1")
    axes.grid(alpha=0.25, which="major")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmarks", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", type=Path, help="page whose table and picture are replaced")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    found = [one for case in networks(arguments.benchmarks) for one in measure(*case, arguments.rounds)]
    text = table(found)
    print(text)
    if arguments.write is not None:
        head, rest = arguments.write.read_text().split(BEGIN)
        arguments.write.write_text(f"{head}{BEGIN}\n{text}{END}{rest.split(END)[1]}")
        draw(found, arguments.write.parent / "assets" / "tightness_time.svg")


if __name__ == "__main__":
    main()
