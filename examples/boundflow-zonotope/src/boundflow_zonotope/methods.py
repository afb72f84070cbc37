"""The methods: zonotopes from input to output, and zonotopes inside with a backward pass from the output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from boundflow_core.errors import OptionError
from boundflow_core.extension import Method, MethodContext
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import size
from boundflow_core.plugins import registry
from boundflow_core.walk import forward_states
from boundflow_core.workshop import Progress, Recipe, Workshop, check_options, no_nan, recipe_of
from boundflow_zonotope.domain import Zonotope, form, named

__all__ = ["ZONOTOPE", "ZONOTOPE_CROWN"]

OPTIONS = {"order": 4096}


def states_of(ctx: MethodContext) -> dict[str, Zonotope]:
    """The zonotope of every value."""
    b, order = ctx.b, ctx.options["order"]
    if isinstance(order, bool) or not isinstance(order, int) or order < 0:
        raise OptionError(f"order must be an integer that is not negative, not {order!r}")
    half_lower, half_upper = ctx.lower * 0.5, ctx.upper * 0.5
    region = Zonotope(half_lower + half_upper, {}, half_upper - half_lower, ctx.lower, ctx.upper, order)
    uses = sum(node.inputs.count(ctx.graph.input) for node in ctx.graph.nodes)
    state = named(b, region, ctx.graph.input) if uses > 1 else region
    found: dict[str, Zonotope] = forward_states(b, ctx.graph, ctx.rules["zonotope"], state, domain="zonotope")
    return found


def zonotope(ctx: MethodContext) -> tuple[Value, Value]:
    """Bounds of the output, or of specification rows on it, which act on center and errors alike."""
    b, output = ctx.b, states_of(ctx)[ctx.graph.output]
    if ctx.spec is None:
        return output.lower, output.upper
    x, rows = named(b, output, ctx.graph.output), ctx.spec.C
    batch, *sample = x.center.shape

    def on_rows(value: Value, by: Value) -> Value:
        flat = b.reshape(value, (batch, value.shape[1] if value.rank == len(sample) + 2 else 1, size(sample)))
        return b.matmul(flat, by, transpose_b=True)

    center = b.reshape(on_rows(x.center, rows), (batch, rows.shape[1])) + ctx.spec.offset
    generators = {name: on_rows(terms, rows) for name, terms in x.generators.items()}
    error = None if x.error is None else b.reshape(on_rows(x.error, b.abs(rows)), (batch, rows.shape[1]))
    middle, spread = x.lower * 0.5 + x.upper * 0.5, x.upper * 0.5 - x.lower * 0.5
    middle = b.reshape(on_rows(middle, rows), (batch, rows.shape[1])) + ctx.spec.offset
    spread = b.reshape(on_rows(spread, b.abs(rows)), (batch, rows.shape[1]))
    found = form(b, center, generators, error, x.order, (middle - spread, middle + spread))
    return found.lower, found.upper


def zonotope_crown(workshop: Workshop) -> Recipe:
    """The method ``crown``, handed the bounds by zonotopes of every value that its relaxations need bounds of."""
    crown = registry().method("crown")
    given = {name: value for name, value in workshop.options.items() if name in crown.options}
    backward = recipe_of(crown, replace(workshop, options=check_options(crown, given)))

    def write(b: Builder) -> Mapping[str, Value]:
        context = replace(workshop, spec=None).context(b)
        states = states_of(context)
        found = {}
        for name in backward.takes:
            lower, upper = states[name].lower, states[name].upper
            found[f"lower:{name}"], found[f"upper:{name}"] = (
                no_nan(b, lower, -float("inf")),
                no_nan(b, upper, float("inf")),
            )
        return found

    inside = workshop.runner("zonotope", write)

    def run(inputs: Mapping[str, Any], progress: Progress | None) -> Mapping[str, Any]:
        regions = {name: array for name, array in inputs.items() if name not in ("C", "offset")}
        return backward.run({**inputs, **inside(regions)} if backward.takes else inputs, progress)

    return replace(backward, run=run, takes=(), others=(*backward.others, inside))


ZONOTOPE = Method(
    "zonotope", "zonotopes propagated forward", domains=("zonotope",), emit=zonotope, options=OPTIONS, rank=5
)
ZONOTOPE_CROWN = Method(
    "zonotope-crown",
    "one backward pass over bounds by zonotopes",
    domains=("zonotope", "interval", "linear"),
    recipe=zonotope_crown,
    options={**OPTIONS, "slope": "adaptive", "intersect": True},
    rank=15,
)
