"""What ``boundflow plan`` prints for people: the tasks, the stages, and what they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boundflow_core.cli.bound_table import size_text
from boundflow_core.planner.description import EdgeEntry, PlanDescription, TaskEntry

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["operations_text", "show", "sizes_text", "summary"]

SHOWN_OPS = 4  # kinds of operations that a row names


def show(plan: PlanDescription, net: str, method: str, dtype: str, why: str) -> None:
    """Print the plan; ``why`` tells why this executor runs it."""
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    console.print(
        f"{net}: {method}, {dtype}, executor {plan['executor']}, {sizes_text(plan)}", style="bold", soft_wrap=True
    )
    console.print()
    console.print(_tasks(plan))
    console.print()
    console.print(_stages(plan))
    console.print()
    console.print(_lowering(plan))
    console.print()
    for line in (f"executor {plan['executor']}: {why}", *summary(plan)):
        console.print(line, style="dim", soft_wrap=True)


def _table(columns: Sequence[str], right: Sequence[str] = ()) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _tasks(plan: PlanDescription) -> Table:
    table = _table(("task", "kind", "after", "depends on", "operations", "lowering", "out"), right=("out",))
    for task in plan["tasks"]:
        table.add_row(
            task["name"],
            task["kind"],
            _after(task, plan["edges"]),
            ", ".join(task["depends"]) or "weights, frozen",
            operations_text(task),
            ", ".join(sorted({op["strategy"] for op in task["ops"]})),
            size_text(task["bytes_out"]),
        )
    return table


def _stages(plan: PlanDescription) -> Table:
    table = _table(("stage", "tasks", "kept between calls", "runs again when"), right=("tasks",))
    for stage in plan["stages"]:
        kept = f"{len(stage['keeps'])} values, {size_text(stage['bytes_kept'])}" if stage["cached"] else "nothing"
        changes = " or ".join(stage["depends"]) + " changes" if stage["cached"] else "always"
        table.add_row(stage["name"], str(len(stage["tasks"])), kept, changes)
    return table


def _lowering(plan: PlanDescription) -> Table:
    """What runs the operations of each task, and why: operations of one kind with one reason share a row."""
    table = _table(("task", "operation", "number", "lowering", "why"), right=("number",))
    for task in plan["tasks"]:
        rows: dict[tuple[str, str], list[str]] = {}
        for op in task["ops"]:
            rows.setdefault((op["name"], op["strategy"]), []).append(op["reason"])
        for place, ((name, strategy), reasons) in enumerate(rows.items()):
            different = len(set(reasons)) - 1
            more = f"; and {different} more like it" if different else ""
            table.add_row("" if place else task["name"], name, str(len(reasons)), strategy, reasons[0] + more)
    return table


def _after(task: TaskEntry, edges: Sequence[EdgeEntry]) -> str:
    """Numbers of the tasks that it reads from."""
    producers = {edge["producer"].partition(":")[0] for edge in edges if edge["consumer"] == task["name"]}
    return ", ".join(sorted(producers, key=lambda number: (len(number), number)))


def sizes_text(plan: PlanDescription) -> str:
    """How many regions and rows the plan is for."""
    words = {"B": "region", "S": "specification row"}
    parts = [f"{n} {words.get(symbol, symbol)}{'' if n == 1 else 's'}" for symbol, n in plan["sizes"].items()]
    return ", ".join(parts)


def operations_text(task: TaskEntry, shown: int = SHOWN_OPS) -> str:
    """The operations of a task: how many, and the most frequent kinds."""
    counts = Counter(op["name"] for op in task["ops"])
    names = [f"{name} {n}" if n > 1 else name for name, n in counts.most_common(shown)]
    more = ["..."] if len(counts) > shown else []
    return f"{len(task['ops'])}: {', '.join([*names, *more])}"


def summary(plan: PlanDescription) -> list[str]:
    """Memory, lowering, layout and chunks, a line each."""
    storage, lowering = plan["storage"], plan["lowering"]
    own = f", and {size_text(storage['beside_bytes'])} beside it" if storage["beside_bytes"] else ""
    lines = [
        f"memory: {size_text(storage['peak_bytes'])} at the peak, {size_text(storage['naive_bytes'])} with one buffer "
        f"per value; an arena of {size_text(storage['arena_bytes'])} in {storage['arena_buffers']} buffers{own}",
        f"operations: {', '.join(f'{n} on {strategy}' for strategy, n in lowering['ops'].items()) or 'none'}; "
        f"{lowering['kernels']} different kernels",
    ]
    lines += [f"fallback, {count} operations: {reason}" for reason, count in lowering["fallbacks"].items()]
    before, after = (sum(plan["layout"][side].values()) for side in ("before", "after"))
    left = ", ".join(f"{count} {name}" for name, count in plan["layout"]["after"].items())
    lines.append(f"layout: {after} operations move data ({left or 'none'}), {before} before the passes")
    if plan["chunks"] is not None:
        chunks = plan["chunks"]
        asked = ", ".join(f"{symbol}={n}" for symbol, n in chunks["asked"].items())
        pieces = f"{chunks['count']} chunk{'' if chunks['count'] == 1 else 's'}"
        limit = size_text(chunks["limit_bytes"])
        lines.append(f"limit {limit}: a call of {asked} runs in {pieces}, at most {sizes_text(plan)} each")
    if plan["differentiable"]:
        lines.append("differentiable: every value is kept for the gradient, and no memory is planned")
    return lines
