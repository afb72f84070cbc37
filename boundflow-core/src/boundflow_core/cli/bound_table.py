"""What ``boundflow bound`` prints for people: a table of bounds, and how they came about."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from math import isfinite
from typing import TYPE_CHECKING

from boundflow_core.cli.console import console

if TYPE_CHECKING:
    from boundflow_core.cli.bound import Outcome

__all__ = ["rounded_down", "rounded_up", "show", "size_text"]

DIGITS = 7
SHOWN_ROWS = 24  # more than that are cut in the middle


def rounded_down(value: float) -> str:
    """``value`` in few digits, never more than it is, so that what is shown is a lower bound still."""
    return _rounded(value, ROUND_FLOOR)


def rounded_up(value: float) -> str:
    """``value`` in few digits, never less than it is."""
    return _rounded(value, ROUND_CEILING)


def _rounded(value: float, direction: str) -> str:
    if not isfinite(value):
        return str(value)
    return f"{Context(prec=DIGITS, rounding=direction).create_decimal(Decimal(value)).normalize():g}"


def size_text(count: int) -> str:
    """A number of bytes in a unit that keeps it short."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def show(outcome: Outcome, row_name: str) -> None:
    """Print the bounds and a summary.

    Args:
        row_name: what a row is: "output", or "row" of a specification.
    """
    from rich.table import Table

    regions, rows = outcome.lower.shape
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    if regions > 1:
        table.add_column("region", justify="right")
    for column in (row_name, "lower", "upper"):
        table.add_column(column, justify="right", no_wrap=True)
    total = regions * rows
    ends = SHOWN_ROWS // 2
    for number in range(total):
        if total > SHOWN_ROWS and ends <= number < total - ends:
            if number == ends:
                table.add_row(*[f"... {total - 2 * ends} more"] if regions == 1 else ["...", "..."], "...", "...")
            continue
        region, row = divmod(number, rows)
        low, high = float(outcome.lower[region, row]), float(outcome.upper[region, row])
        table.add_row(*([str(region)] if regions > 1 else []), str(row), rounded_down(low), rounded_up(high))
    screen = console()
    screen.print(table)
    screen.print()
    for line in summary(outcome):
        screen.print(line, style="dim", soft_wrap=True)


def summary(outcome: Outcome) -> list[str]:
    """How the bounds came about: one line, and one for each reason why something fell back."""
    regions = outcome.lower.shape[0]
    times = ", ".join(f"{name.replace('_', ' ')} {seconds:.3g} s" for name, seconds in outcome.seconds.items())
    ops = ", ".join(f"{count} on {strategy}" for strategy, count in outcome.lowering.items())
    tasks = f"{outcome.tasks} task{'' if outcome.tasks == 1 else 's'}"
    memory = f"memory {size_text(outcome.peak_bytes)} ({size_text(outcome.naive_bytes)} without reuse)"
    where = f"{regions} region{'' if regions == 1 else 's'}"
    line = f"{outcome.method}, {outcome.dtype}, executor {outcome.executor}, {where}; {times}; {memory}; {tasks}"
    fallbacks = [f"fallback, {count} operations: {reason}" for reason, count in outcome.fallbacks.items()]
    why = [f"executor {outcome.executor}: {outcome.executor_reason}"] if outcome.executor_reason else []
    return [f"{line}; operations: {ops or 'none'}", *why, *fallbacks]
