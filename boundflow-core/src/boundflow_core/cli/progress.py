"""Progress of long runs: a bar on stderr while a call runs in chunks, where a person looks on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from boundflow_core.compiled import Progress

__all__ = ["chunk_progress"]


@contextmanager
def chunk_progress(*, shown: bool = True) -> Iterator[Progress | None]:
    """A callback that draws a bar over the chunks of a call; None unless both stdout and stderr are a terminal.

    The bar appears with the first of several chunks, starts anew with each call, and is wiped off at the end.

    Args:
        shown: False for no bar, wherever the streams go.
    """
    if not (shown and sys.stderr.isatty() and sys.stdout.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task("chunks", visible=False)

        def progress(done: int, in_all: int) -> None:
            bar.update(row, completed=done, total=in_all, visible=in_all > 1)

        yield progress
