"""The hooks of the cache, and passes that plugins bring, on fabricated plugins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from boundflow_core.cache import BoundCache, CacheKey
from boundflow_core.errors import PluginError
from boundflow_core.extension import Pass
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.planner.pipeline import run_passes
from boundflow_core.planner.rewrite import rewrite
from boundflow_core.plugins import BOUNDFLOW_API, Registry, hookimpl
from boundflow_core.plugins.contributions import brought, claims, collect
from boundflow_core.plugins.manager import Candidate, Settings, assemble
from boundflow_core.plugins.tables import build
from boundflow_core.regions import LpBall

from .running import run_once
from .toy import DOMAIN, EXECUTORS, METHOD, SHAPE, compiled

REGION, OTHER = LpBall(np.zeros(SHAPE), 0.1), LpBall(np.ones(SHAPE), 0.1)


def made(*hooks: Callable[..., Any]) -> ModuleType:
    """A plugin with these hooks."""
    module = ModuleType("made")
    module.BOUNDFLOW_API = BOUNDFLOW_API  # type: ignore[attr-defined]
    for hook in hooks:
        setattr(module, hook.__name__, hookimpl(hook))
    return module


def registry_of(*hooks: Callable[..., Any]) -> Registry:
    def boundflow_register_domains() -> Any:
        return [DOMAIN]

    def boundflow_register_methods() -> Any:
        return [METHOD]

    def boundflow_register_executors() -> Any:
        return EXECUTORS.values()

    rest = (boundflow_register_domains, boundflow_register_methods, boundflow_register_executors)
    return build([collect(made(*hooks, *rest))], [])


def test_nothing_is_called_where_nobody_implements_a_hook() -> None:
    registry = registry_of()
    assert (registry.cache_factories, registry.cache_key_parts, registry.cache_observers) == ((), (), ())
    assert registry.new_cache().observers == ()


def test_a_plugin_supplies_the_store() -> None:
    class Store(BoundCache):
        pass

    def boundflow_bound_cache() -> BoundCache:
        return Store(capacity=123)

    registry = registry_of(boundflow_bound_cache)
    store = registry.new_cache()
    assert isinstance(store, Store)
    assert store.capacity == 123
    contribution = collect(made(boundflow_bound_cache))
    assert brought(contribution) == {"cache_hooks": ("boundflow_bound_cache",)}
    assert claims(contribution) == (("store of bounds", "boundflow_bound_cache"),)  # so only one plugin can


@pytest.mark.parametrize(("result", "words"), [(ValueError("full"), "raised ValueError: full"), ({}, "returned dict")])
def test_a_store_that_cannot_be_made_says_whose_it_is(result: Any, words: str) -> None:
    def boundflow_bound_cache() -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    with pytest.raises(PluginError, match=f"boundflow_bound_cache of .*{words}"):
        registry_of(boundflow_bound_cache).new_cache()


def test_a_plugin_adds_to_the_key() -> None:
    mood = ["calm"]
    asked: list[CacheKey] = []

    def boundflow_cache_key(key: CacheKey) -> Iterator[str]:
        asked.append(key)
        yield mood[0]

    registry = registry_of(boundflow_cache_key)
    bounds = compiled(registry=registry, cache=registry.new_cache())
    for _ in range(2):
        bounds(REGION)
    hits = bounds.stats.cache_hits
    assert hits > 0
    assert asked and asked[0].region
    mood[0] = "wild"
    bounds(REGION)
    assert bounds.stats.cache_hits == hits
    mood[0] = "calm"
    bounds(REGION)
    assert bounds.stats.cache_hits == hits + 1


def test_a_part_of_a_key_that_raises_costs_the_cache_but_not_the_bound(caplog: pytest.LogCaptureFixture) -> None:
    def boundflow_cache_key(key: CacheKey) -> Any:
        raise RuntimeError("no idea")

    registry = registry_of(boundflow_cache_key)
    cache = registry.new_cache()
    bounds, plain = compiled(registry=registry, cache=cache), compiled()
    for region in (REGION, REGION, OTHER):
        np.testing.assert_array_equal(bounds(region).lower, plain(region).lower)
    assert len(cache) == 0
    assert "computed without the cache" in caplog.text


def test_observers_see_what_happens() -> None:
    events: list[tuple[str, str, int]] = []

    def boundflow_cache_event(event: str, key: CacheKey, nbytes: int) -> None:
        events.append((event, key.stage, nbytes))

    registry = registry_of(boundflow_cache_event)
    cache = registry.new_cache()
    bounds = compiled(registry=registry, cache=cache)
    bounds(REGION)
    bounds(REGION)
    size = cache.stats.bytes
    assert events == [("miss", "region", 0), ("store", "region", size), ("hit", "region", size)]
    cache.capacity = size
    bounds(OTHER)
    assert [event for event, _, _ in events[3:]] == ["miss", "evict", "store"]


def test_an_observer_that_raises_breaks_no_bound(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []

    def boundflow_cache_event(event: str, key: CacheKey, nbytes: int) -> None:
        calls.append(event)
        raise RuntimeError("cannot look")

    registry = registry_of(boundflow_cache_event)
    bounds = compiled(registry=registry, cache=registry.new_cache())
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            np.testing.assert_array_equal(bounds(REGION).lower, compiled()(REGION).lower)
    assert calls == ["miss"]
    assert "cannot look" in caplog.text


def test_a_hook_with_other_arguments_is_refused() -> None:
    def boundflow_cache_event(event: str) -> None: ...

    with pytest.raises(PluginError, match="takes \\(event\\) instead of \\(event, key, nbytes\\)"):
        collect(made(boundflow_cache_event))


def test_passes_of_plugins_run_in_their_place() -> None:
    """By stage, then by rank, whoever brings them; each sees what the one before has written."""
    seen: list[tuple[str, tuple[str, ...]]] = []

    def one(name: str, rank: int, stage: str, new: str) -> Pass:
        def run(program: BoundProgram) -> BoundProgram:
            seen.append((name, tuple(op.name for op in program.ops)))

            def rule(b: Builder, op: Op, inputs: Any) -> tuple[Value, ...]:
                return b.emit(op.spec, b.abs(b.neg(inputs[0])) if new == "abs" else b.tanh(inputs[0]), **op.attrs)

            return rewrite(program, lambda b, op, inputs: rule(b, op, inputs) if op.name == "exp" else None)

        return Pass(name, "", rank, run, stage)

    def boundflow_register_passes() -> list[Pass]:
        return [one("late", 90, "primitives", "abs"), one("whole", 99, "program", "abs")]

    def other_passes() -> list[Pass]:
        return [one("early", -5, "primitives", "tanh")]

    other_passes.__name__ = "boundflow_register_passes"
    modules = {"a": made(boundflow_register_passes), "b": made(other_passes)}
    candidates = {name: Candidate(name, name, "1.0", name, lambda m=module: m) for name, module in modules.items()}
    registry = build([collect(one.load()) for one in candidates.values()], [])
    assert set(registry.passes) == {"late", "whole", "early"}
    b = Builder()
    program = b.finish({"out": b.exp(b.input("x", (2,)))})
    x = np.array([0.5, -2.0])
    got = run_once(program, {"x": x}, "reference", passes=list(registry.passes.values()))
    assert seen == [
        ("whole", ("exp",)),
        ("early", ("neg", "abs", "exp")),
        ("late", ("neg", "abs", "tanh", "exp")),
    ]
    np.testing.assert_allclose(got["out"], np.exp(np.tanh(np.abs(x))))


def test_a_pass_of_an_unknown_stage_is_refused() -> None:
    def boundflow_register_passes() -> list[Pass]:
        return [Pass("odd", "", 0, lambda program: program, "later")]

    with pytest.raises(PluginError, match="stage"):
        collect(made(boundflow_register_passes))


def test_what_a_pass_gives_is_checked() -> None:
    b = Builder()
    program = b.finish({"out": b.exp(b.input("x", (2,)))})
    nothing = Pass("nothing", "", 0, lambda program: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(PluginError, match="pass 'nothing' must give a BoundProgram, not NoneType"):
        run_passes(program, [nothing], "primitives")


def test_core_assembles_without_hooks() -> None:
    assert assemble((), Settings()).cache_observers == ()
