"""The registry: everything that the active plugins bring, in read-only tables by name, and look-ups that help."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from boundflow_core.errors import PluginError, UnknownNameError
from boundflow_core.extension import (
    Branching,
    Command,
    Domain,
    Executor,
    Frontend,
    LoweringStrategy,
    Method,
    Pass,
    PropertyReader,
    Rule,
)
from boundflow_core.ir.program import Composite
from boundflow_core.plugins.catalogue import KNOWN_DISTRIBUTIONS
from boundflow_core.plugins.contributions import Contribution
from boundflow_core.plugins.record import PluginRecord

if TYPE_CHECKING:
    from boundflow_core.cache import BoundCache, CacheKey

__all__ = ["Registry", "build"]

T = TypeVar("T")

NAMED = 3
"""How many of the plugins that are left out an error names."""


def _empty() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Registry:
    """What the active plugins bring: read-only tables by name, in the order of the plugins, core first.

    The rules that plugins bring for somebody else's domain are in that domain's ``rules``, and lowering strategies in
    their executor's ``strategies``.

    Attributes:
        records: what became of every plugin that was found, core's own first.
        cache_factories, cache_key_parts, cache_observers: implementations of the cache's hooks, called directly.
    """

    domains: Mapping[str, Domain] = field(default_factory=_empty)
    methods: Mapping[str, Method] = field(default_factory=_empty)
    frontends: Mapping[str, Frontend] = field(default_factory=_empty)
    property_readers: Mapping[str, PropertyReader] = field(default_factory=_empty)
    executors: Mapping[str, Executor] = field(default_factory=_empty)
    lowerings: Mapping[str, LoweringStrategy] = field(default_factory=_empty)
    passes: Mapping[str, Pass] = field(default_factory=_empty)
    composites: Mapping[str, Composite] = field(default_factory=_empty)
    commands: Mapping[str, Command] = field(default_factory=_empty)
    branching: Mapping[str, Branching] = field(default_factory=_empty)
    records: tuple[PluginRecord, ...] = ()
    cache_factories: tuple[Callable[[], BoundCache], ...] = ()
    cache_key_parts: tuple[Callable[[CacheKey], Iterable[str]], ...] = ()
    cache_observers: tuple[Callable[[str, CacheKey, int], None], ...] = ()

    def new_cache(self) -> BoundCache:
        """A cache for the bounds of one compiled object: a plugin's, else our own; all observers watch it.

        Raises:
            PluginError: the plugin's store cannot be made.
        """
        from boundflow_core.cache import BoundCache

        cache = BoundCache()
        if self.cache_factories:
            factory = self.cache_factories[0]
            where = f"boundflow_bound_cache of {factory.__module__}"
            try:
                cache = factory()
            except Exception as error:
                raise PluginError(f"{where} raised {type(error).__name__}: {error}") from error
            if not isinstance(cache, BoundCache):
                raise PluginError(f"{where} returned {type(cache).__name__} instead of a BoundCache")
        # a plugin may give the same store to several objects
        cache.observers += tuple(one for one in self.cache_observers if one not in cache.observers)
        return cache

    def bringer(self, kind: str, name: str) -> PluginRecord | None:
        """The active plugin that brings ``name`` by the hook ``boundflow_register_`` and ``kind``."""
        return next((one for one in self.records if one.active and name in one.brings.get(kind, ())), None)

    def who(self, kind: str, item: Frontend | PropertyReader | Command) -> str:
        """``item`` of a table and the plugin that brings it, for messages: "frontend 'x' of plugin 'y' (z)"."""
        bringer = self.bringer(kind, item.name)
        whose = f" of plugin {bringer.name!r} ({bringer.distribution})" if bringer else ""
        return f"{kind.removesuffix('s').replace('_', ' ')} {item.name!r}{whose}"

    def domain(self, name: str) -> Domain:
        """The domain of this name. Raises UnknownNameError, as the other look-ups do."""
        return self._get("domain", self.domains, name)

    def method(self, name: str) -> Method:
        return self._get("method", self.methods, name)

    def frontend(self, name: str) -> Frontend:
        return self._get("frontend", self.frontends, name)

    def composite(self, name: str) -> Composite:
        return self._get("composite", self.composites, name)

    def command(self, name: str) -> Command:
        return self._get("command", self.commands, name)

    def branching_heuristic(self, name: str) -> Branching:
        return self._get("branching heuristic", self.branching, name)

    def lowering(self, name: str) -> LoweringStrategy:
        return self._get("lowering strategy", self.lowerings, name)

    def executor(self, name: str) -> Executor:
        return self._get("executor", self.executors, name)

    def frontend_for(self, source: Any) -> Frontend:
        """The frontend that reads ``source``: by suffix if it is a path (a string or os.PathLike), else by asking each.

        Raises:
            UnknownNameError: none does; says which distribution is known to.
            PluginError: several plugins' frontends accept it, and none of core's.
        """
        path = _path(source)
        found = None if path is None else _by_suffix(self.frontends.values(), path)
        if found is None:
            found = self._taker(source)
        if found is not None:
            return found
        kinds = [f"{name} ({', '.join(one.suffixes) or one.doc})" for name, one in self.frontends.items()]
        if path is not None:
            raise UnknownNameError(self._no_reader("frontend", path, kinds))
        what = f"an object of type {type(source).__module__}.{type(source).__qualname__}"
        raise UnknownNameError(
            _join([f"no frontend loads {what}", _registered("frontends", kinds), *self._not_loaded()])
        )

    def property_reader_for(self, path: str | os.PathLike[str]) -> PropertyReader:
        """The reader of property files with the suffix of ``path``. Raises UnknownNameError, see `frontend_for`."""
        text = os.fspath(path)
        found = _by_suffix(self.property_readers.values(), text)
        if found is None:
            kinds = [f"{name} ({', '.join(one.suffixes)})" for name, one in self.property_readers.items()]
            raise UnknownNameError(self._no_reader("property reader", text, kinds))
        return found

    def _taker(self, source: Any) -> Frontend | None:
        """The frontend that accepts ``source``: core's own, else the only one, as no plugin comes before another."""
        takers = [frontend for frontend in self.frontends.values() if frontend.accepts(source)]
        if len(takers) > 1 and (self.bringer("frontends", takers[0].name),) != self.records[:1]:
            names = " and ".join(repr(one.name) for one in takers)
            raise PluginError(
                f"frontends {names} all accept an object of type {type(source).__qualname__}; uninstall all but one, "
                "or leave plugins out with BOUNDFLOW_DISABLE_PLUGINS=NAME,NAME (see `boundflow plugins`)"
            )
        return takers[0] if takers else None

    # -- messages ---------------------------------------------------------------------------------------------------

    def _get(self, kind: str, table: Mapping[str, T], name: str) -> T:
        try:
            return table[name]
        except (KeyError, TypeError):
            close = get_close_matches(str(name), table, n=3, cutoff=0.6)
            message = [
                f"no {kind} is called {name!r}" + (f"; did you mean {' or '.join(map(repr, close))}?" if close else ""),
                *self._known(kind, str(name)),
                _registered("lowering strategies" if kind == "lowering strategy" else kind + "s", table),
                *self._not_loaded(),
            ]
            raise UnknownNameError(_join(message)) from None

    def _no_reader(self, kind: str, path: str, registered: Sequence[str]) -> str:
        suffix = os.path.splitext(path)[1].lower()
        reads = f"no {kind} reads {suffix!r} files" if suffix else f"no {kind} reads a file without a suffix"
        return _join(
            [f"{path}: {reads}", *self._known(kind, suffix), _registered(kind + "s", registered), *self._not_loaded()]
        )

    def _known(self, kind: str, name: str) -> list[str]:
        """Who is known to bring it: a plugin that was found but left out, or a distribution to install."""
        plural = {
            "property reader": "property_readers",
            "lowering strategy": "lowerings",
            "composite": "primitives",
            "branching heuristic": "branching",
        }.get(kind, kind + "s")
        for record in self.records:
            if not record.active and name in (*record.brings.get(plural, ()), *record.brings.get("suffixes", ())):
                return [f"{record.distribution} brings it, but is {record.status}: {record.reason}"]
        distribution = KNOWN_DISTRIBUTIONS.get((kind, name))
        if distribution is None:
            return []
        for record in self.records:
            if record.distribution == distribution:
                why = f"{record.status}: {record.reason}" if record.reason else "installed (see `boundflow plugins`)"
                return [f"{distribution}, which brings it, is {why}"]
        return [f"it comes with the distribution {distribution}: pip install {distribution}"]

    def _not_loaded(self) -> list[str]:
        left_out = [f"{r.name} of {r.distribution} is {r.status}" for r in self.records if not r.active]
        if not left_out:
            return []
        more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
        return [f"not loaded: {', '.join(left_out[:NAMED])}{more} (see `boundflow plugins`)"]


def _join(parts: Iterable[str]) -> str:
    return "; ".join(parts).replace("?; ", "? ")


def _registered(kind: str, names: Iterable[str]) -> str:
    return f"registered {kind}: " + (", ".join(names) or "none")


def _path(source: Any) -> str | None:
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        return path if isinstance(path, str) else os.fsdecode(path)
    return None


Reader = TypeVar("Reader", Frontend, PropertyReader)


def _by_suffix(readers: Iterable[Reader], path: str) -> Reader | None:
    """Who reads ``path``; of several suffixes that it ends in the longest counts."""
    fits = [(len(s), reader) for reader in readers for s in reader.suffixes if path.lower().endswith(s)]
    return max(fits, key=lambda fit: fit[0])[1] if fits else None


def build(contributions: Sequence[Contribution], records: Sequence[PluginRecord]) -> Registry:
    """The registry of all these contributions, no two of which bring the same name."""
    rules: dict[str, dict[str, Rule]] = {}
    for contribution in contributions:
        for rule in contribution.op_rules:
            rules.setdefault(rule.domain, {})[rule.op] = rule.rule
    domains = {
        domain.name: replace(domain, rules=MappingProxyType({**domain.rules, **rules.get(domain.name, {})}))
        for contribution in contributions
        for domain in contribution.domains
    }

    strategies: dict[str, list[LoweringStrategy]] = {}
    for contribution in contributions:
        for strategy in contribution.lowerings:
            strategies.setdefault(strategy.executor, []).append(strategy)

    def with_strategies(executor: Executor) -> Executor:
        more = strategies.get(executor.name)
        return replace(executor, strategies=(*executor.strategies, *more)) if more else executor

    executors = {one.name: with_strategies(one) for contribution in contributions for one in contribution.executors}

    def table(kind: str) -> Mapping[str, Any]:
        return MappingProxyType({item.name: item for part in contributions for item in getattr(part, kind)})

    def joined(kind: str) -> tuple[Any, ...]:
        return tuple(item for part in contributions for item in getattr(part, kind))

    return Registry(
        domains=MappingProxyType(domains),
        methods=table("methods"),
        frontends=table("frontends"),
        property_readers=table("property_readers"),
        executors=MappingProxyType(executors),
        lowerings=table("lowerings"),
        passes=table("passes"),
        composites=table("primitives"),
        commands=table("commands"),
        branching=table("branching"),
        records=tuple(records),
        cache_factories=joined("cache_factories"),
        cache_key_parts=joined("cache_key_parts"),
        cache_observers=joined("cache_observers"),
    )
