"""Gradients of bounds against difference quotients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.derivative import gradient_program
from boundflow_core.ir.evaluate import evaluator
from boundflow_core.ir.program import BoundProgram

__all__ = ["Derivatives", "derivative_gap", "derivatives_of", "undefined_gradient"]

Array = NDArray[Any]
ENDS = ("lower", "upper")


Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True)
class Derivatives:
    """A program of bounds, and of the gradients of each bound by the regions' ends, seeded by ``seed``."""

    bounds: Run
    gradients: Mapping[str, Run]


def derivatives_of(program: BoundProgram) -> Derivatives:
    programs = {output: gradient_program(program, output, ENDS, seed="seed") for output in ENDS}
    return Derivatives(evaluator(program), {output: evaluator(found) for output, found in programs.items()})


def derivative_gap(of: Derivatives, lower: Array, upper: Array) -> tuple[str, float, float] | None:
    """Where the gradient of a bound differs from the difference quotient: what, gradient, quotient; None: nowhere.

    Both are taken along a random direction of the region's ends, near ``lower`` and ``upper`` [B, *input] but in
    general position. Where quotients of different steps disagree (near a kink or a jump) nothing is said.
    """
    rng = np.random.default_rng(lower.size)
    width = 0.01 * (1.0 + upper - lower)
    inputs = {
        "lower": lower + width * rng.random(lower.shape),
        "upper": upper + width * (1.5 + rng.random(upper.shape)),
    }
    values = of.bounds(inputs)
    if not all(np.isfinite(values[name]).all() for name in ENDS):
        return None
    direction = {name: rng.normal(size=inputs[name].shape) for name in ENDS}
    for output in ENDS:
        seed = rng.normal(size=values[output].shape)
        quotients = [_quotient(of.bounds, output, inputs, direction, seed, step) for step in (1e-5, 2.5e-6, 1e-6)]
        found = of.gradients[output]({**inputs, "seed": seed})
        parts = [found[f"grad:{name}"] * direction[name] for name in ENDS]
        predicted, scale = (float(sum(part.sum() for part in parts)), float(sum(np.abs(p).sum() for p in parts)))
        largest = max(float(np.abs(values[name]).max(initial=0.0)) for name in ENDS)
        noise = 1e-8 * largest * float(np.abs(seed).sum())
        allowed = 1e-4 * (min(scale, 1e6) + abs(quotients[-1])) + noise
        settled = max(quotients) - min(quotients) <= allowed
        if settled and not abs(predicted - quotients[-1]) <= 3 * allowed:
            return f"the gradient of the {output} bound is not its derivative", predicted, quotients[-1]
    return None


def undefined_gradient(of: Derivatives, lower: Array, upper: Array) -> str | None:
    """Says which bound that is finite on regions [B, *input] has a gradient that is NaN there; None: none.

    Training and searches start at points and kinks: any one-sided derivative will do, but NaN spreads to every weight.
    """
    inputs = {"lower": lower, "upper": upper}
    values = of.bounds(inputs)
    for output in ENDS:
        if np.isfinite(values[output]).all():
            found = of.gradients[output]({**inputs, "seed": np.ones(values[output].shape)})
            for name in ENDS:
                if np.isnan(found[f"grad:{name}"]).any():
                    return f"the gradient of the {output} bound by {name} is NaN, though the bound is finite"
    return None


def _quotient(
    bounds: Run,
    output: str,
    inputs: Mapping[str, Array],
    direction: Mapping[str, Array],
    seed: Array,
    step: float,
) -> float:
    ends = []
    for sign in (1.0, -1.0):
        moved = {name: array + sign * step * direction[name] for name, array in inputs.items()}
        ends.append(float((bounds(moved)[output] * seed).sum()))
    return (ends[0] - ends[1]) / (2 * step)
