"""Example plugins, installed for the time of a test: on the path, with metadata as an installer writes them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from boundflow_core import plugins

Plug = Callable[[str], ModuleType]


@pytest.fixture
def plug(tmp_path: Path, repository_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plug]:
    """``plug(name)`` makes ``examples/plugins/name.py`` a plugin that is in use, and gives the module."""
    monkeypatch.syspath_prepend(str(repository_root / "examples" / "plugins"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("BOUNDFLOW_STRICT_PLUGINS", "1")
    before = set(sys.modules)

    def plug(name: str) -> ModuleType:
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        info.joinpath("entry_points.txt").write_text(f"[boundflow.plugins]\n{name} = {name}\n")
        importlib.invalidate_caches()
        plugins.reset()
        (record,) = [one for one in plugins.records() if one.name == name]
        assert record.active, record
        assert all(note.startswith("unused: rule") for note in record.notes)  # of a domain that is not there
        return importlib.import_module(name)

    yield plug
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(repository_root / "examples")):
            del sys.modules[name]
    monkeypatch.undo()
    plugins.reset()
