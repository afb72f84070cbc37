"""A whole benchmark in one process: the lines of an ``instances.csv``."""

from __future__ import annotations

import csv
import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from boundflow_bab.verdict import Report, Verdict
from boundflow_bab.verify import Options
from boundflow_core.cli.files import write_json
from boundflow_core.errors import BoundFlowError, InputError

__all__ = ["Decide", "Instance", "contradicts", "decided", "read_instances", "run_batch"]

# decide(net, prop, options, shown=...) -> Report
Decide = Callable[..., Report]


@dataclass(frozen=True)
class Instance:
    """A line: files, seconds, and the verdict that is expected, where one is named."""

    net: str
    prop: str
    timeout: float
    expected: str = ""


def read_instances(path: str) -> tuple[Instance, ...]:
    """The instances of a file, its paths as seen from the file.

    Each line is ``NET,PROP,TIMEOUT``; a first line of names may say which column is which (``path_to_onnx``,
    ``path_to_vnnlib``, ``timeout_s``, ``expected``).

    Raises:
        InputError: the file cannot be read, or a line is not like this.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    columns = ["path_to_onnx", "path_to_vnnlib", "timeout_s"]
    if lines and "path_to_onnx" in lines[0]:
        columns, lines = lines[0], lines[1:]
    return tuple(_instances(path, columns, lines))


def _instances(path: str, columns: list[str], lines: list[list[str]]) -> Iterator[Instance]:
    folder = Path(path).parent
    for number, line in enumerate(lines, 1):
        named = dict(zip(columns, line, strict=False))
        try:
            net, prop = folder / named["path_to_onnx"], folder / named["path_to_vnnlib"]
            timeout = float(named["timeout_s"])
        except (KeyError, ValueError):
            raise InputError(f"{path}: instance {number} is not NET,PROP,TIMEOUT: {','.join(line)[:80]}") from None
        yield Instance(str(net), str(prop), timeout, named.get("expected", ""))


def decided(
    instances: Iterable[Instance], options: Options, decide: Decide, *, shown: bool
) -> Iterator[dict[str, Any]]:
    """What ``--json`` holds of each instance, one after another, up to an interruption, which is among them.

    Args:
        shown: whether a line tells of the progress.
    """
    for instance in instances:
        limit = instance.timeout if options.timeout is None else min(options.timeout, instance.timeout)
        try:
            report = decide(instance.net, instance.prop, replace(options, timeout=limit), shown=shown)
        except BoundFlowError as error:
            report = Report(Verdict.UNKNOWN, str(error))
        gc.collect()  # what the instance has left behind, which may be large
        yield _row(instance, report)
        if report.reason == "interrupted":
            return


def run_batch(path: str, options: Options, json_path: str | None, decide: Decide) -> None:
    """Decides every instance of the file ``path`` and prints a table, line by line."""
    instances, rows = read_instances(path), []
    quiet = json_path == "-"
    for number, row in enumerate(decided(instances, options, decide, shown=not quiet), 1):
        rows.append(row)
        if not quiet:
            click.echo(f"{number:>4}/{len(instances)} {_line(row)}")
    if json_path is not None:
        write_json({"instances": rows, "counts": _counts(rows)}, json_path)
    if not quiet:
        click.echo(", ".join(f"{name} {count}" for name, count in _counts(rows).items()))


def contradicts(row: dict[str, Any]) -> bool:
    """Whether the verdict of a row is not the one that is expected."""
    return {Verdict(row["verdict"]).result, row["expected"]} == {"sat", "unsat"}


def _row(instance: Instance, report: Report) -> dict[str, Any]:
    found = report.to_json()
    del found["counterexample"]
    return {"net": instance.net, "prop": instance.prop, "expected": instance.expected or None, **found}


def _line(row: dict[str, Any]) -> str:
    wrong = contradicts(row)
    expected = f", expected {row['expected']}" if row["expected"] else ""
    parts = [
        f"{row['verdict']:<9} {row['seconds'].get('all', 0.0):7.2f} s",
        f"{Path(row['net']).name} {Path(row['prop']).name}",
        f"({row['reason']})" if row["reason"] else "",
        f"CONTRADICTS what is expected: {row['expected']}" if wrong else expected.lstrip(", "),
    ]
    return "  ".join(part for part in parts if part)


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    counts = {verdict.value: 0 for verdict in Verdict}
    for row in rows:
        counts[row["verdict"]] += 1
    return {**counts, "contradictions": sum(map(contradicts, rows))}
