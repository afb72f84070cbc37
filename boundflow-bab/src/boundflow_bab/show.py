"""What people see: a line of progress while it runs, and a summary at the end."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from boundflow_bab.verdict import Report
from boundflow_core.cli.console import console

if TYPE_CHECKING:
    from boundflow_bab.verify import Story

__all__ = ["Line", "show_report"]

PHASE_ORDER = ("load", "attack", "search", "branching", "confirm", "all")


class Line:
    """A line on stderr, written anew a few times a second; nothing unless both streams are a terminal."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown and sys.stderr.isatty() and sys.stdout.isatty()
        self._status: Any = None
        self._last = -math.inf

    def __enter__(self) -> Line:
        if self._shown:
            self._status = console(stderr=True).status("loading")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def update(self, story: Story) -> None:
        if self._status is None or time.perf_counter() - self._last < 0.2:
            return
        self._last = time.perf_counter()
        self._status.update(progress_text(story))


def progress_text(story: Story) -> str:
    """Where a verification stands."""
    parts = [story.phase]
    if story.searches:
        search = story.searches[-1]
        spent = sum(story.clock.seconds.get(name, 0.0) for name in ("search", "branching", "confirm"))
        rate = f"{search.bounded / spent:,.0f}/s" if spent > 0 else ""
        parts.append(f"{search.bounded:,} subproblems bounded {rate}, {search.open:,} open, {search.closed:,} closed")
        if len(search.frontier):
            parts.append(f"worst bound {search.frontier.worst:.4g}")
    left = story.clock.left
    parts.append(f"{left:.0f} s left" if math.isfinite(left) else f"{story.clock.elapsed:.0f} s")
    return " · ".join(parts)


def show_report(report: Report) -> None:
    """The verdict first, alone in its line; then how it came about."""
    click.echo(report.line)
    found = report.counterexample
    if found is not None:
        click.echo(f"counterexample, checked by {found.source}: output {_numbers(found.y)}")
        click.echo(f"  input {_numbers(found.x)}")
    if report.margin is not None:
        click.echo(f"least lower bound before the search: {report.margin:.6g}")
    if report.subproblems:
        click.echo(f"subproblems: {report.subproblems:,} bounded, {report.open:,} left open")
    phases = sorted(report.seconds, key=lambda name: PHASE_ORDER.index(name) if name in PHASE_ORDER else 1)
    click.echo("seconds: " + ", ".join(f"{name} {report.seconds[name]:.2f}" for name in phases))


def _numbers(values: Any, most: int = 8) -> str:
    shown = " ".join(f"{float(value):.6g}" for value in values[:most])
    return shown + (f" ... ({len(values)} numbers)" if len(values) > most else "")
