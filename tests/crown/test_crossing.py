"""Bounds that cross: in order where rounding did it, unknown where it did not."""

from __future__ import annotations

import importlib.util
from typing import Any
from unittest import mock

import numpy as np
import pytest
from crown_networks import small_mlp

import boundflow_core as bf
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.types import DType
from boundflow_crown import layers, one_run, output
from boundflow_crown.bounds import bound_rows
from boundflow_crown.crossing import CROSSING, settled

# Without torch these tests run on the other executor; with it, in the environment `all`, on both.
EXECUTORS = ["reference", *(["torch"] if importlib.util.find_spec("torch") else [])]

INF, NAN = np.inf, np.nan


def _settled(dtype: DType, lower: list[float], upper: list[float]) -> tuple[list[float], list[float]]:
    b = Builder(dtype)
    found = settled(b, b.input("lower", (len(lower),)), b.input("upper", (len(lower),)))
    program = b.finish(dict(zip(("lower", "upper"), found, strict=True)))
    given = {"lower": np.array(lower, dtype.numpy), "upper": np.array(upper, dtype.numpy)}
    with np.errstate(all="ignore"):
        result = evaluate(program, given)
    return result["lower"].tolist(), result["upper"].tolist()


@pytest.mark.parametrize("dtype", CROSSING)
@pytest.mark.parametrize("size", [0.0, 1.0, 1000.0, -1000.0])
def test_rounding_is_absorbed_and_nothing_else(dtype: DType, size: float) -> None:
    step = CROSSING[dtype] * max(abs(size), 1)
    near, far = size + step / 2, size + step * 2
    assert _settled(dtype, [size, near, far], [near, size, size]) == ([size, size, -INF], [near, near, INF])


@pytest.mark.parametrize(
    "lower, upper", [(NAN, 1.0), (1.0, NAN), (INF, 1.0), (1.0, -INF), (INF, -INF), (INF, INF), (-INF, -INF)]
)
@pytest.mark.parametrize("dtype", CROSSING)
def test_what_is_undefined_is_unknown(dtype: DType, lower: float, upper: float) -> None:
    assert _settled(dtype, [lower], [upper]) == ([-INF], [INF])


@pytest.mark.parametrize("bounds", [(-INF, 1.0), (1.0, INF), (-INF, INF), (2.0, 2.0)])
def test_half_known_bounds_stay(bounds: tuple[float, float]) -> None:
    assert _settled(DType.FLOAT64, [bounds[0]], [bounds[1]]) == ([bounds[0]], [bounds[1]])


def _shifted(by: float) -> Any:
    """Backward bounds that are wrong: too high by ``by``."""

    def wrong(*args: Any, **more: Any) -> Any:
        lower, upper = bound_rows(*args, **more)
        return lower + by, upper if upper is None else upper + by

    return wrong


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("module", [layers, one_run], ids=["in stages", "in one program"])
def test_a_planted_crossing_inside_is_shown(module: Any, executor: str) -> None:
    """Too high by far, the new lower bounds lie above the old upper ones; swapped, they would look like bounds."""
    graph, center = small_mlp(0), np.full((1, 5), 0.25)
    region = bf.Box(center - 0.5, center + 0.5)
    run = bf.compile(graph, method="crown", executor=executor, dtype="float64", cache=False)
    with mock.patch.object(module, "bound_rows", _shifted(100.0)):
        found = [run(region) for _ in range(2)][module is one_run]
    loose = 0
    right = bf.bound(graph, region, method="crown", executor=executor, dtype="float64").intermediate
    for name, (low, high) in right.items():
        lower, upper = found.intermediate[name]
        assert ((lower <= low + 1e-9) & (upper >= high - 1e-9)).all()
        loose += int((np.isneginf(lower) & np.isposinf(upper)).sum())
    assert loose > 0


@pytest.mark.parametrize("method", ["crown-ibp", "crown"])
def test_a_planted_crossing_at_the_output_is_shown(method: str) -> None:
    graph, center = small_mlp(0), np.full((1, 5), 0.25)
    with mock.patch.object(output, "bound_rows", _shifted(100.0)):
        run = bf.compile(graph, method=method, executor="reference", dtype="float64", cache=False)
        for _ in range(2):
            found = run(bf.Box(center - 0.01, center + 0.01))
            assert np.isneginf(found.lower).all() and np.isposinf(found.upper).all()
