"""``RULES``: what the result of each primitive may be off by, from what its operands may be off by."""

from __future__ import annotations

from collections.abc import Mapping

from boundflow_core.rounding import elementwise, structure
from boundflow_core.rounding.support import Rule

__all__ = ["RULES"]

RULES: Mapping[str, Rule] = {
    "add": elementwise.difference,
    "sub": elementwise.difference,
    "mul": elementwise.mul,
    "div": elementwise.div,
    "maximum": elementwise.extremum,
    "minimum": elementwise.extremum,
    "neg": elementwise.same,
    "abs": elementwise.same,
    "sign": elementwise.sign,
    "floor": elementwise.floor,
    "pow": elementwise.pow_,
    "compare": elementwise.compare,
    "where": elementwise.where,
    "cast": elementwise.cast,
    **{name: elementwise.function(name) for name in elementwise.FUNCTIONS},
    **{name: structure.bilinear(name) for name in structure.TERMS},
    "reduce_sum": structure.reduce_sum,
    "reduce_max": structure.reduced("reduce_max"),
    "reduce_min": structure.reduced("reduce_max"),
    "max_pool2d": structure.reduced("max_pool2d"),
    "reshape": structure.moved("reshape"),
    "permute": structure.moved("permute"),
    "broadcast": structure.moved("broadcast"),
    "slice": structure.moved("slice"),
    "pad": structure.pad,
    "concat": structure.concat,
    "gather_rows": structure.gather,
    "scatter_rows": structure.scatter,
    "scatter_add_rows": structure.scatter_add,
    "row_numbers": lambda b, attrs, xs, y: None,
    "running_count": structure.exact,
    "first_reaching": structure.exact,
}
