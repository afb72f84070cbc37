"""Verdicts on a whole benchmark, in one warm process: what is decided, in what time, and what that time went into.

    python benchmarks/verification.py ../shared/benchmarks/instances.csv [--only FAMILY ...] [--results FILE]
        [--write docs/verification.md] [--fresh]

Each line runs as ``boundflow verify --batch`` runs it, with the line's timeout. After each one the file of results is
written anew (whole or not at all), so that the script goes on where it was interrupted, however that happened; with
--fresh it begins anew. Besides the lines of the file, those run that other tools have published figures of, where their
files are there. Wall-clock times: run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crown_floor import table, write

from boundflow_bab.batch import Instance, contradicts, decided, read_instances
from boundflow_bab.cli import decide
from boundflow_bab.verify import Options
from boundflow_core.cli.files import write_json
from boundflow_core.cli.main import COLLECTED_AFTER

BEGIN, END = "<!-- tables: written by benchmarks/verification.py -->", "<!-- end of the tables of verdicts -->"

# Phases of a report, by the column that they are told in.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "attack": ("attack",),
    "bounds": ("ibp", "crown-ibp", "crown", "alpha-crown", "tighten"),
    "search": ("search", "branching"),
    "confirm": ("confirm",),
}
WORDS = {"verified": "unsat", "falsified": "sat"}
ACAS = "acasxu/onnx/ACASXU_run2a_{}_batch_2000.onnx"
OVAL = "oval21/vnnlib/cifar_base_kw-img8095-eps0.010457516339869282.vnnlib"


@dataclass(frozen=True)
class Published:
    """What other tools take for an instance: processor seconds, and subproblems bounded, where they are known."""

    name: str
    net: str
    prop: str
    tool: str
    seconds: float
    subproblems: int | None = None


# alpha-beta-CROWN on a processor, without integer programming; 11 s of each are its start.
PUBLISHED = (
    Published("ACAS Xu 1_1, 3", ACAS.format("1_1"), "acasxu/vnnlib/prop_3.vnnlib", "alpha-beta-CROWN", 45.0, 77145),
    Published("ACAS Xu 1_1, 3", ACAS.format("1_1"), "acasxu/vnnlib/prop_3.vnnlib", "nnenum", 25.0),
    Published("ACAS Xu 1_1, 1", ACAS.format("1_1"), "acasxu/vnnlib/prop_1.vnnlib", "nnenum", 4.4),
    Published("ACAS Xu 3_4, 3", ACAS.format("3_4"), "acasxu/vnnlib/prop_3.vnnlib", "alpha-beta-CROWN", 20.0),
    Published("ACAS Xu 3_4, 3", ACAS.format("3_4"), "acasxu/vnnlib/prop_3.vnnlib", "Marabou", 1.0),
    Published(
        "mnist 256x2, 0, 0.03",
        "mnist_fc/onnx/mnist-net_256x2.onnx",
        "mnist_fc/vnnlib/prop_0_0.03.vnnlib",
        "alpha-beta-CROWN",
        15.0,
    ),
    Published(
        "mnist 256x4, 8, 0.03",
        "mnist_fc/onnx/mnist-net_256x4.onnx",
        "mnist_fc/vnnlib/prop_8_0.03.vnnlib",
        "alpha-beta-CROWN",
        38.0,
    ),
    Published(
        "mnist 256x6, 7, 0.03",
        "mnist_fc/onnx/mnist-net_256x6.onnx",
        "mnist_fc/vnnlib/prop_7_0.03.vnnlib",
        "alpha-beta-CROWN",
        56.0,
    ),
    Published("oval base 8095", "oval21/onnx/cifar_base_kw.onnx", OVAL, "alpha-beta-CROWN", 12.0),
    Published(
        "resnet_2b, 19",
        "cifar10_resnet/onnx/resnet_2b.onnx",
        "cifar10_resnet/vnnlib/2b_prop_19_eps_0.008.vnnlib",
        "alpha-beta-CROWN",
        10.0,
    ),
)
# Subproblems per second of alpha-beta-CROWN on two families.
RATES = {"acasxu": 1400.0, "mnist_fc": 175.0}
EXTRA_TIMEOUT = 120.0
MOST_ATTEMPTS = 2


def key_of(net: str, prop: str, root: Path) -> str:
    """The instance as seen from the folder of the benchmark."""
    return " ".join(Path(path).absolute().relative_to(root).as_posix() for path in (net, prop))


def wanted(csv: Path, families: Sequence[str]) -> list[tuple[str, Instance]]:
    """The instances of the file, then those with published figures that are not among them, by key."""
    root = csv.absolute().parent
    found = {key_of(one.net, one.prop, root): one for one in read_instances(str(csv.absolute()))}
    for one in PUBLISHED:
        net, prop = root / one.net, root / one.prop
        if net.exists() and prop.exists():
            found.setdefault(f"{one.net} {one.prop}", Instance(str(net), str(prop), EXTRA_TIMEOUT))
    return [(key, one) for key, one in found.items() if not families or family_of(key) in families]


def family_of(key: str) -> str:
    return key.partition("/")[0]


@dataclass
class Results:
    """The file of results.

    Attributes:
        rows: of finished instances, by key.
        attempts: how often each of the others was begun.
    """

    path: Path
    rows: dict[str, Any]
    attempts: dict[str, int]

    @staticmethod
    def of(path: Path, *, fresh: bool) -> Results:
        held = {} if fresh or not path.exists() else json.loads(path.read_text())
        return Results(path, dict(held.get("instances", {})), dict(held.get("attempts", {})))

    def save(self) -> None:
        write_json({"instances": self.rows, "attempts": self.attempts}, str(self.path))


def run(instances: Sequence[tuple[str, Instance]], results: Results, options: Options) -> bool:
    """Decides what is not known yet; whether it got to the end."""
    for number, (key, instance) in enumerate(instances, 1):
        if key in results.rows:
            continue
        results.attempts[key] = results.attempts.get(key, 0) + 1
        results.save()
        row = result_of(instance, options, results.attempts[key])
        results.attempts.pop(key)
        if row["reason"] == "interrupted":
            results.save()
            return False
        results.rows[key] = {**row, "timeout": instance.timeout}
        results.save()
        mark = "  CONTRADICTS what is expected" if contradicts(row) else ""
        print(
            f"{number:>4}/{len(instances)} {row['verdict']:<9} {row['seconds']['all']:7.2f} s  {key}{mark}", flush=True
        )
    return True


def result_of(instance: Instance, options: Options, attempt: int) -> dict[str, Any]:
    """The row of one instance. What ended the process twice is not tried a third time, and what fails is told."""
    told = {"net": instance.net, "prop": instance.prop, "expected": instance.expected or None}
    nothing = {**told, "verdict": "unknown", "subproblems": 0, "open": 0, "margin": None, "seconds": {"all": 0.0}}
    if attempt > MOST_ATTEMPTS:
        return {**nothing, "reason": f"ended the process {MOST_ATTEMPTS} times"}
    try:
        (row,) = decided([instance], options, decide, shown=False)
    except KeyboardInterrupt:
        return {**nothing, "reason": "interrupted"}
    except Exception as error:  # the others are to be run all the same
        print(f"FAILED: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return {**nothing, "reason": f"failed: {type(error).__name__}: {error}"}
    return row


# -- tables -----------------------------------------------------------------------------------------------------------


def in_columns(row: Mapping[str, Any]) -> list[str]:
    spent = row["seconds"]
    return [f"{sum(spent.get(phase, 0.0) for phase in phases):.1f}" for phases in COLUMNS.values()]


def rate(row: Mapping[str, Any]) -> float | None:
    """Subproblems per second of the search."""
    spent = sum(row["seconds"].get(phase, 0.0) for phase in (*COLUMNS["search"], *COLUMNS["confirm"]))
    return row["subproblems"] / spent if row["subproblems"] > 1 and spent > 0 else None


def short(key: str) -> list[str]:
    net, prop = (Path(path).stem for path in key.split(" "))
    return [net, prop]


def lines_of(rows: Mapping[str, Any]) -> Iterable[list[str]]:
    for key, row in rows.items():
        verdict = WORDS.get(row["verdict"], row["verdict"])
        wrong = " **wrong**" if contradicts(row) else ""
        yield [
            family_of(key),
            *short(key),
            row["expected"] or "",
            verdict + wrong,
            f"{row['seconds']['all']:.1f}",
            f"{row['timeout']:.0f}",
            f"{row['subproblems']:,}",
            *in_columns(row),
        ]


def families_of(rows: Mapping[str, Any]) -> Iterable[list[str]]:
    names = [*dict.fromkeys(family_of(key) for key, row in rows.items() if row["expected"])]
    chosen = {name: [row for key, row in rows.items() if family_of(key) == name and row["expected"]] for name in names}
    for name, some in [*chosen.items(), ("all", [row for part in chosen.values() for row in part])]:
        fixed = [row for row in some if row["verdict"] in WORDS]
        subproblems = sum(row["subproblems"] for row in some)
        searched = [row for row in some if rate(row) is not None]
        spent = sum(row["subproblems"] / (rate(row) or 1.0) for row in searched)
        yield [
            name,
            str(len(some)),
            str(len(fixed)),
            str(sum(map(contradicts, some))),
            f"{sum(row['seconds']['all'] for row in fixed):.1f}",
            f"{max((row['seconds']['all'] for row in fixed), default=0.0):.1f}",
            f"{subproblems:,}",
            f"{sum(row['subproblems'] for row in searched) / spent:,.0f}" if spent > 0 else "",
        ]


def compared(rows: Mapping[str, Any]) -> Iterable[list[str]]:
    for one in PUBLISHED:
        row = rows.get(f"{one.net} {one.prop}")
        theirs = one.subproblems / one.seconds if one.subproblems else None
        theirs = theirs or RATES.get(family_of(one.net)) if one.tool == "alpha-beta-CROWN" else None
        told = [one.name, one.tool, f"{one.seconds:.1f}", f"{theirs:,.0f}" if theirs else ""]
        if row is None:
            yield [*told, "not there", "", "", ""]
            continue
        verdict, seconds, ours = WORDS.get(row["verdict"], row["verdict"]), row["seconds"]["all"], rate(row)
        ahead = f"{one.seconds / seconds:.1f}" if row["verdict"] in WORDS else ""
        yield [*told, verdict, f"{seconds:.1f}", ahead, f"{ours:,.0f}" if ours is not None else ""]


def text_of(rows: Mapping[str, Any]) -> str:
    full = ("family", "network", "property", "expected", "verdict", "seconds", "limit", "subproblems", *COLUMNS)
    sums = ("family", "instances", "decided", "wrong", "seconds of these", "longest", "subproblems", "a second")
    other = (
        "instance",
        "tool",
        "its seconds",
        "its subproblems/s",
        "verdict",
        "seconds",
        "times quicker",
        "subproblems/s",
    )
    return (
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}.\n\n"
        f"{table(sums, families_of(rows))}\n### Beside other tools\n\n{table(other, compared(rows))}\n"
        f"### Every instance\n\n{table(full, lines_of(rows))}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--results", type=Path, default=Path("verification.json"), help="kept after each instance")
    parser.add_argument("--only", nargs="+", default=[], metavar="FAMILY")
    parser.add_argument("--executor", default="auto")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    given = parser.parse_args()
    instances = wanted(given.csv, given.only)
    results = Results.of(given.results, fresh=given.fresh)
    gc.set_threshold(*COLLECTED_AFTER)  # as the command does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    finished = run(instances, results, Options(executor=given.executor))
    text = text_of({key: results.rows[key] for key, _ in instances if key in results.rows})
    if given.write is not None:
        write(given.write, text, BEGIN, END)
    else:
        print(text)
    if not finished:
        sys.exit("interrupted: run it again to go on")


if __name__ == "__main__":
    main()
