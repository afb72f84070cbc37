"""Writes the program of a method over a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from boundflow_core.errors import OptionError
from boundflow_core.extension import Domain, Method, MethodContext, SpecRows, operators_of
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.ir.types import DType, SymDim, size
from boundflow_core.normalize import legalize

__all__ = ["REGIONS", "ROWS", "check_options", "write_program"]

REGIONS = SymDim.of("B")
ROWS = SymDim.of("S")


def check_options(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    """The method's options with defaults filled in.

    Raises:
        OptionError: the method has no option of that name.
    """
    for name in options:
        if name not in method.options:
            known = ", ".join(method.options) or "none"
            raise OptionError(f"method {method.name!r} has no option {name!r}; its options: {known}")
    return {**method.options, **options}


def write_program(
    graph: PrimalGraph,
    method: Method,
    domains: Mapping[str, Domain],
    *,
    dtype: DType,
    spec: str | None,
    options: Mapping[str, Any],
) -> BoundProgram:
    """The program with inputs ``lower``, ``upper`` [B, *input] and outputs ``lower``, ``upper``.

    Args:
        domains: the domains that ``method`` names, by name.
        spec: None for bounds on the outputs [B, *output]; "shared" or "per region" for bounds [B, S] on specification
            rows, further inputs ``C`` [1 or B, S, n] and ``offset`` [1 or B, S].

    Raises:
        UnsupportedOpError: an operator of the network has no rule in one of the domains.
    """
    used = [domains[name] for name in method.domains]
    names = " and ".join(repr(domain.name) for domain in used)
    legal = legalize(graph, operators_of(used), f"domain {names}")
    b = Builder(dtype, f"{method.name}({graph.name})")
    context = MethodContext(
        b=b,
        graph=legal,
        rules={domain.name: domain.rules for domain in used},
        lower=b.input("lower", (REGIONS, *graph.input_type.shape), group="region"),
        upper=b.input("upper", (REGIONS, *graph.input_type.shape), group="region"),
        spec=_spec_rows(b, graph, spec),
        options=options,
    )
    lower, upper = method.emit(context)
    return b.finish({"lower": _no_nan(b, lower, -np.inf), "upper": _no_nan(b, upper, np.inf)})


def _spec_rows(b: Builder, graph: PrimalGraph, spec: str | None) -> SpecRows | None:
    if spec is None:
        return None
    lead = 1 if spec == "shared" else REGIONS
    return SpecRows(
        b.input("C", (lead, ROWS, size(graph.output_type.shape)), group="spec"),
        b.input("offset", (lead, ROWS), group="spec"),
    )


def _no_nan(b: Builder, bound: Value, instead: float) -> Value:
    """``bound`` with what is undefined (inf - inf) replaced by the bound that is always true."""
    return b.where(b.compare(bound, bound, "eq"), bound, instead)
