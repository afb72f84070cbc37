"""Derivatives of programs: from a program to the program of its gradient, which is planned and run as any other."""

from __future__ import annotations

from boundflow_core.derivative.reverse import gradient_program
from boundflow_core.derivative.table import RULES

__all__ = ["RULES", "gradient_program"]
