"""Walks of a domain's rules over a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from boundflow_core.errors import UnsupportedOpError
from boundflow_core.extension import Rule, RuleContext
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import Node, PrimalGraph

__all__ = ["forward_states", "rule_of"]


def rule_of(rules: Mapping[str, Rule], node: Node, domain: str) -> Rule:
    """The rule of ``domain`` for the operator of ``node``.

    Raises:
        UnsupportedOpError: there is none.
    """
    if node.op not in rules:
        hint = (
            f"a plugin can add a rule: boundflow_register_op_rules gives OpRule({domain!r}, {node.op!r}, rule), "
            "where rule(context, *operands) writes the operator's tensor code"
        )
        raise UnsupportedOpError(node.op, node.name, f"domain {domain!r}", hint)
    return rules[node.op]


def forward_states(
    builder: Builder,
    graph: PrimalGraph,
    rules: Mapping[str, Rule],
    state: Any,
    *,
    domain: str,
    known: Mapping[str, Any] | None = None,
    settle: Callable[[str, Any], Any] | None = None,
) -> dict[str, Any]:
    """States of every value that depends on the input, by name: the rules of a forward domain, operator by operator.

    A rule is handed the states of its operands and, for operands that are constants, their values without a batch axis.

    Args:
        builder: takes the tensor code.
        rules: rule per operator name.
        state: the state of the graph's input.
        domain: name of the domain, for messages.
        known: states of values that are taken as they are, by name.
        settle: ``settle(name, state) -> state``: what to make of each further state before it is read.

    Raises:
        UnsupportedOpError: an operator has no rule.
    """
    states = {**(known or {}), graph.input: state}
    for node in graph.nodes:
        if node.output in states:
            continue
        rule = rule_of(rules, node, domain)
        with builder.origin(node.name):
            operands = [
                states[name] if name in states else builder.constant(graph.constants[name]) for name in node.inputs
            ]
            found = rule(RuleContext(builder, graph, node), *operands)
        states[node.output] = found if settle is None else settle(node.output, found)
    return states
