"""Lowering strategies that bring their code: it is used, its results are put in place, and gradients do without it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from boundflow_core.extension import Executor, LoweringStrategy
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.program import BoundProgram, Composite
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.plugins import registry
from boundflow_core.runner import Planning, ProgramRunner, RunStats

NAMES = ["reference", *(["torch"] if importlib.util.find_spec("torch") else [])]


def _parts(b: Builder, inputs: Sequence[Any], attrs: Any) -> tuple[Any, ...]:
    x, y = inputs
    return b.minimum(x, y), b.maximum(x, y) + x


PAIR = Composite("test_pair", "min(x, y) and max(x, y) + x", _parts)


def program(dtype: DType = DType.FLOAT64) -> BoundProgram:
    b = Builder(dtype)
    shape = (SymDim.of("B"), 3)
    x, y = b.input("x", shape), b.input("y", shape)
    low, high = b.emit(PAIR, b.exp(x), y)
    again, _ = b.emit(PAIR, low * 2.0, high)
    return b.finish({"low": low, "again": again, "permuted": b.permute(high, (1, 0))})


def arrays(count: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((count, 3)), "y": rng.standard_normal((count, 3))}


def plain(x: Any, y: Any) -> tuple[Any, Any]:
    low = np.minimum(np.asarray(x), np.asarray(y))
    return low, np.maximum(np.asarray(x), np.asarray(y)) + np.asarray(x)


def strategy(
    executor: str, run: Callable[..., Any] = plain, takes: str = "test_pair", seconds: float = 1e-6
) -> LoweringStrategy:
    return LoweringStrategy(
        "mine",
        "",
        executor,
        lambda: None,
        lambda op, known: None if op.name == takes else "not this",
        lambda op, known: seconds,
        lambda op: run,
    )


def with_strategy(name: str, *more: LoweringStrategy) -> Executor:
    executor = registry().executor(name)
    return replace(executor, strategies=(*executor.strategies, *more))


def runs(executor: Executor, of: BoundProgram, inputs: dict[str, Any]) -> tuple[dict[str, Any], RunStats]:
    stats = RunStats()
    found = ProgramRunner(lambda: of, Planning(executor), stats)(inputs)
    return {name: np.asarray(array) for name, array in found.items()}, stats


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [DType.FLOAT64, DType.FLOAT32])
def test_it_runs_instead_of_the_decomposition(name: str, dtype: DType) -> None:
    calls: list[int] = []

    def counted(x: Any, y: Any) -> Any:
        calls.append(len(x))
        return plain(x, y)

    inputs = {key: array.astype(dtype.numpy) for key, array in arrays().items()}
    found, stats = runs(with_strategy(name, strategy(name, counted)), program(dtype), inputs)
    assert calls == [4, 4]
    assert stats.lowering["mine"] == 2
    assert not stats.fallbacks
    for key, expected in evaluate(program(dtype), inputs).items():
        assert found[key].dtype == expected.dtype
        np.testing.assert_allclose(found[key], expected, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_returns_may_be_what_it_was_handed(name: str) -> None:
    """Memory of operands is used again; a result that lies in it must have been copied by then."""

    def aliasing(x: Any, y: Any) -> Any:
        low, high = plain(x, y)
        target = np.asarray(x)
        high = np.array(high)
        target[...] = low  # nobody else reads exp(x) and low * 2
        return x, high

    found, _ = runs(with_strategy(name, strategy(name, aliasing)), program(), arrays())
    for key, expected in evaluate(program(), arrays()).items():
        np.testing.assert_allclose(found[key], expected, rtol=1e-12)


def test_another_element_type_is_converted() -> None:
    inputs = {key: array.astype(np.float32) for key, array in arrays().items()}

    def wide(x: Any, y: Any) -> Any:
        return plain(np.asarray(x, np.float64), np.asarray(y, np.float64))

    found, _ = runs(with_strategy("reference", strategy("reference", wide)), program(DType.FLOAT32), inputs)
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", NAMES)
def test_a_primitive_can_be_claimed_too(name: str) -> None:
    calls: list[int] = []

    def exp(x: Any) -> Any:
        calls.append(1)
        return np.exp(np.asarray(x))

    found, stats = runs(with_strategy(name, strategy(name, exp, takes="exp")), program(), arrays())
    assert calls
    assert stats.lowering["mine"] == 1
    for key, expected in evaluate(program(), arrays()).items():
        np.testing.assert_allclose(found[key], expected, rtol=1e-12)


def test_its_results_lie_twice_for_a_moment_which_the_plan_counts() -> None:
    executor = with_strategy("reference", strategy("reference"))
    claimed = bind_plan(make_plan(program(), executor), {"B": 100}).storage
    two_results = 2 * 100 * 3 * 8
    assert claimed.peak_bytes >= claimed.arena_bytes + two_results


def test_gradients_go_through_the_decomposition() -> None:
    executor = with_strategy("reference", strategy("reference"))
    plan = make_plan(program(), executor, differentiable=True)
    assert "mine" not in plan.lowering.counts
    assert any("test_pair" in reason for reason in plan.lowering.fallbacks)


def test_the_quicker_of_two_is_taken() -> None:
    slow = replace(strategy("reference", seconds=1.0), name="slow")
    plan = make_plan(program(), with_strategy("reference", slow, strategy("reference", seconds=0.5)))
    assert plan.lowering.counts["mine"] == 2
    assert "slow" not in plan.lowering.counts
    (entry,) = {e.lowering.reason for entries in plan.lowering.entries.values() for e in entries if e.lowering.kernel}
    assert "slow 1e+06 us" in entry


def test_it_is_not_asked_for_what_is_known_beforehand() -> None:
    b = Builder()
    weights = b.constant(np.arange(3.0))
    low, _ = b.emit(PAIR, weights, weights * 2.0)
    of = b.finish({"out": low + b.input("x", (3,))})

    def never(x: Any, y: Any) -> Any:
        raise AssertionError("called")

    found, _ = runs(with_strategy("reference", strategy("reference", never)), of, {"x": np.zeros(3)})
    np.testing.assert_array_equal(found["out"], np.arange(3.0))
