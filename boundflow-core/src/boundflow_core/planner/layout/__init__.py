"""Layout: passes that take rearrangements of elements out of programs, and a report on what is left.

What rearranges and computes nothing is a layout operation: reshape, permute, broadcast, slice, pad, concat.
"""

from __future__ import annotations

from boundflow_core.planner.layout.analysis import LayoutReport, ValueLayout, analyse_layout
from boundflow_core.planner.layout.local import simplify_layout
from boundflow_core.planner.layout.sink import layout_ops, sink_layout

__all__ = ["LayoutReport", "ValueLayout", "analyse_layout", "layout_ops", "simplify_layout", "sink_layout"]
