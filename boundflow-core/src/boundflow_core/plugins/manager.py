"""From entry points to the registry, in small steps: discover, read, settle conflicts, note what is unused, build.

Each step is a function of what it is given; only the last lines of this file remember anything.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

import importlib_metadata
from importlib_metadata import EntryPoint

from boundflow_core import builtin
from boundflow_core.errors import PluginError
from boundflow_core.plugins.contributions import (
    Claim,
    Contribution,
    brought,
    claims,
    collect,
    describe,
    own_rules,
    repeated,
)
from boundflow_core.plugins.hookspecs import BOUNDFLOW_API
from boundflow_core.plugins.record import PluginRecord, Status
from boundflow_core.plugins.tables import Registry, build

__all__ = ["CORE", "GROUP", "Settings", "assemble", "cached_registry", "discover", "reset"]

GROUP = "boundflow.plugins"
CORE = "core"  # the name under which core's own things are registered
CORE_DISTRIBUTION = "boundflow-core"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Settings:
    """What the environment says about plugins.

    Attributes:
        disabled: names in BOUNDFLOW_DISABLE_PLUGINS, separated by commas.
        strict: BOUNDFLOW_STRICT_PLUGINS is set, to anything but 0: a plugin that cannot be used is an error.
    """

    disabled: frozenset[str] = frozenset()
    strict: bool = False

    @staticmethod
    def of(environ: Mapping[str, str]) -> Settings:
        names = (name.strip() for name in environ.get("BOUNDFLOW_DISABLE_PLUGINS", "").split(","))
        strict = environ.get("BOUNDFLOW_STRICT_PLUGINS", "").strip() not in ("", "0")
        return Settings(frozenset(filter(None, names)), strict)


@dataclass(frozen=True)
class Candidate:
    """A plugin that was found and not imported yet; ``load()`` imports it."""

    name: str
    distribution: str
    version: str
    module: str
    load: Callable[[], object]


NOTHING = Contribution()


@dataclass(frozen=True)
class Reading:
    """A plugin's record, and what it brings: nothing unless the record is active."""

    record: PluginRecord
    contribution: Contribution = NOTHING


# -- discovery --------------------------------------------------------------------------------------------------------


def discover(entry_points: Iterable[EntryPoint]) -> tuple[Candidate, ...]:
    """The plugins behind entry points, sorted by name and distribution, each once."""
    found: dict[tuple[str, str, str], Candidate] = {}
    for point in entry_points:
        distribution, version = _distribution(point)
        candidate = Candidate(point.name, distribution, version, point.value, point.load)
        found.setdefault((point.name, distribution, point.value), candidate)  # the first on the path counts
    return tuple(found[key] for key in sorted(found))


def _distribution(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution of an entry point, as far as its metadata can be read."""
    try:
        name, version = point.dist.name, point.dist.version  # type: ignore[union-attr]
        return str(name or UNKNOWN), str(version or UNKNOWN)
    except Exception:
        return UNKNOWN, UNKNOWN


def installed_entry_points() -> tuple[EntryPoint, ...]:
    """The entry points of all installed distributions.

    A distribution whose ``entry_points.txt`` cannot be parsed is passed over: it need not have to do with BoundFlow.
    """
    try:
        return tuple(importlib_metadata.entry_points(group=GROUP))
    except Exception:
        return tuple(point for one in importlib_metadata.distributions() for point in _entry_points_of(one))


def _entry_points_of(distribution: Any) -> tuple[EntryPoint, ...]:
    try:
        return tuple(distribution.entry_points.select(group=GROUP))
    except Exception:
        return ()


def own() -> Candidate:
    """Core's own things, which are registered like those of any other plugin."""
    try:
        version = importlib_metadata.version(CORE_DISTRIBUTION)
    except Exception:  # run from a source folder
        version = UNKNOWN
    return Candidate(CORE, CORE_DISTRIBUTION, version, builtin.__name__, lambda: builtin)


# -- reading ----------------------------------------------------------------------------------------------------------


def read_all(candidates: Sequence[Candidate], disabled: frozenset[str]) -> tuple[Reading, ...]:
    """Import those that are neither disabled nor share a name with another one, and collect what they bring.

    The first candidate is core itself: it keeps its name, and cannot be disabled.
    """
    named = defaultdict(list)
    for candidate in candidates:
        named[candidate.name].append(f"{candidate.distribution} ({candidate.module})")
    core = candidates[0]
    return tuple(
        _read(candidate)
        if candidate is core
        else _left_out(candidate, Status.DISABLED, "disabled by BOUNDFLOW_DISABLE_PLUGINS")
        if candidate.name in disabled
        else _left_out(candidate, Status.DUPLICATE, _same_name(candidate.name, named[candidate.name]))
        if len(named[candidate.name]) > 1
        else _read(candidate)
        for candidate in candidates
    )


def _same_name(name: str, owners: Sequence[str]) -> str:
    return f"the name {name!r} is given to plugins of {' and of '.join(owners)}; uninstall all but one"


def _left_out(candidate: Candidate, status: Status, reason: str, api: tuple[int, int] | None = None) -> Reading:
    return Reading(
        PluginRecord(
            candidate.name, candidate.distribution, candidate.version, api, status, reason, module=candidate.module
        )
    )


def _read(candidate: Candidate) -> Reading:
    """Import one plugin and call its hooks. Whatever it raises becomes the reason in its record.

    What it prints goes to stderr: stdout belongs to the answers of commands.
    """
    api: tuple[int, int] | None = None
    try:
        with redirect_stdout(sys.stderr):
            plugin = candidate.load()
            api, problem = check_api(plugin)
            if problem:
                return _left_out(candidate, Status.INCOMPATIBLE, problem, api)
            contribution = collect(plugin)
        twice = repeated(contribution)
        if twice:
            raise PluginError(f"it brings {describe(twice[0])} twice")
    except (Exception, SystemExit) as error:
        return _left_out(candidate, Status.BROKEN, _reason(error), api)
    record = PluginRecord(
        candidate.name,
        candidate.distribution,
        candidate.version,
        api,
        Status.ACTIVE,
        module=candidate.module,
        brings=brought(contribution),
    )
    return Reading(record, contribution)


def _reason(error: BaseException) -> str:
    """One line on what a plugin raised, with the place in its code."""
    text = " ".join(str(error).split())
    if isinstance(error, PluginError):
        return text
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    files = [(path, line) for path, line in frames if not path.startswith("<") and path != __file__]
    place = f" ({os.path.basename(files[-1][0])}:{files[-1][1]})" if files else ""
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"


def check_api(plugin: object, host: tuple[int, int] = BOUNDFLOW_API) -> tuple[tuple[int, int] | None, str]:
    """The version of the hooks that ``plugin`` states, and why this host cannot use it (empty if it can)."""
    stated: Any = getattr(plugin, "BOUNDFLOW_API", None)
    if stated is None:
        return None, f"it states no BOUNDFLOW_API = (major, minor); this host has {host}"
    if not (isinstance(stated, tuple) and len(stated) == 2 and all(type(part) is int for part in stated)):
        return None, f"its BOUNDFLOW_API is {stated!r:.40}, not a pair (major, minor) of integers; this host has {host}"
    api = (stated[0], stated[1])
    if api[0] != host[0]:
        older = "upgrade the plugin" if api < host else f"upgrade {CORE_DISTRIBUTION}"
        return api, f"it is written for BOUNDFLOW_API {api}, this host has {host}: {older}"
    if api[1] > host[1]:
        return api, f"it is written for BOUNDFLOW_API {api}, this host has only {host}: upgrade {CORE_DISTRIBUTION}"
    return api, ""


# -- conflicts --------------------------------------------------------------------------------------------------------


def settle(readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """Leave out, as a whole, each plugin that brings something which is not its own to bring.

    The first reading is core itself, whose names nobody takes. Of the others nobody comes first: what several bring
    belongs to none of them, as any choice would put somebody's code in place of what the user asked for. The rules of a
    domain belong to whoever brings the domain.
    """
    for reasons in (_taken_from_core, _contended, _taken_from_domains):
        found = reasons(readings)
        readings = [_dropped(reading, *found[n]) if n in found else reading for n, reading in enumerate(readings)]
    return tuple(readings)


Reasons = Mapping[int, tuple[Status, str]]
"""What becomes of readings that are left out, and why, by their number."""


def _dropped(reading: Reading, status: Status, reason: str) -> Reading:
    return Reading(replace(reading.record, status=status, reason=reason))


def _taken_from_core(readings: Sequence[Reading]) -> Reasons:
    own = set(claims(readings[0].contribution))
    clashes = {n: own.intersection(claims(reading.contribution)) for n, reading in enumerate(readings) if n}
    return {n: (Status.BROKEN, f"{describe(min(c))} belongs to {CORE_DISTRIBUTION}") for n, c in clashes.items() if c}


def _contended(readings: Sequence[Reading]) -> Reasons:
    """Everybody who brings what somebody else brings as well."""
    bringers: dict[Claim, list[int]] = defaultdict(list)
    for number, reading in enumerate(readings):
        for claim in set(claims(reading.contribution)):
            bringers[claim].append(number)
    found: dict[int, tuple[Status, str]] = {}
    for claim, numbers in sorted(bringers.items(), reverse=True):  # of several reasons the first claim's remains
        if len(numbers) > 1:
            reason = _nobodys(claim, [readings[number].record for number in numbers])
            found.update(dict.fromkeys(numbers, (Status.DUPLICATE, reason)))
    return found


def _nobodys(claim: Claim, contenders: Sequence[PluginRecord]) -> str:
    others = [",".join(one.name for one in contenders if one is not kept) for kept in reversed(contenders)]
    ways = " or ".join(f"BOUNDFLOW_DISABLE_PLUGINS={names}" for names in others)
    return f"{_clash(claim, *contenders)}, so none of them is used; uninstall all but one, or set {ways}"


def _taken_from_domains(readings: Sequence[Reading]) -> Reasons:
    """Everybody who brings a rule that its domain has already."""
    homes = {rule: reading.record for reading in readings for rule in own_rules(reading.contribution)}
    clashes = {n: homes.keys() & set(claims(reading.contribution)) for n, reading in enumerate(readings)}
    return {
        n: (Status.BROKEN, f"{_clash(min(c), readings[n].record, homes[min(c)])}, to which the domain belongs")
        for n, c in clashes.items()
        if c
    }


def _clash(claim: Claim, *bringers: PluginRecord) -> str:
    return f"{describe(claim)} is brought by " + " and by ".join(
        f"plugin {b.name!r} of {b.distribution}" for b in bringers
    )


def note_unused(readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """Note in the records of active plugins what has no effect because a domain is missing."""
    domains = {domain.name for reading in readings for domain in reading.contribution.domains}

    def notes(part: Contribution) -> tuple[str, ...]:
        rules = [
            f"unused: rule {r.domain}.{r.op}, as no active plugin brings domain {r.domain!r}"
            for r in part.op_rules
            if r.domain not in domains
        ]
        methods = [
            f"unusable: method {method.name}, as no active plugin brings domain {name!r}"
            for method in part.methods
            for name in method.domains
            if name not in domains
        ]
        return (*rules, *methods)

    return tuple(
        replace(reading, record=replace(reading.record, notes=notes(reading.contribution))) for reading in readings
    )


# -- assembly ---------------------------------------------------------------------------------------------------------


def assemble(entry_points: Iterable[EntryPoint], settings: Settings, core: Candidate | None = None) -> Registry:
    """The registry of core and of the plugins behind ``entry_points``.

    Raises:
        PluginError: core's own things are broken; or, if ``settings.strict``, any plugin is broken, incompatible or a
            duplicate.
    """
    candidates = (core or own(), *discover(entry_points))
    readings = note_unused(settle(read_all(candidates, settings.disabled)))
    for number, reading in enumerate(readings):
        record = reading.record
        bad = not record.active and record.status is not Status.DISABLED
        if bad and (settings.strict or number == 0):
            raise PluginError(f"plugin {record.name!r} of {record.distribution} is {record.status}: {record.reason}")
    return build([reading.contribution for reading in readings], [reading.record for reading in readings])


class _Cache:
    """The one place that remembers anything: the registry of this process, once assembled."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.registry: Registry | None = None
        self.assembling = False

    def get(self) -> Registry:
        if self.registry is not None:
            return self.registry
        with self.lock:
            if self.registry is None:
                if self.assembling:  # the lock is ours already, so we are within a plugin's code
                    raise PluginError("a plugin asked for the registry while it is assembled, at import or in a hook")
                self.assembling = True
                try:
                    self.registry = assemble(installed_entry_points(), Settings.of(os.environ))
                finally:
                    self.assembling = False
            return self.registry

    def reset(self) -> None:
        with self.lock:
            self.registry = None


_cache = _Cache()


def cached_registry() -> Registry:
    """The registry of this process, assembled by the first call. Raises PluginError, see `assemble`."""
    return _cache.get()


def reset() -> None:
    """Forget the registry, so that the next look-up assembles it anew: for tests."""
    _cache.reset()
