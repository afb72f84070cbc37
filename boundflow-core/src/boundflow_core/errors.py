"""Every error that BoundFlow raises on purpose.

All derive from :class:`BoundFlowError`: one ``except`` catches them, and the command line prints each as a single
line. A message names the file, node and operator concerned and says what to do.
"""

from __future__ import annotations

__all__ = [
    "BoundFlowError",
    "IRError",
    "InputError",
    "LoadError",
    "MemoryLimitError",
    "OptionError",
    "PluginError",
    "PropertyError",
    "UnknownNameError",
    "UnsupportedOpError",
]


class BoundFlowError(Exception):
    """Base of all errors raised on purpose."""


class IRError(BoundFlowError):
    """A graph, program or plan is malformed: a bug in a rule, a pass or a frontend, found by a legality check."""


class InputError(BoundFlowError):
    """A region, specification or array handed in has a wrong shape, dtype or value."""


class LoadError(BoundFlowError):
    """A network could not be read: not a network file, damaged, or with values that make no sense."""


class PropertyError(BoundFlowError):
    """A property file could not be read. The message carries ``file:line:column`` where there is one."""


class OptionError(BoundFlowError):
    """An option has an unknown name or value."""


class MemoryLimitError(BoundFlowError):
    """The smallest piece of work does not fit into the memory limit; found before anything runs."""


class PluginError(BoundFlowError):
    """A plugin is broken, incompatible or in conflict with another one."""


class UnknownNameError(BoundFlowError, LookupError):
    """A method, executor, domain or frontend of this name is not registered."""


class UnsupportedOpError(BoundFlowError):
    """No rule exists for an operator.

    Attributes:
        op: operator name as the user knows it.
        node: name of the node in the network.
        where: the domain, frontend or executor that lacks the rule.
    """

    def __init__(self, op: str, node: str, where: str, hint: str) -> None:
        self.op, self.node, self.where = op, node, where
        super().__init__(f"operator {op!r} at node {node!r} is not supported by {where}; {hint}")
