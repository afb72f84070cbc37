"""Tightness of the methods on benchmark networks: widths, and rows where a better method comes out looser.

    python benchmarks/crown_tightness.py ../shared/benchmarks [--only NAME] [--limit 60] [--write docs/tightness.md]

For each network of ``instances.csv``, the boxes of its first property (the first four, if there are more), and the
same boxes shrunk to a tenth around their middle, since many properties have boxes on which every method gives next to
nothing. Rows are the margins of the label in the middle of the box over all other outputs; the output itself where
there is one. Torch executor, float64, so that rounding hides no row; options as they are by default, so with the
intersection with intervals. Each network runs in a process of its own; methods that are not done within the limit, or
after another one was not, are left out and said to be.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BEGIN, END = "<!-- table: written by benchmarks/crown_tightness.py -->", "<!-- end of table -->"
METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown")
BOXES, ROWS, SHARES = 4, 50, (1.0, 0.1)

Array = NDArray[Any]


@dataclass(frozen=True)
class Found:
    """Bounds [regions, rows] of one method on the boxes shrunk to ``share``."""

    method: str
    share: float
    lower: Array
    upper: Array
    seconds: float

    @property
    def width(self) -> Array:
        return self.upper - self.lower

    def looser_than(self, other: Found) -> Array:
        """By how much each row's interval reaches out of that of ``other``, over the latter's width."""
        beyond = np.maximum(other.lower - self.lower, 0) + np.maximum(self.upper - other.upper, 0)
        size = 1 + np.abs(other.lower) + np.abs(other.upper)
        return np.where(beyond > 1e-9 * size, beyond / np.maximum(other.width, 1e-9 * size), 0.0)


def networks(root: Path, only: str) -> list[tuple[str, str]]:
    """Each network of the folder with its first property."""
    with (root / "instances.csv").open() as file:
        pairs = [(row["path_to_onnx"], row["path_to_vnnlib"]) for row in csv.DictReader(file)]
    first = dict(reversed(pairs))
    return [(net, first[net]) for net in dict.fromkeys(net for net, _ in pairs) if only in net]


# -- in a process of its own ------------------------------------------------------------------------------------------


def bound_all(net: Path, prop: Path, methods: tuple[str, ...]) -> None:
    """Prints the bounds of each method as a line of JSON."""
    import torch

    import boundflow_core as bf
    from boundflow_core.forward import evaluate_graph

    torch.set_num_threads(1)
    graph = bf.load(net)
    lower, upper = (array[:BOXES] for array in bf.read_property(prop).boxes())
    shape = (len(lower), *graph.input_type.shape)
    middle = ((lower + upper) / 2).reshape(shape)
    reach = ((upper - lower) / 2).reshape(shape)
    rows = margins(evaluate_graph(graph, middle).reshape(len(lower), -1))
    for method in methods:
        run = bf.compile(graph, method=method, executor="torch", dtype="float64", cache=False)
        for share in SHARES:
            start = time.process_time()
            bounds = run(bf.Box(middle - share * reach, middle + share * reach), bf.LinearSpec(rows))
            took = time.process_time() - start
            line = {"method": method, "share": share, "seconds": took}
            line.update(lower=np.asarray(bounds.lower).tolist(), upper=np.asarray(bounds.upper).tolist())
            print(json.dumps(line), flush=True)


def margins(scores: Array) -> Array:
    """Rows [regions, rows, n]: the largest score less each of the others, the first fifty of these."""
    eye = np.eye(scores.shape[1])
    if len(eye) == 1:
        return np.broadcast_to(eye, (len(scores), 1, 1)).copy()
    return np.stack([np.delete(eye[label] - eye, label, 0)[:ROWS] for label in scores.argmax(1)])


# -- the table --------------------------------------------------------------------------------------------------------


def run_one(root: Path, net: str, prop: str, limit: float, methods: tuple[str, ...]) -> list[Found]:
    """What the methods found within the limit, in a process of its own."""
    command = [sys.executable, __file__, str(root), "--one", net, prop, "--methods", *methods]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    lines = [json.loads(line) for line in output.splitlines() if line.endswith("}")]
    return [
        Found(line["method"], line["share"], np.array(line["lower"]), np.array(line["upper"]), line["seconds"])
        for line in lines
    ]


HEADER = ("network", "box", "rows", *(f"width {name}" for name in METHODS), "within ibp", "crown looser than crown-ibp")
HEADER += ("by at most", "alpha-crown looser than crown-ibp", "by at most", "seconds crown")


def cells(net: str, share: float, found: Mapping[str, Found]) -> list[str]:
    """One line: mean widths over ibp's, rows that are looser than crown-ibp's."""
    ibp, alone = found.get("ibp"), found.get("crown-ibp")
    name = Path(net).stem.removesuffix("_batch_2000")[:40]
    out = [name, "whole" if share == 1 else f"{share:g}"]
    if ibp is None:
        return [*out, *["not in time"] * (len(HEADER) - 2)]
    out.append(str(ibp.lower.size))
    mean = float(ibp.width.mean())
    for method in METHODS:
        width = float(found[method].width.mean()) if method in found else None
        text = "not in time" if width is None else f"{width:.4g}" if method == "ibp" else f"{100 * width / mean:.3g}%"
        out.append(text)
    better = [found[method] for method in METHODS[1:] if method in found]
    out.append("yes" if all(not one.looser_than(ibp).any() for one in better) else "**no**")
    for method in ("crown", "alpha-crown"):
        if method not in found or alone is None:
            out += ["", ""]
            continue
        loose = found[method].looser_than(alone)
        out += [str(int((loose > 0).sum())), f"{loose.max():.2%}" if loose.any() else ""]
    return [*out, f"{found['crown'].seconds:.2f}" if "crown" in found else ""]


def lines(root: Path, only: str, limit: float, methods: tuple[str, ...]) -> Iterator[list[str]]:
    chosen = networks(root, only)
    for number, (net, prop) in enumerate(chosen, 1):
        found = run_one(root, net, prop, limit, methods)
        print(f"{number}/{len(chosen)} {net}: {len(found)} results", file=sys.stderr, flush=True)
        for share in SHARES:
            yield cells(net, share, {one.method: one for one in found if one.share == share})


def table(found: list[list[str]]) -> str:
    rows = [HEADER, ["---"] * len(HEADER), *found]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def write(path: Path, text: str) -> None:
    """Replaces the table of the page ``path``."""
    head, rest = path.read_text().split(BEGIN)
    path.write_text(f"{head}{BEGIN}\n{text}{END}{rest.split(END)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the benchmark networks, with instances.csv")
    parser.add_argument("--only", default="", help="networks whose path contains this")
    parser.add_argument("--limit", type=float, default=60, help="seconds for each network")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    parser.add_argument("--one", nargs=2, metavar=("NET", "PROP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        net, prop = arguments.one
        bound_all(arguments.root / net, arguments.root / prop, tuple(arguments.methods))
        return
    text = table(list(lines(arguments.root, arguments.only, arguments.limit, tuple(arguments.methods))))
    print(text)
    if arguments.write:
        write(arguments.write, text)


if __name__ == "__main__":
    main()
