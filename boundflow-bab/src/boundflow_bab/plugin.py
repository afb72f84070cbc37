"""What this distribution registers with BoundFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boundflow_core.extension import Branching, Command
from boundflow_core.plugins import hookimpl

if TYPE_CHECKING:
    import click

BOUNDFLOW_API = (1, 0)


@hookimpl
def boundflow_register_commands() -> list[Command]:
    return [Command("verify", "Decide whether a network has a counterexample to a property.", _verify)]


@hookimpl
def boundflow_register_branching() -> list[Branching]:
    from boundflow_bab.branching import BABSR, INTERCEPT

    return [BABSR, INTERCEPT]


def _verify() -> click.Command:
    from boundflow_bab.cli import command

    return command
