"""Walks of forward rules: states that are known beforehand, and what becomes of the others."""

from __future__ import annotations

from typing import Any

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.walk import forward_states


def _graph() -> PrimalGraph:
    g = PrimalBuilder("chain", "x", (2,))
    return g.finish(g.op("tanh", g.op("abs", g.op("relu", g.input))))


def _rules(seen: list[tuple[str, Any]]) -> dict[str, Any]:
    """States are texts: what was applied to what."""

    def rule(name: str) -> Any:
        def apply(context: Any, state: str) -> str:
            seen.append((name, state))
            return f"{name}({state})"

        return apply

    return {name: rule(name) for name in ("relu", "abs", "tanh")}


def test_known_states_are_taken_and_not_computed() -> None:
    graph, seen = _graph(), []
    middle = graph.nodes[1].output
    states = forward_states(Builder(), graph, _rules(seen), "x", domain="text", known={middle: "known"})
    assert states[middle] == "known" and states[graph.output] == "tanh(known)"
    assert [name for name, _ in seen] == ["relu", "tanh"]


def test_states_are_settled_before_they_are_read() -> None:
    graph, seen = _graph(), []
    first, middle, last = (node.output for node in graph.nodes)
    states = forward_states(
        Builder(),
        graph,
        _rules(seen),
        "x",
        domain="text",
        known={middle: "known"},
        settle=lambda name, state: f"{state}!",
    )
    assert states == {graph.input: "x", first: "relu(x)!", middle: "known", last: "tanh(known)!"}
