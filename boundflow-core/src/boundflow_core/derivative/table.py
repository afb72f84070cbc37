"""``RULES``: the derivative of each primitive.

At kinks and jumps, as in torch: of equal operands of ``maximum`` and ``minimum`` each takes half; ``abs`` has slope 0
at 0; ``sign``, ``floor`` and ``compare`` pass nothing on, and ``where`` nothing to its condition; equal elements of
``reduce_max`` and ``reduce_min`` share alike; of equal elements in a window of ``max_pool2d`` the first takes all. So
those of maxima and of ``abs`` are subgradients, those of minima supergradients.
"""

from __future__ import annotations

from collections.abc import Mapping

from boundflow_core.derivative import contraction, elementwise, layout, reduction
from boundflow_core.derivative.support import primitive
from boundflow_core.ir.program import DerivativeRule

__all__ = ["RULES"]

RULES: Mapping[str, DerivativeRule] = {
    "add": primitive(elementwise.add),
    "sub": primitive(elementwise.sub),
    "mul": primitive(elementwise.mul),
    "div": primitive(elementwise.div),
    "maximum": primitive(elementwise.maximum),
    "minimum": primitive(elementwise.minimum),
    **{name: primitive(elementwise.unary(name)) for name in elementwise.UNARY},
    "pow": primitive(elementwise.pow_),
    "sign": primitive(elementwise.nothing),
    "floor": primitive(elementwise.nothing),
    "compare": primitive(elementwise.nothing),
    "where": primitive(elementwise.where),
    "cast": primitive(elementwise.cast),
    "matmul": primitive(contraction.matmul),
    "conv2d": primitive(contraction.conv2d),
    "conv2d_input_grad": primitive(contraction.conv2d_input_grad),
    "conv2d_weight_grad": primitive(contraction.conv2d_weight_grad),
    "reduce_sum": primitive(reduction.reduce_sum),
    "reduce_max": primitive(reduction.extremum),
    "reduce_min": primitive(reduction.extremum),
    "max_pool2d": primitive(reduction.max_pool2d),
    "reshape": primitive(layout.reshape),
    "permute": primitive(layout.permute),
    "broadcast": primitive(layout.broadcast),
    "slice": primitive(layout.slice_),
    "concat": primitive(layout.concat),
    "pad": primitive(layout.pad),
    "gather_rows": primitive(layout.gather_rows),
    "scatter_rows": primitive(layout.scatter_rows),
    "scatter_add_rows": primitive(layout.scatter_add_rows),
    "row_numbers": primitive(elementwise.nothing),
    "running_count": primitive(elementwise.nothing),
    "first_reaching": primitive(elementwise.nothing),
}
