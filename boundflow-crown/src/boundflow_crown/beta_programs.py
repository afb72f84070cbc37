"""The programs of beta-CROWN: bounds where neurons are assumed active or inactive, one step upwards, and the rows met.

A split neuron of pre-activation value x and sign s (1: active, -1: inactive) has s x >= 0. For any beta >= 0 the least
value of f(x) - beta s x is a lower bound of f where that holds, so the walk back adds -beta s to its rows on x. Wang et
al., Beta-CROWN: Efficient Bound Propagation with Per-neuron Split Constraints for Neural Network Robustness
Verification, 2021, section 3.1. The clipped bounds make the relaxation of split neurons exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boundflow_core.derivative import gradient_program
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import Node
from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.ir.types import Dim
from boundflow_core.planner.rewrite import inline
from boundflow_core.workshop import REGIONS, ROWS, Workshop, no_nan
from boundflow_crown.bounds import least
from boundflow_crown.domain import relaxed_operands
from boundflow_crown.layers import known_bounds
from boundflow_crown.output import output_start
from boundflow_crown.relax import RELAXATIONS
from boundflow_crown.slopes import SLOPES, allowed, constants_of, has_slopes, updated
from boundflow_interval import Interval

__all__ = ["BetaPrograms", "beta_programs"]


@dataclass(frozen=True)
class BetaPrograms:
    """Programs over the inputs of a workshop's region and specification rows of each region, and for each value V in
    ``names`` its bounds ``lower:V``, ``upper:V`` [B, *value] (clipped by the splits).

    For each V in ``values`` besides: ``push:V`` [B, *value], what a multiplier of 1 adds to the rows on it (minus the
    sign of the split, in some unit); ``alpha:V``, ``beta:V`` [B, S, *value], slopes, and multipliers in that unit.

    Attributes:
        names: all values whose bounds relaxations need, in the order of the network.
        values: those of them that can be split, and whose nodes have slopes to choose.
        start: gives ``alpha:V`` [B, *value], the slopes that crown takes.
        step: ``least`` [B, S], and the next alpha, beta and moments; keeps the best of all steps.
        bounds: ``lower`` [B, S].
        rows: ``lower`` and ``rows:V`` [B, S, *value], the rows that arrive at the result of the activation of V.
    """

    names: tuple[str, ...]
    values: tuple[str, ...]
    start: Callable[[Builder], Mapping[str, Value]]
    step: Callable[[], BoundProgram]
    bounds: Callable[[Builder], Mapping[str, Value]]
    rows: Callable[[Builder], Mapping[str, Value]]


def beta_programs(workshop: Workshop) -> BetaPrograms:
    """The programs for one network; the workshop's specification is one of rows per region, its options crown's."""
    graph = workshop.graph
    names = tuple(name for name in relaxed_operands(graph) if name != graph.input)
    nodes = tuple(node for node in graph.nodes if has_slopes(graph, node) and node.inputs[0] in names)
    values = tuple(dict.fromkeys(node.inputs[0] for node in nodes))

    def bounds(b: Builder) -> Mapping[str, Value]:
        return {"lower": no_nan(b, _least(workshop, b, names, nodes), -np.inf)}

    def rows(b: Builder) -> Mapping[str, Value]:
        seen: dict[str, Value] = {}
        found = _least(workshop, b, names, nodes, seen=seen)
        first = {node.inputs[0]: seen[node.name] for node in reversed(nodes) if node.name in seen}
        nothing = {name: b.broadcast(b.constant(0.0), _shape(workshop, name)) for name in values if name not in first}
        met = {f"rows:{name}": rows for name, rows in {**first, **nothing}.items()}
        return {"lower": no_nan(b, found, -np.inf), **met}

    return BetaPrograms(
        names,
        values,
        lambda b: _start(workshop, b, nodes),
        lambda: _step(workshop, names, nodes),
        bounds,
        rows,
    )


def _shape(workshop: Workshop, name: str) -> tuple[Dim, ...]:
    return (REGIONS, ROWS, *workshop.graph.type_of(name).shape)


def _values(nodes: Sequence[Node]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node.inputs[0] for node in nodes))


def _start(workshop: Workshop, b: Builder, nodes: Sequence[Node]) -> dict[str, Value]:
    _, states = known_bounds(workshop, b, _values(nodes))
    out: dict[str, Value] = {}
    for node in nodes:
        name = node.inputs[0]
        if f"alpha:{name}" not in out:
            with b.origin(node.name):
                constants = constants_of(b, workshop.graph, node)
                lines = RELAXATIONS[node.op](b, states[name], node.attrs, constants, workshop.options)
            out[f"alpha:{name}"] = lines.lower_slope
    return out


def _least(
    workshop: Workshop,
    b: Builder,
    names: tuple[str, ...],
    nodes: Sequence[Node],
    *,
    clamped: bool = True,
    seen: dict[str, Value] | None = None,
) -> Value:
    """Lower bounds [B, S], whatever slopes and multipliers are; if not ``clamped`` they must be sound ones."""
    region, states = known_bounds(workshop, b, names)
    spec = workshop.spec_rows(b)
    slopes: dict[str, Value] = {}
    extra: dict[str, Value] = {}
    for name in _values(nodes):
        shape = _shape(workshop, name)
        push = b.input(f"push:{name}", (REGIONS, *shape[2:]), group="splits")
        alpha = b.input(f"alpha:{name}", shape, group=SLOPES)
        beta = b.input(f"beta:{name}", shape, group=SLOPES)
        extra[name] = (b.maximum(beta, 0.0) if clamped else beta) * b.reshape(push, (REGIONS, 1, *push.shape[1:]))
        for node in nodes:
            if node.inputs[0] == name:
                slopes[node.name] = allowed(b, workshop.graph, node, states[name], alpha) if clamped else alpha
    start = output_start(b, workshop.graph, spec, region.lower.shape[0])
    rules = workshop.rules["linear"]
    return least(
        b,
        workshop.graph,
        rules,
        region,
        start,
        states,
        workshop.options,
        lambda ctx: slopes.get(ctx.node.name),
        both=False,
        extra=extra,
        seen=seen,
    )


def _step(workshop: Workshop, names: tuple[str, ...], nodes: Sequence[Node]) -> BoundProgram:
    """One step of projected ascent by Adam: slopes and multipliers are brought to the nearest that are sound, bounded,
    and moved. ``best``, ``best alpha:V`` and ``best beta:V`` are those of the best step so far, row by row.

    Of a row's multipliers at a value, that of the latest split must go far, earlier ones hardly: they share the size of
    their steps.
    """
    values = _values(nodes)
    # A value with several activations takes slopes that suit each of them, by a clamp of its own for each.
    single = len(values) == len(nodes)
    inner = workshop.write("beta bounds", lambda b: {"least": _least(workshop, b, names, nodes, clamped=not single)})
    wanted = [f"{kind}:{name}" for name in values for kind in ("alpha", "beta")]
    gradient = gradient_program(inner, "least", wanted)

    def write(b: Builder) -> dict[str, Value]:
        given = {
            value.name: b.input(value.name, value.shape, value.type.dtype, gradient.groups.get(value.name))
            for value in gradient.inputs
        }
        for node in nodes:
            name = node.inputs[0]
            if single:
                bounds = Interval(given[f"lower:{name}"], given[f"upper:{name}"])
                given[f"alpha:{name}"] = allowed(b, workshop.graph, node, bounds, given[f"alpha:{name}"])
        for name in values:
            given[f"beta:{name}"] = b.maximum(given[f"beta:{name}"], 0.0)
        found = inline(b, gradient, given)
        now = found["least"]
        tiny = b.input("tiny", (), group=SLOPES)
        best = b.input("best", now.shape, group=SLOPES)
        better = now > best
        out = {"least": now, "best": b.where(better, now, best)}
        for kind in ("alpha", "beta"):
            rate = b.input(f"{kind} rate", (), group=SLOPES)
            for name in values:
                value = given[f"{kind}:{name}"]
                grad = found[f"grad:{kind}:{name}"]
                out |= updated(b, kind, name, value, grad, rate, tiny, common=kind == "beta")
                held = b.input(f"best {kind}:{name}", value.shape, group=SLOPES)
                chosen = b.reshape(better, (*now.shape, *(1 for _ in value.shape[2:])))
                out[f"best {kind}:{name}"] = b.where(chosen, value, held)
        return out

    return workshop.write("beta step", write)
