"""The console that subcommands print tables on; rich is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console"]


def console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is: names of nodes and files may hold what rich reads as markup."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise  # what rich is handling, for `main` to handle; rich would exit

    return Plain(stderr=stderr, markup=False, highlight=False)
