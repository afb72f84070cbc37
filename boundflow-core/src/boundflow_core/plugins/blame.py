"""Whose code failed: for messages that send reports to those who can mend it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable

from boundflow_core.plugins.record import PluginRecord

__all__ = ["culprit"]

HOST = __name__.partition(".")[0]


def culprit(error: BaseException, records: Iterable[PluginRecord]) -> tuple[PluginRecord, str] | None:
    """The plugin whose code ran last when ``error`` was raised, and the place in it ("rules.py:12").

    That may have called the host again, which then failed on what it was given. None: no plugin's code ran.
    """
    owners = {_package(record.module): record for record in records if _package(record.module) != HOST}
    ran = [
        (owners[package], f"{os.path.basename(frame.f_code.co_filename)}:{line}")
        for frame, line in traceback.walk_tb(error.__traceback__)
        if (package := _package(frame.f_globals.get("__name__", ""))) in owners
    ]
    return ran[-1] if ran else None


def _package(module: str) -> str:
    """The outermost package of a module, or of what an entry point names ("package.module:attribute")."""
    return module.partition(":")[0].partition(".")[0]
