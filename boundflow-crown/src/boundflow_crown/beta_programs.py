"""The programs of beta-CROWN: bounds where neurons are assumed active or inactive, one step upwards, and the rows met.

A split neuron of pre-activation value x and sign s (1: active, -1: inactive) has s x >= 0. For any beta >= 0 the least
value of f(x) - beta s x is a lower bound of f where that holds, so the walk back adds -beta s to its rows on x. Wang et
al., Beta-CROWN: Efficient Bound Propagation with Per-neuron Split Constraints for Neural Network Robustness
Verification, 2021, section 3.1. The clipped bounds make the relaxation of split neurons exact.

A neuron with a curve for an activation is split at points, so that it lies between l and u, and lines are those of the
narrower interval. For a multiplier c of either sign c x >= min(c l, c u), so the least value of f(x) - c x, plus that,
is a lower bound of f: where c > 0 it holds x >= l against f, where c < 0, x <= u. Shi et al., Neural Network
Verification with Branch-and-Bound for General Nonlinearities, 2024, section 3; here one multiplier serves both ends, of
which at most one is of use at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boundflow_core.derivative import gradient_program
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import Node
from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.ir.types import Dim
from boundflow_core.planner.rewrite import inline
from boundflow_core.workshop import REGIONS, ROWS, Workshop, no_nan
from boundflow_crown.bounds import least
from boundflow_crown.domain import relaxed_operands
from boundflow_crown.layers import known_bounds
from boundflow_crown.lines import Lines
from boundflow_crown.output import output_start
from boundflow_crown.relax import RELAXATIONS
from boundflow_crown.slopes import SLOPES, allowed, constants_of, has_slopes, updated
from boundflow_interval import Interval

__all__ = ["CURVES", "BetaPrograms", "beta_programs"]

# Operators whose operands are split at points: lines come nearer to them as intervals narrow.
CURVES = frozenset({"sigmoid", "tanh", "erf", "gelu"})

# Where in an interval the distances between lines and curve are measured.
GAP_PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class BetaPrograms:
    """Programs over the inputs of a workshop's region and specification rows of each region, and for each value V in
    ``names`` its bounds ``lower:V``, ``upper:V`` [B, *value] (clipped by the splits).

    For each V in ``values`` besides: ``push:V`` [B, *value], what a multiplier of 1 adds to the rows on it (minus the
    sign of the split, in some unit; for V in ``curves`` minus that unit, 0 where there is no split or a bound is
    infinite); ``beta:V`` [B, S, *value], multipliers in that unit; and for V in ``sloped``, ``alpha:V`` [B, S, *value],
    slopes.

    Attributes:
        names: all values whose bounds relaxations need, in the order of the network.
        values: those of them that can be split.
        sloped: those of them whose nodes have slopes to choose.
        curves: those of them that are split at points, all others at zero.
        start: gives ``alpha:V`` [B, *value], the slopes that crown takes.
        step: ``least`` [B, S], and the next alpha, beta and moments; keeps the best of all steps.
        bounds: ``lower`` [B, S].
        rows: ``lower`` and ``rows:V`` [B, S, *value], the rows that arrive at the result of the activation of V; for V
            in ``curves`` ``above:V`` and ``below:V`` [B, *value], how far the lines of its relaxation are from it.
        slant: ``least`` [B, S], and ``grad:lower`` and ``grad:upper`` [B, *input], how its sum over the rows changes
            with the ends of the region, a box.
    """

    names: tuple[str, ...]
    values: tuple[str, ...]
    sloped: tuple[str, ...]
    curves: tuple[str, ...]
    start: Callable[[Builder], Mapping[str, Value]]
    step: Callable[[], BoundProgram]
    bounds: Callable[[Builder], Mapping[str, Value]]
    rows: Callable[[Builder], Mapping[str, Value]]
    slant: Callable[[], BoundProgram]


def beta_programs(workshop: Workshop) -> BetaPrograms:
    """The programs for one network; the workshop's specification is one of rows per region, its options crown's."""
    graph = workshop.graph
    names = tuple(name for name in relaxed_operands(graph) if name != graph.input)
    bent = tuple(node for node in graph.nodes if node.op in CURVES and node.inputs[0] in names)
    nodes = tuple(node for node in graph.nodes if has_slopes(graph, node) and node.inputs[0] in names)
    curves, sloped = _values(bent), _values(nodes)
    values = tuple(name for name in names if name in {*curves, *sloped})
    terms = _Terms(workshop, names, nodes, values, curves)

    def bounds(b: Builder) -> Mapping[str, Value]:
        return {"lower": no_nan(b, _least(terms, b, terms.states(b)), -np.inf)}

    def rows(b: Builder) -> Mapping[str, Value]:
        seen: dict[str, Value] = {}
        states = terms.states(b)
        found = _least(terms, b, states, seen=seen)
        first = {node.inputs[0]: seen[node.name] for node in reversed((*nodes, *bent)) if node.name in seen}
        nothing = {name: b.broadcast(b.constant(0.0), terms.shape(name)) for name in values if name not in first}
        met = {f"rows:{name}": rows for name, rows in {**first, **nothing}.items()}
        return {"lower": no_nan(b, found, -np.inf), **met, **_gaps(workshop, b, bent, states)}

    return BetaPrograms(
        names,
        values,
        sloped,
        curves,
        lambda b: _start(workshop, b, nodes),
        lambda: _step(terms),
        bounds,
        rows,
        lambda: _slant(terms),
    )


@dataclass(frozen=True)
class _Terms:
    """What the programs are about.

    Attributes:
        nodes: those with slopes to choose.
        names, values, curves: see :class:`BetaPrograms`.
    """

    workshop: Workshop
    names: tuple[str, ...]
    nodes: tuple[Node, ...]
    values: tuple[str, ...]
    curves: tuple[str, ...]

    def shape(self, name: str) -> tuple[Dim, ...]:
        return (REGIONS, ROWS, *self.workshop.graph.type_of(name).shape)

    def states(self, b: Builder) -> dict[str, Interval]:
        """The region, and bounds of the values ``names``."""
        return known_bounds(self.workshop, b, self.names)[1]

    def push(self, b: Builder, name: str) -> Value:
        return b.input(f"push:{name}", (REGIONS, *self.shape(name)[2:]), group="splits")


def _values(nodes: Sequence[Node]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node.inputs[0] for node in nodes))


def _start(workshop: Workshop, b: Builder, nodes: Sequence[Node]) -> dict[str, Value]:
    _, states = known_bounds(workshop, b, _values(nodes))
    out: dict[str, Value] = {}
    for node in nodes:
        name = node.inputs[0]
        if f"alpha:{name}" not in out:
            with b.origin(node.name):
                out[f"alpha:{name}"] = _lines(workshop, b, node, states[name]).lower_slope
    return out


def _lines(workshop: Workshop, b: Builder, node: Node, x: Interval) -> Lines:
    return RELAXATIONS[node.op](b, x, node.attrs, constants_of(b, workshop.graph, node), workshop.options)


def _gaps(workshop: Workshop, b: Builder, bent: Sequence[Node], states: Mapping[str, Interval]) -> dict[str, Value]:
    """``above:V`` and ``below:V``: the greatest distances between line and curve that are met at a few places."""
    out: dict[str, Value] = {}
    for node in bent:
        name, x = node.inputs[0], states[node.inputs[0]]
        if f"above:{name}" in out:
            continue
        with b.origin(node.name):
            lines = _lines(workshop, b, node, x)
            assert lines.lower_bias is not None and lines.upper_bias is not None
            above = below = x.lower * 0.0
            for share in GAP_PLACES:
                place = x.lower * (1 - share) + x.upper * share
                value = PRIMAL_OPS[node.op].emit(b, node.attrs, 1, place)
                above = b.maximum(above, lines.upper_slope * place + lines.upper_bias - value)
                below = b.maximum(below, value - lines.lower_slope * place - lines.lower_bias)
            out |= {f"above:{name}": above, f"below:{name}": below}
    return out


def _least(
    terms: _Terms,
    b: Builder,
    states: Mapping[str, Interval],
    *,
    clamped: bool = True,
    cut: bool = True,
    seen: dict[str, Value] | None = None,
) -> Value:
    """Lower bounds [B, S], whatever slopes and multipliers are; if not ``clamped`` they must be sound ones, and if not
    ``cut``, what :func:`_ends` gives is still to be taken off."""
    workshop, graph = terms.workshop, terms.workshop.graph
    region = states[graph.input]
    spec = workshop.spec_rows(b)
    slopes: dict[str, Value] = {}
    extra: dict[str, Value] = {}
    cuts: list[Value] = []
    sloped = _values(terms.nodes)
    for name in terms.values:
        push, shape = terms.push(b, name), terms.shape(name)
        alpha = b.input(f"alpha:{name}", shape, group=SLOPES) if name in sloped else None
        beta = b.input(f"beta:{name}", shape, group=SLOPES)
        if name not in terms.curves and clamped:
            beta = b.maximum(beta, 0.0)
        extra[name] = beta * _lifted(b, push)
        if name in terms.curves and cut:
            cuts.append(_cut(b, beta, *_ends(b, push, states[name])))
        for node in terms.nodes:
            if node.inputs[0] == name:
                assert alpha is not None
                slopes[node.name] = allowed(b, graph, node, states[name], alpha) if clamped else alpha
    start = output_start(b, graph, spec, region.lower.shape[0])
    found = least(
        b,
        graph,
        workshop.rules["linear"],
        region,
        start,
        states,
        workshop.options,
        lambda ctx: slopes.get(ctx.node.name),
        both=False,
        extra=extra,
        seen=seen,
    )
    for value in cuts:
        found = found - value
    return found


def _slant(terms: _Terms) -> BoundProgram:
    found = terms.workshop.write("beta bounds", lambda b: {"least": _least(terms, b, terms.states(b))})
    return gradient_program(found, "least", ["lower", "upper"])


def _lifted(b: Builder, value: Value) -> Value:
    """[B, *value] for every row."""
    return b.reshape(value, (REGIONS, 1, *value.shape[1:]))


def _ends(b: Builder, push: Value, x: Interval) -> tuple[Value, Value]:
    """What a multiplier of 1 pushes the ends of a curve's neuron by, [B, 1, *value]; 0 without a split. The first is no
    less than the second."""
    split = b.compare(push, 0.0, "lt")
    return _lifted(b, push * b.where(split, x.lower, 0.0)), _lifted(b, push * b.where(split, x.upper, 0.0))


def _cut(b: Builder, beta: Value, low: Value, high: Value) -> Value:
    """What multipliers of a curve's neurons take off the bounds, [B, S]: for c = -``beta`` push, -min(c l, c u)."""
    taken = b.maximum(beta * low, beta * high)
    return b.reduce_sum(taken, tuple(range(2, len(taken.shape))))


def _uphill(b: Builder, beta: Value, grad: Value, low: Value, high: Value) -> Value:
    """Where multipliers of a curve's neurons rise, from the gradient without the cut. At 0, where the two ends meet, it
    is that of the end that is violated, if any."""
    by_low, by_high = grad - low, grad - high
    resting = b.maximum(by_low, 0.0) + b.minimum(by_high, 0.0)
    return b.where(beta > 0.0, by_low, b.where(beta < 0.0, by_high, resting))


def _stopped(b: Builder, beta: Value, moved: Value) -> Value:
    """Multipliers ``moved`` from ``beta``, those that cross 0 only so far."""
    return b.where(beta > 0.0, b.maximum(moved, 0.0), b.where(beta < 0.0, b.minimum(moved, 0.0), moved))


def _step(terms: _Terms) -> BoundProgram:
    """One step of projected ascent by Adam: slopes and multipliers are brought to the nearest that are sound, bounded,
    and moved. ``best``, ``best alpha:V`` and ``best beta:V`` are those of the best step so far, row by row.

    Of a row's multipliers at a value of relus, that of the latest split must go far, earlier ones hardly: they share
    the size of their steps.
    """
    workshop, sloped = terms.workshop, _values(terms.nodes)
    # A value with several activations takes slopes that suit each of them, by a clamp of its own for each.
    single = len(sloped) == len(terms.nodes)
    inner = workshop.write(
        "beta bounds", lambda b: {"least": _least(terms, b, terms.states(b), clamped=not single, cut=False)}
    )
    moving = {"alpha": sloped, "beta": terms.values}
    gradient = gradient_program(inner, "least", [f"{kind}:{name}" for kind in moving for name in moving[kind]])

    def write(b: Builder) -> dict[str, Value]:
        given = {
            value.name: b.input(value.name, value.shape, value.type.dtype, gradient.groups.get(value.name))
            for value in gradient.inputs
        }

        def bounds(name: str) -> Interval:
            return Interval(given[f"lower:{name}"], given[f"upper:{name}"])

        for node in terms.nodes:
            name = node.inputs[0]
            if single:
                given[f"alpha:{name}"] = allowed(b, workshop.graph, node, bounds(name), given[f"alpha:{name}"])
        for name in terms.values:
            if name not in terms.curves:
                given[f"beta:{name}"] = b.maximum(given[f"beta:{name}"], 0.0)
        found = dict(inline(b, gradient, given))
        now = found["least"]
        for name in terms.curves:
            low, high = _ends(b, given[f"push:{name}"], bounds(name))
            beta, key = given[f"beta:{name}"], f"grad:beta:{name}"
            now = now - _cut(b, beta, low, high)
            found[key] = _uphill(b, beta, found[key], low, high)
        tiny = b.input("tiny", (), group=SLOPES)
        best = b.input("best", now.shape, group=SLOPES)
        better = now > best
        out = {"least": now, "best": b.where(better, now, best)}
        for kind, names in moving.items():
            rate = b.input(f"{kind} rate", (), group=SLOPES) if names else tiny
            for name in names:
                key = f"{kind}:{name}"
                value = given[key]
                common = kind == "beta" and name not in terms.curves
                out |= updated(b, kind, name, value, found[f"grad:{key}"], rate, tiny, common=common)
                if kind == "beta" and name in terms.curves:
                    out[key] = _stopped(b, value, out[key])
                held = b.input(f"best {key}", value.shape, group=SLOPES)
                chosen = b.reshape(better, (*now.shape, *(1 for _ in value.shape[2:])))
                out[f"best {key}"] = b.where(chosen, value, held)
        return out

    return workshop.write("beta step", write)
