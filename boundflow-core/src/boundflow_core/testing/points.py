"""Points of a region to hold bounds against: corners, random ones, and ones that a search drives against the bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.forward import forward_values
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.testing.case import OpCase

__all__ = ["balls", "magnitudes", "sample", "search", "tolerance_of"]

Array = NDArray[Any]
Bounds = tuple[Array, Array]

# Rounding that is let pass: this many units in the last place of the largest number in sight. Bounds are computed
# without directed rounding, and the networks of the kit sum fewer terms than this.
ULPS = 256


def sample(case: OpCase, count: int = 24) -> Array:
    """Points [B, K, *input] of the regions: the two extreme corners, random corners, random points and the middle."""
    rng = np.random.default_rng(case.lower.size + 1000 * len(case.lower))
    lower, upper = case.lower[:, None], case.upper[:, None]
    shape = (lower.shape[0], count, *lower.shape[2:])
    share = np.where(
        rng.random((shape[0], count, *[1] * (lower.ndim - 2))) < 0.5, rng.random(shape).round(), rng.random(shape)
    )
    share[:, 0], share[:, 1], share[:, 2] = 0.0, 1.0, 0.5
    return _clamped(lower + share * (upper - lower), lower, upper)


def balls(case: OpCase, norm: float, count: int = 16) -> tuple[dict[str, Array], Array]:
    """The ball of ``norm`` (1 or 2) inside of each box: the inputs of its program, and points of it [B, K, *input].

    Points are the middle, the tips on an axis, and random ones on its border, where linear functions are greatest.
    """
    lower, upper = case.lower.reshape(len(case.lower), -1), case.upper.reshape(len(case.lower), -1)
    center = (0.5 * (lower + upper)).astype(np.float32).astype(np.float64)
    radius = np.minimum(center - lower, upper - center).min(axis=1).clip(0.0).astype(np.float32).astype(np.float64)
    rng = np.random.default_rng(lower.size)
    toward = rng.normal(size=(len(lower), count, lower.shape[1])) * (rng.random((len(lower), count, 1)) < 0.5)
    tips = rng.integers(lower.shape[1], size=(len(lower), count))[..., None] == np.arange(lower.shape[1])
    toward = np.where(toward == 0.0, tips * rng.choice((-1.0, 1.0), size=(len(lower), count, 1)), toward)
    toward[:, 0] = 0.0
    length = np.linalg.norm(toward, ord=norm, axis=2, keepdims=True)
    points = center[:, None] + radius[:, None, None] * (1 - 1e-12) * toward / np.maximum(length, 1e-30)
    shape = case.lower.shape
    reach = radius.reshape(-1, *[1] * (len(shape) - 1))
    middle = center.reshape(shape)
    box = {"lower": middle - reach, "upper": middle + reach}
    return {**box, "center": middle, "radius": radius}, points.reshape(len(lower), count, *shape[1:])


def _clamped(points: Array, lower: Array, upper: Array) -> Array:
    return np.minimum(np.maximum(points, lower), upper)


def search(case: OpCase, points: Array, outputs: Array, bounds: Bounds, rounds: int = 3) -> Array:
    """Points that a coordinate search, started at the best of ``points``, drives against the tightest looking bounds.

    For each side the output with the least distance from the points to its bound; each round tries for every coordinate
    (at most 16) both ends of its range and two steps, and keeps the best change of each region.
    """
    rng = np.random.default_rng(points.size)
    regions = np.arange(len(points))
    lower, upper = case.lower.reshape(len(regions), -1), case.upper.reshape(len(regions), -1)
    found = []
    for sign, bound in ((1.0, bounds[1]), (-1.0, bounds[0])):
        with np.errstate(invalid="ignore"):
            gap = (sign * (bound - sign * (sign * outputs).max(axis=1))).min(axis=0)
        target = int(np.argmin(np.where(np.isnan(gap), np.inf, gap)))
        best = (sign * outputs[:, :, target]).argmax(axis=1)
        current = points[regions, best].reshape(len(regions), -1)
        for _ in range(rounds):
            coordinates = rng.permutation(current.shape[1])[:16]
            step = 0.2 * rng.random((len(regions), len(coordinates))) * (upper - lower)[:, coordinates]
            tries = np.repeat(current[:, None], 4 * len(coordinates) + 1, axis=1)
            for i, axis in enumerate(coordinates):
                here = current[:, axis]
                tries[:, 4 * i, axis], tries[:, 4 * i + 1, axis] = lower[:, axis], upper[:, axis]
                tries[:, 4 * i + 2, axis], tries[:, 4 * i + 3, axis] = here - step[:, i], here + step[:, i]
            tries = _clamped(tries, lower[:, None], upper[:, None])
            values = sign * case.outputs(tries.reshape(*tries.shape[:2], *case.lower.shape[1:]))[:, :, target]
            current = tries[regions, values.argmax(axis=1)]
        found.append(current.reshape(len(regions), 1, *case.lower.shape[1:]))
    return np.concatenate(found, axis=1)


def magnitudes(case: OpCase, points: Array) -> tuple[float, float]:
    """The largest value on the way through the network at ``points`` and the largest weight, 1 at least."""
    builder = Builder(DType.FLOAT64)
    x = builder.input("x", (SymDim.of("B"), *case.graph.input_type.shape))
    values = forward_values(builder, case.graph, x)
    seen = evaluate(builder.finish(dict(values)), {"x": points.reshape(-1, *points.shape[2:])})
    weights = [c.numpy() for c in case.graph.constants.values() if c.type.dtype.is_float]
    return max([1.0, *map(_largest, seen.values())]), max([1.0, *map(_largest, weights)])


def tolerance_of(dtype: DType, largest: tuple[float, float], *bounds: Array) -> float:
    """Rounding to let pass: ULPS times the largest value times the largest weight.

    Args:
        largest: of :func:`magnitudes`.
        bounds: values that count, too. Not where values are held against bounds: else a bound that is far off would
            make all others pass.
    """
    value, weight = largest
    return ULPS * float(np.finfo(dtype.numpy).eps) * max([value, *map(_largest, bounds)]) * weight


def _largest(array: Array) -> float:
    magnitudes = np.abs(array[np.isfinite(array)])
    return float(magnitudes.max()) if magnitudes.size else 0.0
