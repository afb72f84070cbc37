"""Backward linear bounds for BoundFlow: the domain ``linear``, the methods of the CROWN family, and beta-CROWN.

For rules of further functions: ``relaxed(relaxation)`` is the backward rule of a function with the given lines, and
``convex`` and ``concave`` write the lines of such functions.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boundflow_crown.ascent import Settings
    from boundflow_crown.beta import BetaCrown, Optimised, Subproblems
    from boundflow_crown.lines import Lines, Relaxation
    from boundflow_crown.relax.curves import concave, convex
    from boundflow_crown.rules.activation import relaxed

# Imported when they are first used, since plugins are to be imported quickly.
_HOMES = {
    "BetaCrown": "beta",
    "Lines": "lines",
    "Optimised": "beta",
    "Relaxation": "lines",
    "Settings": "ascent",
    "Subproblems": "beta",
    "concave": "relax.curves",
    "convex": "relax.curves",
    "relaxed": "rules.activation",
}

__all__ = [
    "BetaCrown",
    "Lines",
    "Optimised",
    "Relaxation",
    "Settings",
    "Subproblems",
    "concave",
    "convex",
    "relaxed",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
