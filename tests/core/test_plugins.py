"""The plugin manager, on fabricated entry points: every status, every conflict, and what look-ups say."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from importlib_metadata import EntryPoint

import boundflow_core as bf
from boundflow_core.errors import BoundFlowError, PluginError, UnknownNameError
from boundflow_core.extension import (
    Branching,
    Command,
    Domain,
    Executor,
    Frontend,
    LoweringStrategy,
    Method,
    OpRule,
    Pass,
    PropertyReader,
)
from boundflow_core.ir.program import Composite
from boundflow_core.plugins import BOUNDFLOW_API, PluginRecord, Registry, hookimpl, hookspecs, manager
from boundflow_core.plugins.catalogue import KNOWN_DISTRIBUTIONS
from boundflow_core.plugins.contributions import TYPES
from boundflow_core.plugins.manager import Settings, assemble, check_api, discover


class Made:
    """A distribution as an entry point knows it."""

    def __init__(self, name: str, version: str = "1.0") -> None:
        self.name, self.version = name, version


def nothing(*_: Any, **__: Any) -> Any:
    return None


def domain(name: str, *ops: str) -> Domain:
    return Domain(name, "", dict.fromkeys(ops, nothing))


def method(name: str, *domains: str) -> Method:
    return Method(name, "", domains, emit=nothing)


def hook(kind: str, result: Any) -> Callable[[], Any]:
    """An implementation of a hook that returns ``result``, or raises it."""

    def implementation() -> Any:
        if isinstance(result, BaseException):
            raise result
        return result

    implementation.__name__ = f"boundflow_register_{kind}"
    return hookimpl(implementation)


made_modules: list[str] = []


@pytest.fixture(autouse=True)
def forget_modules() -> Iterator[None]:
    yield
    while made_modules:
        sys.modules.pop(made_modules.pop(), None)


def plugin(
    name: str,
    distribution: str | None = None,
    api: Any = BOUNDFLOW_API,
    more: Mapping[str, Any] | None = None,
    **hooks: Any,
) -> EntryPoint:
    """An entry point of a module that brings ``hooks``: lists (or errors to raise) by kind."""
    module = ModuleType(f"made_{len(made_modules)}_{name}")
    if api is not None:
        module.BOUNDFLOW_API = api  # type: ignore[attr-defined]
    for kind, result in hooks.items():
        setattr(module, f"boundflow_register_{kind}", hook(kind, result))
    for key, value in (more or {}).items():
        setattr(module, key, value)
    sys.modules[module.__name__] = module
    made_modules.append(module.__name__)
    return entry(name, module.__name__, distribution or f"dist-{name}")


def entry(name: str, value: str, distribution: str) -> EntryPoint:
    point = EntryPoint(name, value, manager.GROUP)
    vars(point).update(dist=Made(distribution))
    return point


def made(*points: EntryPoint, **environ: str) -> Registry:
    return assemble(points, Settings.of(environ))


def record(registry: Registry, name: str) -> PluginRecord:
    (found,) = [one for one in registry.records if one.name == name]
    return found


# -- what works -------------------------------------------------------------------------------------------------------


def test_core_registers_like_a_plugin_and_first() -> None:
    registry = made(plugin("a"))
    assert [one.name for one in registry.records] == ["core", "a"]
    core = registry.records[0]
    assert (core.distribution, core.status, core.module) == ("boundflow-core", "active", "boundflow_core.builtin")
    assert core.brings["executors"] == ("reference", "torch")
    assert list(registry.commands) == ["plugins", "inspect", "bound", "plan", "new-plugin", "demo"]


def test_everything_that_a_plugin_brings_is_registered() -> None:
    things = {
        "domains": Domain("d", "", {}),
        "op_rules": OpRule("d", "relu", nothing),
        "methods": method("m", "d"),
        "frontends": Frontend("f", "", nothing, nothing, (".f",)),
        "property_readers": PropertyReader("p", "", (".p",), nothing),
        "executors": Executor("e", "", 0, nothing, nothing, nothing),
        "lowerings": LoweringStrategy("l", "", "of-nobody", nothing, nothing, nothing),
        "passes": Pass("s", "", 0, nothing),
        "primitives": Composite("c", "", nothing),
        "commands": Command("x", "", nothing),
        "branching": Branching("h", "", nothing),
    }
    assert things.keys() == TYPES.keys()
    registry = made(plugin("a", **{kind: [thing] for kind, thing in things.items()}))
    assert record(registry, "a").status == "active", record(registry, "a").reason
    for kind, thing in things.items():
        table = {"primitives": "composites"}.get(kind, kind)
        if kind not in ("op_rules", "domains"):
            assert getattr(registry, table)[thing.name] is thing  # type: ignore[attr-defined]
    assert dict(registry.domain("d").rules) == {"relu": nothing}
    assert record(registry, "a").brings["op_rules"] == ("d.relu",)


def test_strategies_come_to_the_executor_that_they_are_for() -> None:
    own = LoweringStrategy("own", "", "e", nothing, nothing, nothing)
    other = LoweringStrategy("other", "", "e", nothing, nothing, nothing)
    executor = Executor("e", "", 0, nothing, nothing, nothing, strategies=(own,))
    registry = made(plugin("a", executors=[executor]), plugin("b", lowerings=[other]))
    assert registry.executor("e").strategies == (own, other)
    assert list(registry.lowerings) == ["other"]


def test_every_type_has_a_documented_hook() -> None:
    specs = {name for name in vars(hookspecs) if name.startswith("boundflow_register_")}
    assert specs == {f"boundflow_register_{kind}" for kind in TYPES}
    assert all("@hookimpl" in (getattr(hookspecs, name).__doc__ or "") for name in specs)


def test_the_tutorial_states_the_version_that_the_host_has() -> None:
    assert f"BOUNDFLOW_API = {BOUNDFLOW_API}" in (hookspecs.__doc__ or "")


def test_tables_are_read_only() -> None:
    registry = made(plugin("a", methods=[method("m")], domains=[domain("d", "relu")]))
    with pytest.raises(TypeError):
        registry.methods["other"] = method("other")  # type: ignore[index]
    with pytest.raises(TypeError):
        registry.domain("d").rules["add"] = nothing  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        registry.methods = {}  # type: ignore[misc]


@pytest.mark.parametrize("order", [("a", "z"), ("z", "a")])
def test_rules_for_anothers_domain_are_merged_in_any_order(order: tuple[str, str]) -> None:
    ruler, home = order
    registry = made(
        plugin(home, domains=[domain("d", "relu")]), plugin(ruler, op_rules=[OpRule("d", "swish", nothing)])
    )
    assert set(registry.domain("d").rules) == {"relu", "swish"}


def test_generators_and_objects_are_plugins_as_well() -> None:
    point = plugin("a", methods=(method(name) for name in "mn"))
    assert set(made(point).methods) == {"m", "n"}

    class Object:
        BOUNDFLOW_API = (1, 0)

        @hookimpl
        def boundflow_register_methods(self) -> list[Method]:
            return [method("o")]

    holder = plugin("b", more={"it": Object()})
    assert set(made(entry("b", f"{holder.value}:it", "x")).methods) == {"o"}


def test_a_rule_or_method_without_its_domain_is_active_and_noted() -> None:
    registry = made(plugin("a", op_rules=[OpRule("d", "relu", nothing)], methods=[method("m", "d", "core-less")]))
    one = record(registry, "a")
    assert one.status == "active"
    assert [note.split(":")[0] for note in one.notes] == ["unused", "unusable", "unusable"]
    assert "d.relu" in one.notes[0] and "'core-less'" in one.notes[2]
    assert list(registry.domains) == []


def test_discovery_sorts_and_drops_what_is_listed_twice() -> None:
    points = [entry("b", "x", "two"), entry("a", "y", "one"), entry("b", "x", "two"), EntryPoint("c", "z", "g")]
    found = discover(points)
    assert [(one.name, one.distribution, one.version) for one in found] == [
        ("a", "one", "1.0"),
        ("b", "two", "1.0"),
        ("c", "unknown", "unknown"),
    ]


# -- what does not ----------------------------------------------------------------------------------------------------


def only_broken(point: EntryPoint, **environ: str) -> PluginRecord:
    """The record of one plugin beside a good one, which must not suffer."""
    registry = made(point, plugin("good", methods=[method("good")]), **environ)
    assert list(registry.methods) == ["good"]
    assert record(registry, "good").active
    return record(registry, point.name)


def test_a_plugin_that_does_not_import_is_broken() -> None:
    one = only_broken(entry("bad", "no_such_module_at_all", "dist-bad"))
    assert one.status == "broken" and "no_such_module_at_all" in one.reason
    assert (one.distribution, one.version, one.api) == ("dist-bad", "1.0", None)


def test_a_malformed_entry_point_is_broken() -> None:
    assert only_broken(entry("bad", "not a module !", "d")).status == "broken"
    assert only_broken(entry("bad", "sys:no_such_attribute", "d")).status == "broken"


@pytest.mark.parametrize("error", [ValueError("two\nlines"), SystemExit(3)])
def test_a_hook_that_raises_breaks_the_whole_plugin(error: BaseException) -> None:
    one = only_broken(plugin("bad", methods=[method("m")], executors=error))
    assert one.status == "broken" and type(error).__name__ in one.reason and "\n" not in one.reason
    assert one.api == BOUNDFLOW_API
    assert "test_plugins.py:" in one.reason


def failing() -> Iterator[Method]:
    yield method("m")
    raise RuntimeError("half way")


@pytest.mark.parametrize(
    ("kind", "result", "words"),
    [
        ("methods", None, "returned None"),
        ("methods", method("m"), "returned Method"),
        ("methods", "ibp", "'i'"),
        ("methods", {"ibp": method("ibp")}, "'ibp'"),
        ("methods", [domain("d")], "Domain"),
        ("methods", failing(), "half way"),
        ("methods", [Method("", "", (), nothing)], "name"),
        ("methods", [Method("a b", "", (), nothing)], "name"),
        ("methods", [Method("m", "", "interval", nothing)], "tuple"),  # type: ignore[arg-type]
        ("methods", [Method("m", "", (), 5)], "emit"),  # type: ignore[arg-type]
        ("methods", [Method("m", "", (), nothing, {}, "1")], "rank"),  # type: ignore[arg-type]
        ("methods", [Method("m", "", (), nothing, 3)], "options"),  # type: ignore[arg-type]
        ("methods", [method("m"), method("m")], "twice"),
        ("domains", [Domain("d", "", {"relu": 1})], "rules"),  # type: ignore[dict-item]
        ("domains", [Domain("d", "", {}, "sideways")], "direction"),
        ("frontends", [Frontend("f", "", nothing, nothing, ".f")], "suffixes"),  # type: ignore[arg-type]
        ("frontends", [Frontend("f", "", nothing, nothing, ("onnx",))], "suffixes"),
        ("primitives", [Composite("matmul", "", nothing)], "primitive"),
    ],
)
def test_a_hook_that_returns_something_else_is_broken(kind: str, result: Any, words: str) -> None:
    one = only_broken(plugin("bad", **{kind: result}))
    assert one.status == "broken" and words in one.reason
    assert f"boundflow_register_{kind}" in one.reason or words in ("twice", "half way")


def test_a_rule_within_and_beside_its_domain_is_broken() -> None:
    one = only_broken(plugin("bad", domains=[domain("d", "relu")], op_rules=[OpRule("d", "relu", nothing)]))
    assert one.status == "broken" and "rule 'd.relu' twice" in one.reason


def unmarked() -> list[Method]:
    return [method("m")]


@hookimpl
def boundflow_register_wings() -> list[Method]:
    return []


@hookimpl
def boundflow_register_methods(graph: Any) -> list[Method]:
    return []


@hookimpl(wrapper=True)
def wrapper() -> Iterator[Any]:
    return (yield)


@pytest.mark.parametrize(
    ("name", "function", "words"),
    [
        ("boundflow_register_methods", unmarked, "not marked with @hookimpl"),
        ("boundflow_register_wings", boundflow_register_wings, "there is no hook boundflow_register_wings"),
        ("boundflow_register_methods", boundflow_register_methods, "graph"),
        ("boundflow_register_methods", wrapper, "wrapper"),
    ],
)
def test_implementations_are_validated_against_the_specifications(name: str, function: Any, words: str) -> None:
    one = only_broken(plugin("bad", more={name: function}))
    assert one.status == "broken" and words in one.reason


@pytest.mark.parametrize(
    ("api", "status", "words"),
    [
        ((1, 0), "active", ""),
        (None, "incompatible", "states no BOUNDFLOW_API"),
        ((0, 9), "incompatible", "upgrade the plugin"),
        ((2, 0), "incompatible", "upgrade boundflow-core"),
        ((BOUNDFLOW_API[0], BOUNDFLOW_API[1] + 1), "incompatible", "upgrade boundflow-core"),
        ("1.0", "incompatible", "pair"),
        ((1, 0, 0), "incompatible", "pair"),
        ((True, 0), "incompatible", "pair"),
    ],
)
def test_versions(api: Any, status: str, words: str) -> None:
    registry = made(plugin("a", api=api, methods=[method("m")]))
    one = record(registry, "a")
    assert one.status == status and words in one.reason
    assert ("m" in registry.methods) == (status == "active")


def test_an_older_minor_version_is_fine() -> None:
    module = ModuleType("m")
    module.BOUNDFLOW_API = (3, 1)  # type: ignore[attr-defined]
    assert check_api(module, (3, 2)) == ((3, 1), "")
    assert check_api(module, (3, 0))[1] != ""


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"methods": [method("m")]}, {"methods": [method("m")]}, "method 'm'"),
        ({"domains": [domain("d")]}, {"domains": [domain("d")]}, "domain 'd'"),
        ({"op_rules": [OpRule("d", "r", nothing)]}, {"op_rules": [OpRule("d", "r", nothing)]}, "rule 'd.r'"),
        ({"commands": [Command("x", "", nothing)]}, {"commands": [Command("x", "", nothing)]}, "command 'x'"),
        (
            {"frontends": [Frontend("f", "", nothing, nothing, (".x",))]},
            {"frontends": [Frontend("g", "", nothing, nothing, (".x",))]},
            "frontend for '.x'",
        ),
        (
            {"property_readers": [PropertyReader("f", "", (".x",), nothing)]},
            {"property_readers": [PropertyReader("g", "", (".x",), nothing)]},
            "property reader for '.x'",
        ),
    ],
)
def test_what_two_plugins_bring_belongs_to_neither(first: dict[str, Any], second: dict[str, Any], words: str) -> None:
    """Both are left out as a whole: the alphabet must not put somebody's code in place of what the user asked for."""
    extra = {"executors": [Executor("more", "", 0, nothing, nothing, nothing)]}
    registry = made(plugin("b", **second, **extra), plugin("a", **first), plugin("good", methods=[method("good")]))
    for name in ("a", "b"):
        one = record(registry, name)
        assert one.status == "duplicate" and words in one.reason
        assert "plugin 'a' of dist-a" in one.reason and "plugin 'b' of dist-b" in one.reason
        assert "BOUNDFLOW_DISABLE_PLUGINS=a or BOUNDFLOW_DISABLE_PLUGINS=b" in one.reason
    assert "more" not in registry.executors and list(registry.methods) == ["good"] and not registry.domains
    assert record(registry, "b").brings["executors"] == ("more",)


def test_three_contenders_are_all_left_out_and_named() -> None:
    registry = made(*(plugin(name, methods=[method("m")]) for name in "abc"))
    assert not registry.methods
    assert all(f"dist-{name}" in record(registry, "b").reason for name in "abc")
    assert record(registry, "b").reason.endswith(
        "=a,b or BOUNDFLOW_DISABLE_PLUGINS=a,c or BOUNDFLOW_DISABLE_PLUGINS=b,c"
    )


def test_whoever_is_left_out_for_another_reason_contends_for_nothing() -> None:
    thief = plugin("thief", methods=[method("m")], executors=[Executor("torch", "", 99, nothing, nothing, nothing)])
    registry = made(thief, plugin("z", methods=[method("m")]))
    assert (record(registry, "thief").status, record(registry, "z").status) == ("broken", "active")


def test_asking_for_what_is_contended_names_the_contenders_and_the_way_out() -> None:
    registry = made(plugin("a", domains=[domain("interval")]), plugin("interval", domains=[domain("interval")]))
    with pytest.raises(UnknownNameError) as caught:
        registry.domain("interval")
    text = str(caught.value)
    assert "plugin 'a' of dist-a and by plugin 'interval' of dist-interval" in text
    assert "BOUNDFLOW_DISABLE_PLUGINS=a" in text


@pytest.mark.parametrize("order", [("a", "z"), ("z", "a")])
def test_a_domains_own_rule_wins_over_anothers(order: tuple[str, str]) -> None:
    ruler, home = order
    registry = made(plugin(ruler, op_rules=[OpRule("d", "relu", print)]), plugin(home, domains=[domain("d", "relu")]))
    assert registry.domain("d").rules["relu"] is nothing
    assert (record(registry, home).status, record(registry, ruler).status) == ("active", "broken")
    assert f"dist-{ruler}" in record(registry, ruler).reason and f"dist-{home}" in record(registry, ruler).reason


def test_two_plugins_of_one_name_are_both_left_out() -> None:
    registry = made(plugin("same", "one", methods=[method("m")]), plugin("same", "two", methods=[method("n")]))
    assert list(registry.methods) == []
    first, second = registry.records[1:]
    for one in (first, second):
        assert one.status == "duplicate"
        assert "one" in one.reason and "two" in one.reason


def test_core_keeps_its_name() -> None:
    registry = made(plugin("core", "impostor", methods=[method("m")]))
    assert [(one.name, one.status) for one in registry.records] == [("core", "active"), ("core", "duplicate")]
    assert list(registry.methods) == [] and "bound" in registry.commands


def test_disabled_plugins_are_not_even_imported() -> None:
    point = entry("bad", "no_such_module_at_all", "dist-bad")
    registry = made(point, plugin("a", methods=[method("m")]), BOUNDFLOW_DISABLE_PLUGINS=" bad, a ,nobody,core")
    assert [one.status for one in registry.records] == ["active", "disabled", "disabled"]
    assert list(registry.methods) == []


def test_asking_for_a_contended_suffix_names_the_contenders() -> None:
    frontends = {name: Frontend(name, "", nothing, nothing, (".x",)) for name in "fg"}
    readers = {name: PropertyReader(name, "", (".p",), nothing) for name in "fg"}
    registry = made(*(plugin(n, frontends=[frontends[n]], property_readers=[readers[n]]) for n in "fg"))
    assert record(registry, "f").brings["suffixes"] == (".x", ".p")
    for ask in (lambda: registry.frontend_for("net.x"), lambda: registry.property_reader_for("spec.p")):
        with pytest.raises(UnknownNameError, match=r"by plugin 'f' of dist-f and by plugin 'g' of dist-g.*DISABLE"):
            ask()


def test_disabling_one_resolves_a_conflict() -> None:
    points = [plugin("a", methods=[method("m")]), plugin("b", methods=[method("m")])]
    assert [one.status for one in made(*points, BOUNDFLOW_DISABLE_PLUGINS="a").records[1:]] == ["disabled", "active"]


@pytest.mark.parametrize("strict", ["1", "yes"])
def test_strict_turns_records_into_errors(strict: str) -> None:
    bad = [
        [entry("bad", "no_such_module_at_all", "dist-bad")],
        [plugin("bad", api=None)],
        [plugin("bad", methods=RuntimeError("boom"))],
        [plugin("bad", "dist-bad"), plugin("bad", "other")],
        [plugin("a", methods=[method("m")]), plugin("bad", methods=[method("m")])],
    ]
    for points in bad:
        with pytest.raises(PluginError, match=r"'bad' of (dist-bad|other)"):
            made(*points, BOUNDFLOW_STRICT_PLUGINS=strict)
        made(*points, BOUNDFLOW_STRICT_PLUGINS=strict, BOUNDFLOW_DISABLE_PLUGINS="bad")
        made(*points, BOUNDFLOW_STRICT_PLUGINS="0")


# -- look-ups ---------------------------------------------------------------------------------------------------------


def test_an_unknown_name_lists_candidates_registered_names_and_what_was_left_out() -> None:
    registry = made(
        plugin("a", methods=[method("crown"), method("crown-ibp")]),
        plugin("b", methods=[method("lost")], executors=[Executor("torch", "", 0, nothing, nothing, nothing)]),
        plugin("old", api=(0, 1)),
    )
    with pytest.raises(UnknownNameError) as caught:
        registry.method("crwn")
    text = str(caught.value)
    assert text.startswith("no method is called 'crwn'; did you mean 'crown'")
    assert "registered methods: crown, crown-ibp" in text
    assert "not loaded: b of dist-b is broken, old of dist-old is incompatible (see `boundflow plugins`)" in text
    with pytest.raises(
        UnknownNameError, match="dist-b brings it, but is broken: executor 'torch' belongs to boundflow-c"
    ):
        registry.method("lost")
    assert isinstance(caught.value, BoundFlowError) and "\n" not in text


def test_an_unknown_name_is_answered_in_a_few_words_however_many_plugins_are_left_out() -> None:
    points = [plugin(f"bad{n}", methods=RuntimeError("of many words " * 50)) for n in range(9)]
    with pytest.raises(UnknownNameError) as caught:
        made(*points).method("m")
    text = str(caught.value)
    assert "bad2 of dist-bad2 is broken and 6 more (see `boundflow plugins`)" in text
    assert len(text) < 300


def test_an_unknown_name_that_some_distribution_is_known_for_says_what_to_install() -> None:
    registry = made()
    look_ups: dict[str, Callable[[str], Any]] = {
        "method": registry.method,
        "domain": registry.domain,
        "executor": registry.executor,
        "lowering strategy": registry.lowering,
        "command": registry.command,
        "frontend": lambda suffix: registry.frontend_for("net" + suffix),
        "property reader": lambda suffix: registry.property_reader_for("p" + suffix),
    }
    for (kind, name), distribution in KNOWN_DISTRIBUTIONS.items():
        with pytest.raises(UnknownNameError, match=f"pip install {distribution}"):
            look_ups[kind](name)


def test_an_installed_distribution_is_not_to_be_installed_again() -> None:
    registry = made(plugin("interval", "boundflow-interval", api=None))
    with pytest.raises(UnknownNameError) as caught:
        registry.method("ibp")
    assert "boundflow-interval, which brings it, is incompatible: it states no BOUNDFLOW_API" in str(caught.value)
    assert "pip install" not in str(caught.value)
    with pytest.raises(UnknownNameError, match="boundflow-interval, which brings it, is installed"):
        made(plugin("interval", "boundflow-interval")).method("ibp")


def test_frontends_are_found_by_suffix_and_by_asking() -> None:
    frontends = [
        Frontend("x", "", accepts=lambda _: False, load=nothing, suffixes=(".x",)),
        Frontend("gz", "", accepts=lambda _: False, load=nothing, suffixes=(".gz",)),
        Frontend("xgz", "", accepts=lambda _: False, load=nothing, suffixes=(".x.gz",)),
        Frontend("dict", "dictionaries", accepts=lambda source: isinstance(source, dict), load=nothing),
    ]
    registry = made(plugin("a", frontends=frontends))
    assert registry.frontend_for("some/NET.X").name == "x"
    assert registry.frontend_for("net.x.gz").name == "xgz"
    assert registry.frontend_for("net.y.gz").name == "gz"
    assert registry.frontend_for({}).name == "dict"
    with pytest.raises(UnknownNameError, match=r"no frontend loads an object of type builtins.list.*dictionaries"):
        registry.frontend_for([])
    with pytest.raises(UnknownNameError, match="without a suffix"):
        registry.frontend_for("net")


def test_an_object_that_several_plugins_accept_is_loaded_by_none_of_them() -> None:
    def accepting(name: str) -> Frontend:
        return Frontend(name, "", accepts=lambda source: isinstance(source, dict), load=nothing)

    both = [plugin("b", frontends=[accepting("y")]), plugin("a", frontends=[accepting("x")])]
    with pytest.raises(PluginError, match=r"frontends 'x' and 'y' all accept .* dict; .*BOUNDFLOW_DISABLE_PLUGINS"):
        made(*both).frontend_for({})
    assert made(*both, BOUNDFLOW_DISABLE_PLUGINS="a").frontend_for({}).name == "y"


def test_what_readers_give_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frontend, reader = Frontend("f", "", nothing, nothing, (".x",)), PropertyReader("p", "", (".x",), nothing)
    registry = made(plugin("a", frontends=[frontend], property_readers=[reader]))
    monkeypatch.setattr("boundflow_core.api.registry", lambda: registry)
    path = tmp_path / "file.x"
    path.touch()
    for read, words in (
        (bf.load, "frontend 'f' of plugin 'a' (dist-a) must give a PrimalGraph, not NoneType"),
        (bf.read_property, "property reader 'p' of plugin 'a' (dist-a) must give a Property, not NoneType"),
    ):
        with pytest.raises(PluginError) as caught:
            read(path)
        assert str(caught.value) == words


# -- the one of this process ------------------------------------------------------------------------------------------


def test_the_registry_is_assembled_once_whichever_thread_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    assemble_once = manager.assemble

    def counted(*arguments: Any) -> Registry:
        calls.append(1)
        return assemble_once(*arguments)

    monkeypatch.setattr(manager, "assemble", counted)
    manager.reset()
    found: list[Registry] = []
    threads = [threading.Thread(target=lambda: found.append(manager.cached_registry())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(found) == 8 and len({id(one) for one in found}) == 1
    manager.reset()
    assert manager.cached_registry() is not found[0]


def test_a_plugin_that_asks_for_the_registry_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def asking() -> list[Method]:
        manager.cached_registry()
        return []

    asking.__name__ = "boundflow_register_methods"
    point = plugin("bad", more={"boundflow_register_methods": hookimpl(asking)})
    monkeypatch.setattr(manager, "installed_entry_points", lambda: (point,))
    manager.reset()
    try:
        assert record(manager.cached_registry(), "bad").reason.startswith("a plugin asked for the registry")
    finally:
        manager.reset()
