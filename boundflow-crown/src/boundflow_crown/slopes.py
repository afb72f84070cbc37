"""Slopes of lower lines as inputs of programs, and the step that moves them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import Node, PrimalGraph
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import size
from boundflow_core.runner import Planning
from boundflow_core.workshop import Workshop
from boundflow_crown.ascent import BETA1, BETA2
from boundflow_crown.relax import RELAXATIONS
from boundflow_crown.relax.piecewise import SLOPE_RANGES
from boundflow_crown.walk import BackwardContext
from boundflow_interval import Interval

__all__ = [
    "EMPTY",
    "SLOPES",
    "FirstSlopes",
    "GivenSlopes",
    "allowed",
    "at_rest",
    "constants_of",
    "has_slopes",
    "planning_of_steps",
    "updated",
    "within_reach",
]

# The group of inputs that change from step to step.
SLOPES = "slopes"

# Adam's second moment to begin with: nothing, but no zero, since roots of numbers next to zero take much longer.
EMPTY = 1e-30


def has_slopes(graph: PrimalGraph, node: Node) -> bool:
    """Whether the slope of the node's lower line can be chosen."""
    if node.op == "leaky_relu":
        return bool(np.all(graph.constants[node.inputs[1]].numpy() <= 1))
    return node.op in SLOPE_RANGES


def constants_of(b: Builder, graph: PrimalGraph, node: Node) -> tuple[Value, ...]:
    """The constant operands of an activation."""
    return tuple(b.constant(graph.constants[name]) for name in node.inputs[1:])


def planning_of_steps(workshop: Workshop) -> Planning:
    """Steps are never asked for twice with the same slopes, so there is nothing to keep."""
    assert workshop.planning is not None
    return replace(workshop.planning, cache=None)


# -- Adam -------------------------------------------------------------------------------------------------------------


def at_rest(b: Builder, kind: str, name: str, value: Value) -> dict[str, Value]:
    """The first state of ``value``: itself as ``KIND:NAME``, and empty moments, ``KIND first:NAME`` and so on."""
    first, second = (b.broadcast(b.constant(number), value.shape) for number in (0.0, EMPTY))
    return {f"{kind}:{name}": value, f"{kind} first:{name}": first, f"{kind} second:{name}": second}


def updated(
    b: Builder, kind: str, name: str, value: Value, grad: Value, rate: Value, tiny: Value, *, common: bool = False
) -> dict[str, Value]:
    """The next state after Adam's update, upwards; sums instead of averages, see :class:`.ascent.Settings`.

    Args:
        common: whether the numbers [B, S, *value] of a row share the size of a step, that of the largest second moment,
            so that those with small gradients move little.
    """
    first = b.input(f"{kind} first:{name}", value.shape, group=SLOPES) * BETA1 + grad
    second = b.input(f"{kind} second:{name}", value.shape, group=SLOPES) * BETA2 + grad * grad
    scale = b.reduce_max(second, tuple(range(2, len(value.shape))), keepdims=True) if common else second
    return {
        f"{kind}:{name}": value + first * (rate / (b.sqrt(scale) + tiny)),
        f"{kind} first:{name}": first,
        f"{kind} second:{name}": second,
    }


# -- what walks take --------------------------------------------------------------------------------------------------


@dataclass
class GivenSlopes:
    """A choice of slopes for :class:`.walk.BackwardContext`: those of undecided neurons are inputs, a row each, named
    ``alpha<prefix>:NODE`` and of the shape that the walk wants; the others have the function's own slope.

    Whether a neuron is undecided goes by the bounds that the walk sees, and no gradient passes through that.

    Attributes:
        nodes: names of the nodes whose slopes are given.
        inputs: those inputs, by what follows "alpha" in their name, and their nodes: filled as the walk goes.
    """

    prefix: str
    nodes: frozenset[str]
    inputs: dict[str, tuple[Value, Node]] = field(default_factory=dict)

    def __call__(self, ctx: BackwardContext) -> Value | None:
        b, node = ctx.b, ctx.node
        if node.name not in self.nodes:
            return None
        bounds = ctx.interval(0)
        signs = Interval(b.where(bounds.lower < 0.0, -1.0, 0.0), b.where(bounds.upper > 0.0, 1.0, 0.0))
        among = SLOPE_RANGES[node.op](b, signs, constants_of(b, ctx.graph, node))
        open_ = among.lower < among.upper
        # By multiplication: a choice element by element costs many times as much where arrays are large.
        share, own = ctx.rows.lift(b.where(open_, 1.0, 0.0)), ctx.rows.lift(b.where(open_, 0.0, among.lower))
        front = ctx.rows.front
        key = f"{self.prefix}:{node.name}"
        alpha = b.input(f"alpha{key}", (*front, *own.shape[len(front) :]), group=SLOPES)
        self.inputs[key] = alpha, node
        return alpha * share + own


@dataclass
class FirstSlopes:
    """Writes down the slopes that relaxations choose, in the shape of the inputs of :class:`GivenSlopes`."""

    prefix: str
    nodes: frozenset[str]
    found: dict[str, Value] = field(default_factory=dict)

    def __call__(self, ctx: BackwardContext) -> Value | None:
        if ctx.node.name not in self.nodes:
            return None
        constants = constants_of(ctx.b, ctx.graph, ctx.node)
        lines = RELAXATIONS[ctx.node.op](ctx.b, ctx.interval(0), ctx.attrs, constants, ctx.options)
        slope, front = ctx.rows.lift(lines.lower_slope), ctx.rows.front
        self.found[f"{self.prefix}:{ctx.node.name}"] = ctx.b.broadcast(slope, (*front, *slope.shape[len(front) :]))
        return None


def allowed(b: Builder, graph: PrimalGraph, node: Node, bounds: Interval, slope: Value) -> Value:
    """Slopes [B, S, *value] brought to the nearest that are sound for bounds [B, *value] of the node's operand."""
    found = SLOPE_RANGES[node.op](b, bounds, constants_of(b, graph, node))
    low, high = (b.reshape(x, (x.shape[0], 1, *x.shape[1:])) for x in (found.lower, found.upper))
    return b.minimum(b.maximum(slope, low), high)


def within_reach(b: Builder, graph: PrimalGraph, node: Node, alpha: Value) -> Value:
    """``alpha`` brought to the nearest slopes that an undecided neuron allows."""
    undecided = Interval(b.constant(-1.0), b.constant(1.0))
    constants = (b.reshape(x, ()) if size(x.shape) == 1 else x for x in constants_of(b, graph, node))
    among = SLOPE_RANGES[node.op](b, undecided, tuple(constants))
    return b.minimum(b.maximum(alpha, among.lower), among.upper)
