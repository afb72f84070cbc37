"""``boundflow inspect``: what a network consists of, and which methods support it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

import boundflow_core as bf
from boundflow_core.cli.console import console
from boundflow_core.cli.files import check_output, write_json
from boundflow_core.errors import UnsupportedOpError
from boundflow_core.extension import Method, operators_of
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.types import format_shape
from boundflow_core.normalize import legalize, unsupported
from boundflow_core.plugins import Registry, registry
from boundflow_core.plugins.catalogue import KNOWN_DISTRIBUTIONS

__all__ = ["Support", "command", "support"]

SHOWN_NODES = 5  # of an unsupported operator


@dataclass(frozen=True)
class Support:
    """Whether a method can bound a network.

    Attributes:
        missing: nodes without a rule, names by operator.
        reason: what else is in the way; empty if nothing is.
    """

    method: str
    doc: str
    missing: Mapping[str, tuple[str, ...]]
    reason: str = ""

    @property
    def supported(self) -> bool:
        return not self.missing and not self.reason


@click.command("inspect")
@click.argument("net")
@click.option("--json", "json_path", metavar="OUT|-", help="Write the summary as JSON to a file, or to stdout for -.")
@click.option("--graph", "as_graph", is_flag=True, help="Print the normalized network as text, one line per operator.")
def command(net: str, json_path: str | None, as_graph: bool) -> None:
    """Summarize the network in the file NET.

    Shows its shapes (of one sample), its layers after normalization, and for each method whether it supports the
    network; if not, which operators lack a rule, and where they occur.
    """
    if as_graph and json_path is not None:
        raise click.UsageError("--graph and --json exclude each other")
    check_output(json_path)
    graph = bf.load(net)
    if as_graph:
        click.echo(str(graph))
        return
    supports = [support(graph, method, registry()) for method in by_rank(registry())]
    if json_path is not None:
        write_json(summary(net, graph, supports), json_path)
    if json_path != "-":
        show(net, graph, supports)


def by_rank(plugins: Registry) -> list[Method]:
    """All methods, from loose and quick to tight and slow."""
    return sorted(plugins.methods.values(), key=lambda method: (method.rank, method.name))


def support(graph: PrimalGraph, method: Method, plugins: Registry) -> Support:
    """Whether ``method`` has a rule for every operator of ``graph``, or for what the operator can be written in."""
    absent = [name for name in method.domains if name not in plugins.domains]
    if absent:
        return Support(method.name, method.doc, {}, f"no active plugin brings domain {absent[0]!r}")
    if not method.domains:
        return Support(method.name, method.doc, {})
    operators = operators_of([plugins.domains[name] for name in method.domains])
    missing: dict[str, tuple[str, ...]] = {}
    for node in unsupported(graph, operators):
        missing[node.op] = (*missing.get(node.op, ()), node.name)
    reason = ""
    if not missing:
        try:  # what operators are written in may lack a rule in turn
            legalize(graph, operators, f"method {method.name!r}")
        except UnsupportedOpError as error:
            reason = str(error)
    return Support(method.name, method.doc, missing, reason)


def layer_parameters(graph: PrimalGraph) -> list[int]:
    """Number of parameters that each node reads."""
    return [
        sum(int(np.prod(graph.constants[name].shape)) for name in dict.fromkeys(node.inputs) if name in graph.constants)
        for node in graph.nodes
    ]


def summary(net: str, graph: PrimalGraph, supports: list[Support]) -> dict[str, Any]:
    """What ``--json`` holds. Shapes are those of one sample."""
    return {
        "network": net,
        "name": graph.name,
        "input": {"shape": list(graph.input_type.shape), "dtype": str(graph.input_type.dtype)},
        "output": {"shape": list(graph.output_type.shape), "dtype": str(graph.output_type.dtype)},
        "parameters": graph.parameter_count(),
        "operators": dict(graph.operators()),
        "layers": [
            {"name": node.name, "op": node.op, "shape": list(node.type.shape), "parameters": parameters}
            for node, parameters in zip(graph.nodes, layer_parameters(graph), strict=True)
        ],
        "methods": {
            one.method: {
                "supported": one.supported,
                "missing": {op: list(names) for op, names in one.missing.items()},
                "reason": one.reason,
            }
            for one in supports
        },
    }


def show(net: str, graph: PrimalGraph, supports: list[Support]) -> None:
    """Print the summary for people."""
    from rich.table import Table

    screen = console()
    screen.print(net, style="bold", soft_wrap=True)
    operators = ", ".join(f"{count} {op}" for op, count in graph.operators().items())
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    facts.add_row("input", f"{format_shape(graph.input_type.shape)} {graph.input_type.dtype}")
    facts.add_row("output", f"{format_shape(graph.output_type.shape)} {graph.output_type.dtype}")
    facts.add_row("parameters", f"{graph.parameter_count():,}")
    facts.add_row("operators", operators or "none")
    screen.print(facts)

    layers = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    layers.add_column("layer", overflow="fold")
    layers.add_column("operator")
    layers.add_column("output")
    layers.add_column("parameters", justify="right")
    for node, parameters in zip(graph.nodes, layer_parameters(graph), strict=True):
        layers.add_row(node.name, node.op, format_shape(node.type.shape), f"{parameters:,}" if parameters else "")
    screen.print()
    screen.print(layers)

    screen.print()
    if not supports:
        known = sorted({name for (kind, _), name in KNOWN_DISTRIBUTIONS.items() if kind == "method"})
        screen.print(f"no method is installed; known to bring some: {', '.join(known)}")
    for one in supports:
        screen.print(f"{one.method}: {verdict(one)}", style="green" if one.supported else "red", soft_wrap=True)


def verdict(one: Support) -> str:
    """Whether a method supports the network, in words."""
    if one.supported:
        return f"supported ({one.doc})"
    if one.reason:
        return f"not supported: {one.reason}"
    parts = []
    for op, names in one.missing.items():
        more = f" and {len(names) - SHOWN_NODES} more" if len(names) > SHOWN_NODES else ""
        parts.append(f"{op} at {', '.join(names[:SHOWN_NODES])}{more}")
    return f"not supported, no rule for {'; '.join(parts)}"
