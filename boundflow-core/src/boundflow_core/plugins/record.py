"""What became of each plugin that was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

__all__ = ["PluginRecord", "Status"]


class Status(str, Enum):
    """What became of a plugin."""

    ACTIVE = "active"
    DISABLED = "disabled"  # by BOUNDFLOW_DISABLE_PLUGINS
    BROKEN = "broken"  # it does not import, a hook fails, or it brings what is core's, or a rule that a domain has
    INCOMPATIBLE = "incompatible"  # written for another version of the hooks
    DUPLICATE = "duplicate"  # somebody else has a plugin of the same name, or brings the same thing

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class PluginRecord:
    """One plugin that was found, whether it is in use or not.

    Attributes:
        name: name of its entry point.
        distribution, version: what to install, upgrade or uninstall; "unknown" where its metadata are damaged.
        api: the version of the hooks that it states; None where it states none or was not imported.
        status: only an active plugin brings anything.
        reason: why it is not active; empty if it is.
        module: what its entry point names.
        brings: names by kind ("methods": ("ibp",)), and "suffixes" of files that it reads; of a plugin that is not
            active what is known of it.
        notes: what an active plugin brings in vain, such as a rule for a domain that nobody brings.
    """

    name: str
    distribution: str
    version: str
    api: tuple[int, int] | None
    status: Status
    reason: str = ""
    module: str = ""
    brings: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        return self.status is Status.ACTIVE

    def to_json(self) -> dict[str, Any]:
        """The same as plain dicts, lists and strings."""
        return {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "api": None if self.api is None else list(self.api),
            "status": self.status.value,
            "reason": self.reason,
            "module": self.module,
            "brings": {kind: list(names) for kind, names in self.brings.items()},
            "notes": list(self.notes),
        }
