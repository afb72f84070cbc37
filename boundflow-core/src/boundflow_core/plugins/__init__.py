"""The plugin manager: what plugins can bring (`hookspecs`), which were found (`records`), what they bring (`registry`).

A plugin needs from here `hookimpl` and the number `BOUNDFLOW_API`; the types that its hooks return are in
:mod:`boundflow_core.extension`.
"""

from __future__ import annotations

from boundflow_core.plugins import hookspecs
from boundflow_core.plugins.hookspecs import BOUNDFLOW_API, hookimpl
from boundflow_core.plugins.record import PluginRecord, Status
from boundflow_core.plugins.tables import Registry

__all__ = [
    "BOUNDFLOW_API",
    "PluginRecord",
    "Registry",
    "Status",
    "hookimpl",
    "hookspecs",
    "records",
    "registry",
    "reset",
]


def registry() -> Registry:
    """Everything that the active plugins bring, in read-only tables. Assembled once per process, by the first call.

    Raises:
        PluginError: BOUNDFLOW_STRICT_PLUGINS=1 is set and a plugin cannot be used.
    """
    from boundflow_core.plugins.manager import cached_registry

    return cached_registry()


def records() -> tuple[PluginRecord, ...]:
    """What became of every plugin that was found, core's own first. Raises PluginError, see `registry`."""
    return registry().records


def reset() -> None:
    """Forget the registry, so that the next call assembles it anew: for tests."""
    from boundflow_core.plugins import manager

    manager.reset()
