"""Distributions with a plugin, to start from: `write` fills the templates of this folder in.

A template is a text with `$name`, `$plugin`... in it; those of a kind are in the folder of its name.
"""

from __future__ import annotations

import keyword
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from types import MappingProxyType

import importlib_metadata

from boundflow_core.errors import InputError
from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.plugins import BOUNDFLOW_API, Registry

__all__ = ["KINDS", "Kind", "check_name", "contents", "write"]


@dataclass(frozen=True)
class Kind:
    """What a distribution brings.

    Attributes:
        what: the same in words.
        main: module in which the author starts.
        needs: distributions that its example needs besides core.
        usage: a command that uses it; ``$plugin`` is its name.
        tables: tables of the registry in which the name must be free.
    """

    what: str
    main: str
    usage: str
    tables: tuple[str, ...]
    needs: tuple[str, ...] = ()


_BOUND = "boundflow bound net.onnx --center x.npy --eps 0.01"

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "domain": Kind("A domain and a method", "domain", f"{_BOUND} --method $plugin", ("domains", "methods")),
        "op": Kind(
            "An operator with its rules",
            "operator",
            "python -c 'from $module.operator import TORCH, ONNX'   # pass one to bf.load(..., converters=)",
            (),
            ("boundflow-interval",),
        ),
        "frontend": Kind(
            "A reader of networks",
            "reader",
            "boundflow inspect net.$module",
            ("frontends",),
        ),
        "lowering": Kind(
            "A lowering",
            "lowering",
            f"{_BOUND} --method ibp --executor reference --json -   # `lowering` counts what ran on it",
            ("lowerings",),
            ("boundflow-interval",),
        ),
        "branching": Kind(
            "A branching heuristic",
            "branching",
            "python -c 'import boundflow_bab as b; b.Options(branching=\"$plugin\")'   # of boundflow_bab.verify",
            ("branching",),
        ),
    }
)

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
PREFIX = "boundflow-"
TAKEN = ("boundflow", "boundflow-core", "test", "tests")  # the first is somebody else's on PyPI
LONGEST = 100


def check_name(name: str, kind: str, registry: Registry) -> None:
    """A name of which a distribution, a module and a plugin can be named.

    Raises:
        InputError: it cannot be one of them, or is taken.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot name a distribution here: lower-case letters, digits and single hyphens, a letter first, "
            f"such as {_suggestion(name)!r}"
        )
    if len(name) > LONGEST:
        raise InputError(f"a name has {LONGEST} characters at most, not {len(name)}")
    module, plugin = _module(name), _plugin(name)
    if name in TAKEN or not plugin:
        raise InputError(f"{name!r} is taken; choose a name of your own, such as 'boundflow-octagon'")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names:
        raise InputError(
            f"the module {module!r} would hide one of Python's own; choose another name, such as 'my-{name}'"
        )
    for record in registry.records:
        if record.name == plugin or record.distribution == name:
            raise InputError(f"a plugin {record.name!r} of {record.distribution} is installed; choose another name")
    for table in KINDS[kind].tables:
        if plugin in getattr(registry, table):
            raise InputError(f"{plugin!r} is among the {table} that are installed; choose another name")
    if kind == "op" and (plugin in PRIMAL_OPS or any(plugin in one.rules for one in registry.domains.values())):
        raise InputError(f"there is an operator {plugin!r} already; choose another name")
    if _importable(module):
        raise InputError(f"a module {module!r} is installed, which this one would hide; choose another name")
    if _is_installed(name):
        raise InputError(f"a distribution {name!r} is installed; choose another name")


def _importable(module: str) -> bool:
    """Whether ``module`` can be imported; a mere folder, of which Python makes a package as well, does not count."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def _is_installed(distribution: str) -> bool:
    try:
        importlib_metadata.distribution(distribution)
    except importlib_metadata.PackageNotFoundError:
        return False
    return True


def contents(name: str, kind: str, version: str) -> dict[str, str]:
    """The files of the distribution, by path."""
    about, module, plugin = KINDS[kind], _module(name), _plugin(name)
    words = {
        "name": name,
        "module": module,
        "plugin": plugin,
        "plugin_": plugin.replace("-", "_"),
        "Plugin": "".join(map(str.capitalize, plugin.split("-"))),
        "kind": kind,
        "what": about.what,
        "main": about.main,
        "needs": "".join(f'\n  "{one}>={version}",' for one in about.needs),
        "version": version,
        "api": str(BOUNDFLOW_API),
    }
    words["usage"] = Template(about.usage).substitute(words)
    places = {
        "common/pyproject.toml": "pyproject.toml",
        "common/README.md": "README.md",
        "common/test_active.py": "tests/test_active.py",
        "common/test_to_do.py": "tests/test_to_do.py",
        f"{kind}/plugin.py": f"src/{module}/plugin.py",
        f"{kind}/{about.main}.py": f"src/{module}/{about.main}.py",
        f"{kind}/test_kit.py": "tests/test_kit.py",
    }
    here = files(__name__)
    filled = {
        target: Template(here.joinpath(f"{source}.txt").read_text(encoding="utf-8")).substitute(words)
        for source, target in places.items()
    }
    return {
        **filled,
        f"src/{module}/__init__.py": f'"""{about.what} for BoundFlow."""\n',
        f"src/{module}/py.typed": "",
    }


def write(folder: Path, found: Mapping[str, str]) -> None:
    """Writes the files, all or none.

    Raises:
        InputError: there is such a folder, or there is none to put it in.
    """
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{folder}: exists already; name another folder with --folder, or remove it")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"{folder}: there is no folder {folder.absolute().parent} to put it in")
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.absolute().parent))
    try:
        for path, text in found.items():
            target = new / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        new.chmod(0o755)
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _module(name: str) -> str:
    return name.replace("-", "_")


def _plugin(name: str) -> str:
    return name.removeprefix(PREFIX)


def _suggestion(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
    return plain if _NAME.fullmatch(plain) else "boundflow-octagon"
