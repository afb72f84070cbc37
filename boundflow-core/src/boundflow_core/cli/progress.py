"""Progress of long runs, where a person looks on: a bar on stderr while a call runs in chunks, and what is logged."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from boundflow_core.compiled import Progress

__all__ = ["chunk_progress"]


@contextmanager
def chunk_progress(*, shown: bool = True) -> Iterator[Progress | None]:
    """A callback that draws a bar over the chunks of a call; None unless both stdout and stderr are a terminal.

    The bar appears with the first of several chunks, starts anew with each call, and is wiped off at the end.
    Meanwhile stderr shows what BoundFlow's packages log, such as that something is compiled, which takes its time.

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
    console = Console(stderr=True)
    with (
        _messages(lambda text: console.print(text, highlight=False)),
        Bar(*columns, console=console, transient=True) as bar,
    ):
        row = bar.add_task("chunks", visible=False)

        def progress(done: int, in_all: int) -> None:
            bar.update(row, completed=done, total=in_all, visible=in_all > 1)

        yield progress


class _Shown(logging.Handler):
    """Shows messages of BoundFlow's packages once each, and warnings of all."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._show, self._latest = show, ""

    def emit(self, record: logging.LogRecord) -> None:
        text = f"boundflow: {record.getMessage()}"
        if text != self._latest and (record.name.startswith("boundflow") or record.levelno >= logging.WARNING):
            self._show(text)
            self._latest = text


@contextmanager
def _messages(show: Callable[[str], None]) -> Iterator[None]:
    logger, handler = logging.getLogger(), _Shown(show)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
