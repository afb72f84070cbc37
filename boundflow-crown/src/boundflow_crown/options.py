"""The options of the CROWN family that are choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boundflow_core.errors import OptionError
from boundflow_core.workshop import Workshop
from boundflow_crown.relax.piecewise import SLOPES

__all__ = ["CHOICES", "check_choices", "check_rounding"]

# slope: how the lower line of an undecided relu is chosen.
# intersect: whether bounds are intersected with those of intervals.
# side: whether the output's upper bounds are walked for too, or its lower ones alone.
# linear: whether the linear functions of the input are results too, whose least and greatest values bounds are.
# forward: whether bounds inside are looked for by affine forms of the input, before rows are walked back.
# refine: which neurons get a backward pass of their own: those whose relaxation would lose something, or all.
# intermediate: whose slopes are optimised; "fixed": those of the walk from the output, bounds inside stay as they
# are; "optimized": those of the walks that bound undecided neurons inside, too.
CHOICES: Mapping[str, tuple[Any, ...]] = {
    "slope": tuple(SLOPES),
    "intersect": (True, False),
    "side": ("both", "lower"),
    "linear": (True, False),
    "forward": (True, False),
    "refine": ("unstable", "all"),
    "intermediate": ("fixed", "optimized"),
}


def check_choices(options: Mapping[str, Any]) -> None:
    """Checks those of a method's options that are choices.

    Raises:
        OptionError: a value that is none of them.
    """
    for name, values in CHOICES.items():
        if name in options and options[name] not in values:
            known = " or ".join(map(str, values)) if len(values) < 3 else f"one of {', '.join(values)}"
            raise OptionError(f"{name} must be {known}, not {options[name]!r}")


def check_rounding(workshop: Workshop) -> None:
    """Checks that nothing is asked for whose rounding errors are not analysed.

    Raises:
        OptionError: it is.
    """
    if workshop.options.get("linear") and workshop.planning is not None and workshop.planning.outward:
        raise OptionError("linear=True gives coefficients as they are rounded; it cannot be with rounding='outward'")
