"""Complete verification: whether a network has a counterexample to a property, decided by attack, bounds and search."""

from __future__ import annotations

from boundflow_bab.verdict import Report, Verdict
from boundflow_bab.verify import Options, verify

__version__ = "0.1.0"

__all__ = ["Options", "Report", "Verdict", "__version__", "verify"]
