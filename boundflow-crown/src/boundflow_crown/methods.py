"""The methods of the CROWN family."""

from __future__ import annotations

from collections.abc import Mapping

from boundflow_core.extension import Method
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.walk import forward_states
from boundflow_core.workshop import Recipe, Workshop
from boundflow_crown.alpha import ALPHA_OPTIONS, alpha_crown
from boundflow_crown.options import check_choices, check_rounding
from boundflow_crown.output import output_bounds
from boundflow_crown.recipe import crown
from boundflow_interval import Interval

__all__ = ["ALPHA_CROWN", "CROWN", "CROWN_IBP"]


def crown_ibp(workshop: Workshop) -> Recipe:
    """All bounds that relaxations need by intervals, then one walk back from the output."""
    check_choices(workshop.options)
    check_rounding(workshop)

    def write(b: Builder) -> Mapping[str, Value]:
        region = Interval(*workshop.region(b))
        states: dict[str, Interval] = forward_states(
            b, workshop.graph, workshop.rules["interval"], region, domain="interval"
        )
        return output_bounds(workshop, b, region, states)

    main = workshop.runner("crown-ibp", write)
    return Recipe(main, lambda inputs, progress: main(inputs, progress))


OPTIONS = {"slope": "adaptive", "intersect": True, "side": "both"}
LINEAR, REFINE, FORWARD = {"linear": False}, {"refine": "unstable"}, {"forward": False}

CROWN_IBP = Method(
    "crown-ibp",
    "one backward pass over interval bounds",
    domains=("interval", "linear"),
    recipe=crown_ibp,
    options={**OPTIONS, **LINEAR},
    rank=10,
    outward=True,
)
CROWN = Method(
    "crown",
    "backward passes for the output and for every neuron that is not decided",
    domains=("interval", "linear"),
    recipe=crown,
    options={**OPTIONS, **REFINE, **LINEAR, **FORWARD},
    rank=20,
    outward=True,
)
ALPHA_CROWN = Method(
    "alpha-crown",
    "crown with the lower slopes of undecided neurons optimised",
    domains=("interval", "linear"),
    recipe=alpha_crown,
    options={**OPTIONS, **REFINE, **ALPHA_OPTIONS},
    rank=30,
)
