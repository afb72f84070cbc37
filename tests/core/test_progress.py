"""What a person who looks on is told while a command works."""

from __future__ import annotations

import logging

from boundflow_core.cli.progress import _messages


def test_messages_of_our_own_are_shown_once_and_warnings_of_all() -> None:
    shown: list[str] = []
    before = logging.getLogger().level
    with _messages(shown.append):
        for _ in range(2):
            logging.getLogger("boundflow_some.part").info("compiling %d kernels", 3)
        logging.getLogger("other").info("chatter")
        logging.getLogger("other").warning("careful")
    logging.getLogger("boundflow_some.part").info("unheard")
    assert shown == ["boundflow: compiling 3 kernels", "boundflow: careful"]
    assert logging.getLogger().level == before
