"""Backward linear bounds for BoundFlow: the domain ``linear``, the methods of the CROWN family, and beta-CROWN."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boundflow_crown.ascent import Settings
    from boundflow_crown.beta import BetaCrown, Optimised, Subproblems

# Imported when they are first used, since plugins are to be imported quickly.
_HOMES = {"BetaCrown": "beta", "Optimised": "beta", "Settings": "ascent", "Subproblems": "beta"}

__all__ = ["BetaCrown", "Optimised", "Settings", "Subproblems"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
