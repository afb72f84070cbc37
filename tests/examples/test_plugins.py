"""Every example in ``examples/plugins`` is short, is found as a plugin, and does what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import boundflow_core as bf
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder

Plug = Callable[[str], ModuleType]
LINES = 60


def mlp() -> PrimalGraph:
    rng = np.random.default_rng(0)
    g = PrimalBuilder("mlp", "x", (3,))
    hidden = g.op("relu", g.op("linear", g.input, rng.standard_normal((4, 3)), rng.standard_normal(4)))
    return g.finish(g.op("linear", hidden, rng.standard_normal((2, 4))))


REGION = bf.Box(np.array([[-1.0, 0.0, 0.5], [0.0, 0.0, 0.0]]), np.array([[1.0, 0.5, 0.5], [0.25, 1.0, 2.0]]))


def same(one: bf.Bounds, other: bf.Bounds, rtol: float = 1e-12) -> None:
    np.testing.assert_allclose(one.lower, other.lower, rtol=rtol, atol=1e-12)
    np.testing.assert_allclose(one.upper, other.upper, rtol=rtol, atol=1e-12)


def examples() -> list[Path]:
    return sorted((Path(__file__).resolve().parents[2] / "examples" / "plugins").glob("*.py"))


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < LINES


def test_a_lowering_in_numpy(plug: Plug) -> None:
    plain = bf.compile(mlp(), method="ibp", executor="reference", dtype="float64")
    expected = plain(REGION)
    assert any("interval_matmul" in reason for reason in plain.plan.lowering.fallbacks)
    plug("numpy_lowering")
    run = bf.compile(mlp(), method="ibp", executor="reference", dtype="float64")
    same(run(REGION), expected)
    assert run.plan.lowering.counts["numpy-pair"] == 2
    assert not run.plan.lowering.fallbacks
