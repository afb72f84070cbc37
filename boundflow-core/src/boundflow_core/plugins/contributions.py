"""What one plugin brings: its hooks are called, one plugin at a time so that a failure is its own, and checked."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import pluggy

from boundflow_core.cache import BoundCache, CacheKey
from boundflow_core.errors import PluginError
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
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.program import Composite
from boundflow_core.plugins import hookspecs

__all__ = ["Claim", "Contribution", "brought", "claims", "collect", "describe", "own_rules", "repeated"]


@dataclass(frozen=True)
class Contribution:
    """All that one plugin brings. The fields are named after the hooks ``boundflow_register_...``.

    Attributes:
        cache_factories, cache_key_parts, cache_observers: the implementations of the cache's hooks, at most one each.
    """

    domains: tuple[Domain, ...] = ()
    op_rules: tuple[OpRule, ...] = ()
    methods: tuple[Method, ...] = ()
    frontends: tuple[Frontend, ...] = ()
    property_readers: tuple[PropertyReader, ...] = ()
    executors: tuple[Executor, ...] = ()
    lowerings: tuple[LoweringStrategy, ...] = ()
    passes: tuple[Pass, ...] = ()
    primitives: tuple[Composite, ...] = ()
    commands: tuple[Command, ...] = ()
    branching: tuple[Branching, ...] = ()
    cache_factories: tuple[Callable[[], BoundCache], ...] = ()
    cache_key_parts: tuple[Callable[[CacheKey], Iterable[str]], ...] = ()
    cache_observers: tuple[Callable[[str, CacheKey, int], None], ...] = ()


# Hooks that are called while bounds are computed, and the fields that hold their implementations.
CACHE_HOOKS: Mapping[str, str] = MappingProxyType(
    {
        "boundflow_bound_cache": "cache_factories",
        "boundflow_cache_key": "cache_key_parts",
        "boundflow_cache_event": "cache_observers",
    }
)
HOOK_PREFIX = "boundflow_"
REGISTER = "boundflow_register_"
TYPES: Mapping[str, type[Any]] = MappingProxyType(
    {
        "domains": Domain,
        "op_rules": OpRule,
        "methods": Method,
        "frontends": Frontend,
        "property_readers": PropertyReader,
        "executors": Executor,
        "lowerings": LoweringStrategy,
        "passes": Pass,
        "primitives": Composite,
        "commands": Command,
        "branching": Branching,
    }
)


# -- calling the hooks ------------------------------------------------------------------------------------------------


def collect(plugin: object) -> Contribution:
    """Call each hook that ``plugin`` (a module, as a rule) implements, and check what it returns.

    Raises:
        PluginError: an unknown or unmarked hook, a wrong signature, or a result that is not what the hook asks for.
        Exception: whatever the plugin's own code raises.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    _check_marks(plugin)
    try:
        manager.register(plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(_one_line(error)) from error
    hooks: dict[str, Any] = {field: _implementations(manager, name) for name, field in CACHE_HOOKS.items()}
    return Contribution(**{kind: _call(manager, kind) for kind in TYPES}, **hooks)


def _check_marks(plugin: object) -> None:
    """Find functions that look like hooks but are not: pluggy would pass over them in silence."""
    known = {REGISTER + kind for kind in TYPES} | set(CACHE_HOOKS)
    for name, function in inspect.getmembers(plugin, inspect.isroutine):
        if not name.startswith(HOOK_PREFIX):
            continue
        if name not in known:
            raise PluginError(f"there is no hook {name}; the hooks are {', '.join(sorted(known))}")
        mark = getattr(function, hookspecs.PROJECT + "_impl", None)
        if mark is None:
            raise PluginError(f"{name} is not marked with @hookimpl (from boundflow_core.plugins import hookimpl)")
        if mark.get("wrapper") or mark.get("hookwrapper"):
            raise PluginError(f"{name} is a wrapper; a hook returns what its own plugin brings")


def _call(manager: pluggy.PluginManager, kind: str) -> tuple[Any, ...]:
    """Call one hook of the one plugin in ``manager``."""
    hook = getattr(manager.hook, REGISTER + kind)
    if not hook.get_hookimpls():
        return ()
    results = hook()
    expected = TYPES[kind]
    # pluggy leaves out None
    if not results or not isinstance(results[0], Iterable):
        found = type(results[0]).__name__ if results else "None"
        raise PluginError(f"{REGISTER}{kind} returned {found} instead of a list of {expected.__name__}")
    items: tuple[Any, ...] = tuple(results[0])
    for item in items:
        if not isinstance(item, expected):
            raise PluginError(f"{REGISTER}{kind} returned {item!r:.80} among what must be {expected.__name__}")
        problem = _problem(item)
        if problem:
            raise PluginError(f"{REGISTER}{kind}: {describe(_key(item))} {problem}")
    return items


def _implementations(manager: pluggy.PluginManager, name: str) -> tuple[Callable[..., Any], ...]:
    """The functions behind a hook, to be called directly: a call through pluggy costs microseconds."""
    expected = tuple(inspect.signature(getattr(hookspecs, name)).parameters)
    found = getattr(manager.hook, name).get_hookimpls()
    for one in found:
        if one.argnames != expected:
            raise PluginError(f"{name} takes ({', '.join(one.argnames)}) instead of ({', '.join(expected)})")
    return tuple(one.function for one in found)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


# -- checking what they return ----------------------------------------------------------------------------------------


def _is_options(value: Any) -> bool:
    return isinstance(value, (Mapping, tuple)) and all(isinstance(name, str) for name in value)


# What a field must be, by name: the few names mean the same wherever they occur.
_FIELDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = MappingProxyType(
    {
        "name": ("a name without blanks", lambda v: isinstance(v, str) and bool(v) and not any(map(str.isspace, v))),
        "domain": ("a name", lambda v: isinstance(v, str) and bool(v)),
        "op": ("a name", lambda v: isinstance(v, str) and bool(v)),
        "doc": ("a string", lambda v: isinstance(v, str)),
        "rank": ("an integer", lambda v: isinstance(v, int)),
        "direction": ('"forward" or "backward"', lambda v: v in ("forward", "backward")),
        "rules": (
            "a mapping from operator names to functions",
            lambda v: isinstance(v, Mapping) and all(isinstance(op, str) and callable(rule) for op, rule in v.items()),
        ),
        "domains": ("a tuple of names", lambda v: isinstance(v, tuple) and all(isinstance(name, str) for name in v)),
        "suffixes": (
            'a tuple of lower-case suffixes such as ".onnx"',
            lambda v: (
                isinstance(v, tuple)
                and all(isinstance(s, str) and s.startswith(".") and s == s.lower() and len(s) > 1 for s in v)
            ),
        ),
        "rule": ("a function", callable),
        "emit": ("a function", lambda v: v is None or callable(v)),  # a method has this or a recipe
        "recipe": ("a function", lambda v: v is None or callable(v)),
        "accepts": ("a function", callable),
        "load": ("a function", callable),
        "read": ("a function", callable),
        "unavailable": ("a function", callable),
        "open": ("a function", callable),
        "traits": ("a function", callable),
        "startup": ("a function", callable),
        "cost": ("a function", lambda v: v is None or callable(v)),
        "supports": ("a function", callable),
        "estimate": ("a function", callable),
        "kernel": ("a function, or None", lambda v: v is None or callable(v)),
        "executor": ("a name", lambda v: isinstance(v, str) and bool(v)),
        "stage": ('"program" or "primitives"', lambda v: v in ("program", "primitives")),
        "options": ("a mapping to defaults (of a method), a tuple of names (of a frontend)", _is_options),
        "fused": ("a frozenset of names", lambda v: isinstance(v, frozenset)),
        "run": ("a function", callable),
        "decompose": ("a function", callable),
        "score": ("a function", callable),
    }
)


def _problem(item: Any) -> str:
    """What is wrong with ``item``; empty if nothing is."""
    for field in fields(item):
        value = getattr(item, field.name)
        if field.name in _FIELDS:
            expected, check = _FIELDS[field.name]
            if not check(value):
                return f"has {field.name} = {value!r:.80}, which must be {expected}"
    if isinstance(item, Composite) and item.name in PRIMITIVES:
        return "has the name of a primitive"
    return ""


# -- what it takes up -------------------------------------------------------------------------------------------------

Claim = tuple[str, str]
"""(kind, name) of something that only one plugin can bring."""

_KINDS: Mapping[type[Any], str] = MappingProxyType(
    {
        Domain: "domain",
        OpRule: "rule",
        Method: "method",
        Frontend: "frontend",
        PropertyReader: "property reader",
        Executor: "executor",
        LoweringStrategy: "lowering",
        Pass: "pass",
        Composite: "composite",
        Command: "command",
        Branching: "branching heuristic",
    }
)


def describe(claim: Claim) -> str:
    """``claim`` as it is called in messages: "method 'ibp'"."""
    kind, name = claim
    return f"{kind} {name!r}"


def _key(item: Any) -> Claim:
    name = f"{item.domain}.{item.op}" if isinstance(item, OpRule) else item.name
    kind = next(kind for type_, kind in _KINDS.items() if isinstance(item, type_))
    return kind, name


def claims(contribution: Contribution) -> tuple[Claim, ...]:
    """Everything in ``contribution`` that nobody else can bring as well: names, rules and file name suffixes."""
    found: list[Claim] = [_key(item) for kind in TYPES for item in getattr(contribution, kind)]
    found += [("frontend for", suffix) for item in contribution.frontends for suffix in item.suffixes]
    found += [("property reader for", suffix) for item in contribution.property_readers for suffix in item.suffixes]
    found += [("store of bounds", "boundflow_bound_cache") for _ in contribution.cache_factories]
    return tuple(found)


def own_rules(contribution: Contribution) -> tuple[Claim, ...]:
    """The rules that domains in ``contribution`` have themselves, which nobody else can bring either."""
    return tuple(("rule", f"{domain.name}.{op}") for domain in contribution.domains for op in domain.rules)


def repeated(contribution: Contribution) -> tuple[Claim, ...]:
    """What ``contribution`` brings twice by itself."""
    counts = Counter([*claims(contribution), *own_rules(contribution)])
    return tuple(claim for claim, count in counts.items() if count > 1)


def brought(contribution: Contribution) -> Mapping[str, tuple[str, ...]]:
    """Names by kind, in the order of the hooks, and suffixes of files that are read; no empty kinds: for records."""
    names = {
        kind: tuple(_key(item)[1] for item in getattr(contribution, kind))
        for kind in TYPES
        if getattr(contribution, kind)
    }
    readers: tuple[Frontend | PropertyReader, ...] = (*contribution.frontends, *contribution.property_readers)
    if suffixes := tuple(suffix for reader in readers for suffix in reader.suffixes):
        names["suffixes"] = suffixes
    if hooks := tuple(name for name, field in CACHE_HOOKS.items() if getattr(contribution, field)):
        names["cache_hooks"] = hooks
    return MappingProxyType(names)
