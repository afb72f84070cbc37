"""``boundflow plugins``: what is installed, what it brings, and what is left out and why."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import click

from boundflow_core.cli.console import console
from boundflow_core.cli.files import write_json
from boundflow_core.extension import Executor, LoweringStrategy, why_unavailable
from boundflow_core.plugins import BOUNDFLOW_API, PluginRecord, records, registry
from boundflow_core.plugins.manager import CORE, Settings

__all__ = ["command"]

COLOURS = {"active": "green", "disabled": "dim", "broken": "red", "incompatible": "red", "duplicate": "red"}


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON instead of a table.")
def command(as_json: bool) -> None:
    """Show which plugins are installed, what they bring, and what is left out.

    A plugin that cannot be used never stops the others; its row says why. So do executors and lowering strategies that
    cannot be used on this machine. The environment variable
    BOUNDFLOW_DISABLE_PLUGINS=name,name leaves plugins out on purpose, BOUNDFLOW_STRICT_PLUGINS=1 turns a plugin that
    cannot be used into an error.
    """
    found = records()
    without_effect = ineffective(found, Settings.of(os.environ))
    if as_json:
        shown = [{**record.to_json(), "unavailable": unavailable(record)} for record in found]
        write_json({"api": list(BOUNDFLOW_API), "plugins": shown}, "-")
    else:
        show(found)
    for name in without_effect:
        reason = "core cannot be disabled" if name == CORE else f"there is no plugin {name!r}"
        click.echo(f"boundflow: note: BOUNDFLOW_DISABLE_PLUGINS names {name!r}, but {reason}", err=True)


def ineffective(found: Sequence[PluginRecord], settings: Settings) -> list[str]:
    """Names that the user disables, but that are no plugin's, or core's."""
    return sorted(settings.disabled - {record.name for record in found if record.name != CORE})


def unavailable(record: PluginRecord) -> dict[str, str]:
    """Executors and lowering strategies of an active plugin that cannot be used here, with the reason."""
    if not record.active:
        return {}
    tables: dict[str, Mapping[str, Executor | LoweringStrategy]]
    tables = {"executors": registry().executors, "lowerings": registry().lowerings}
    reasons = {name: why_unavailable(tables[kind][name]) for kind in tables for name in record.brings.get(kind, ())}
    return {name: reason for name, reason in reasons.items() if reason}


def show(found: Sequence[PluginRecord]) -> None:
    """Print the table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("name", "distribution", "version", "status"):
        table.add_column(column, overflow="fold")
    table.add_column("brings, or why not", ratio=1, overflow="fold")
    for record in found:
        brings = [f"{kind.replace('_', ' ')}: {', '.join(names)}" for kind, names in record.brings.items()]
        missing = [f"not here: {name}: {reason}" for name, reason in unavailable(record).items()]
        lines = [*brings, *missing, *record.notes] if record.active else [record.reason]
        status = Text(record.status.value, style=COLOURS[record.status.value])
        table.add_row(record.name, record.distribution, record.version, status, "\n".join(lines))
    console().print(table)
