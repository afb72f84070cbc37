"""Rounding: from a program of bounds to one whose bounds hold in exact arithmetic, whatever its rounding did."""

from __future__ import annotations

from boundflow_core.rounding.outward import outward_program
from boundflow_core.rounding.table import RULES

__all__ = ["RULES", "outward_program"]
