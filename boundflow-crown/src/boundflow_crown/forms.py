"""Bounds inside of a network by affine forms, forward: for boxes of few inputs, before rows are walked back.

A form says of each element of a value that it lies within ``radius`` of ``center + sum_i slopes_i e_i``, where ``e_i``
in [-1, 1] says where in the box the i-th input lies. Affine operators lose nothing but what they lose on the radius;
relaxations put a band around the upper line, whose slope they take (Singh et al., Fast and Effective Robustness
Certification, 2018, section 3, but for errors, which are not told apart here). One pass costs as much as evaluating the
network at as many points as there are inputs, and tells most neurons to be stable where few are not, so that these need
no rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import frozen
from boundflow_core.ir.primal import Node, PrimalGraph
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import size
from boundflow_crown.domain import ancestors
from boundflow_crown.relax import RELAXATIONS
from boundflow_interval import Interval

__all__ = ["Form", "interval_by_forms"]

# Relus are relaxed by parallel lines.
OPTIONS: Mapping[str, Any] = {"slope": "same"}


@dataclass(frozen=True)
class Form:
    """``center`` [B, *value], ``slopes`` [B, n, *value] and ``radius`` [B, *value], which is never negative."""

    center: Value
    slopes: Value
    radius: Value

    def interval(self, b: Builder) -> Interval:
        reach = b.reduce_sum(b.abs(self.slopes), (1,)) + self.radius
        return Interval(self.center - reach, self.center + reach)


def interval_by_forms(
    b: Builder, graph: PrimalGraph, region: Interval, states: Mapping[str, Interval], name: str
) -> Interval:
    """Bounds of the value ``name`` over boxes; infinite or NaN where nothing can be said.

    Args:
        states: bounds of all values that ``name`` is computed from, on which relaxations are built.
    """
    needed = ancestors(graph, name) | {name}
    forms = {graph.input: _start(b, region)}
    for node in graph.nodes:
        if node.output not in needed:
            continue
        with b.origin(node.name):
            forms[node.output] = _after(b, graph, node, forms, states)
    return forms[name].interval(b)


def _start(b: Builder, region: Interval) -> Form:
    shape = region.lower.shape
    count = size(shape[1:])
    assert isinstance(count, int)
    half_lower, half_upper = region.lower * 0.5, region.upper * 0.5
    center, radius = half_lower + half_upper, half_upper - half_lower
    axes = b.constant(frozen(np.eye(count)))
    slopes = b.reshape(radius, (shape[0], 1, count)) * axes
    return Form(center, b.reshape(slopes, (shape[0], count, *shape[1:])), center * 0.0)


def _after(
    b: Builder, graph: PrimalGraph, node: Node, forms: Mapping[str, Form], states: Mapping[str, Interval]
) -> Form:
    """The form of the node's result."""
    operands: list[Form | Value] = [
        forms[name] if name in forms else b.constant(graph.constants[name]) for name in node.inputs
    ]
    first = operands[0]
    if node.op in RELAXATIONS and isinstance(first, Form):
        constants = tuple(x for x in operands[1:] if isinstance(x, Value))
        return _relaxed(b, node, first, states[node.inputs[0]], constants)
    rule = RULES.get(node.op)
    found = None if rule is None else rule(b, node, operands)
    if found is not None:
        return found
    bounds, like = states[node.output], next(form for form in operands if isinstance(form, Form)).slopes
    center, radius = bounds.lower * 0.5 + bounds.upper * 0.5, bounds.upper * 0.5 - bounds.lower * 0.5
    nothing = b.broadcast(b.constant(0.0), (*like.shape[:2], *center.shape[1:]))
    return Form(center, nothing, radius)


def _relaxed(b: Builder, node: Node, form: Form, x: Interval, constants: tuple[Value, ...]) -> Form:
    """``f(x)`` between its upper line and one below that is parallel."""
    lines = RELAXATIONS[node.op](b, x, node.attrs, constants, OPTIONS)
    slope, above = lines.upper_slope, lines.upper_bias
    above = slope * 0.0 if above is None else above
    below = slope * 0.0 if lines.lower_bias is None else lines.lower_bias
    if lines.lower_slope is not slope:
        turned = lines.lower_slope - slope
        below = below + b.minimum(turned * x.lower, turned * x.upper)
    center = slope * form.center + (above * 0.5 + below * 0.5)
    radius = b.abs(slope) * form.radius + b.maximum(above * 0.5 - below * 0.5, 0.0)
    return Form(center, _lifted(b, slope) * form.slopes, radius)


def _lifted(b: Builder, x: Value) -> Value:
    """[B, *value] for every input."""
    return b.reshape(x, (x.shape[0], 1, *x.shape[1:]))


# -- affine operators: each gives the form of its result, or None where it says nothing -------------------------------

Rule = Callable[[Builder, Node, Sequence["Form | Value"]], "Form | None"]


def _each(b: Builder, node: Node, slopes: Value, *constants: Value, **changed: Any) -> Value:
    """The operator on the slopes of each input."""
    batch, inputs = slopes.shape[:2]
    flat = b.reshape(slopes, (batch * inputs, *slopes.shape[2:]))
    attrs = type(node.attrs)({**node.attrs, **changed})
    y = node.spec.emit(b, attrs, 1, flat, *constants)
    return b.reshape(y, (batch, inputs, *y.shape[1:]))


def _weighted(b: Builder, node: Node, operands: Sequence[Form | Value]) -> Form | None:
    """Of a weight and perhaps a bias."""
    x, weight, *bias = operands
    if not isinstance(x, Form) or isinstance(weight, Form):
        return None
    center = node.spec.emit(b, node.attrs, 1, x.center, weight, *bias)
    radius = node.spec.emit(b, node.attrs, 1, x.radius, b.abs(weight))
    return Form(center, _each(b, node, x.slopes, weight), radius)


def _moving(b: Builder, node: Node, operands: Sequence[Form | Value]) -> Form | None:
    """Of what moves or adds up elements; further operands are constants that say how."""
    x, *how = operands
    constants = [value for value in how if isinstance(value, Value)]
    if not isinstance(x, Form) or len(constants) < len(how):
        return None
    center, radius = (node.spec.emit(b, node.attrs, 1, part, *constants) for part in (x.center, x.radius))
    return Form(center, _each(b, node, x.slopes, *constants), radius)


def _pad(b: Builder, node: Node, operands: Sequence[Form | Value]) -> Form | None:
    (x,) = operands
    assert isinstance(x, Form)
    zeros = type(node.attrs)({**node.attrs, "value": 0.0})
    center, radius = node.spec.emit(b, node.attrs, 1, x.center), node.spec.emit(b, zeros, 1, x.radius)
    return Form(center, _each(b, node, x.slopes, value=0.0), radius)


def _add(b: Builder, node: Node, operands: Sequence[Form | Value]) -> Form | None:
    x, y = operands
    if isinstance(x, Form) and isinstance(y, Form):
        return Form(x.center + y.center, x.slopes + y.slopes, x.radius + y.radius)
    form, constant = (x, y) if isinstance(x, Form) else (y, x)
    assert isinstance(form, Form) and isinstance(constant, Value)
    center = form.center + constant
    slopes = b.broadcast(form.slopes, (*form.slopes.shape[:2], *center.shape[1:]))
    return Form(center, slopes, b.broadcast(form.radius, center.shape))


def _mul(b: Builder, node: Node, operands: Sequence[Form | Value]) -> Form | None:
    x, y = operands
    if isinstance(x, Form) and isinstance(y, Form):
        return None
    form, constant = (x, y) if isinstance(x, Form) else (y, x)
    assert isinstance(form, Form) and isinstance(constant, Value)
    return Form(form.center * constant, form.slopes * constant, form.radius * b.abs(constant))


RULES: Mapping[str, Rule] = {
    "linear": _weighted,
    "conv2d": _weighted,
    "conv_transpose2d": _weighted,
    "add": _add,
    "mul": _mul,
    "reduce_sum": _moving,
    "reshape": _moving,
    "permute": _moving,
    "expand": _moving,
    "slice": _moving,
    "gather": _moving,
    "pad": _pad,
}
