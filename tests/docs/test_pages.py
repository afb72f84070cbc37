"""What the documentation says holds: every page is in the menu, and the examples in hook specifications work."""

from __future__ import annotations

import builtins
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from boundflow_core import extension
from boundflow_core.plugins import hookspecs
from boundflow_core.plugins.contributions import TYPES, collect


@pytest.fixture(scope="module")
def pages(repository_root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_pages", repository_root / "tools" / "docs_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hooks() -> list[str]:
    found = inspect.getmembers(hookspecs, inspect.isfunction)
    return [name for name, _ in found if name.startswith("boundflow_")]


def code_of(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


class Anything(dict[str, Any]):
    """Builtins, and for any name that an example leaves to its reader a function."""

    def __missing__(self, name: str) -> Any:
        def stand_in(*arguments: Any, **keywords: Any) -> str:
            return name

        return stand_in


@pytest.mark.parametrize("hook", hooks())
def test_the_example_of_a_hook_is_a_plugin(hook: str, pages: ModuleType) -> None:
    (code,) = code_of(pages.markdown(getattr(hookspecs, hook).__doc__))
    from collections import Counter

    from boundflow_core.cache import BoundCache

    module = ModuleType("example")
    known = {name: getattr(extension, name) for name in extension.__all__}
    known |= {"hookimpl": hookspecs.hookimpl, "BoundCache": BoundCache, "Composite": TYPES["primitives"]}
    module.__dict__.update(
        known, counters=Counter(), Interval=tuple, CacheKey=object, __builtins__=Anything(vars(builtins))
    )
    exec(code, module.__dict__)
    found = collect(module)
    kind = hook.removeprefix("boundflow_register_")
    if kind in TYPES:
        assert len(getattr(found, kind)) == 1
    else:
        assert len(found.cache_factories + found.cache_key_parts + found.cache_observers) == 1


def test_reference_pages_are_whole(pages: ModuleType) -> None:
    from boundflow_core.ir.primal_ops import PRIMAL_OPS
    from boundflow_core.ir.primitives import PRIMITIVES
    from boundflow_core.plugins import registry

    text = {name: write() for name, write in pages.PAGES.items()}
    assert all(f"## {hook}\n" in text["reference/hooks.md"] for hook in hooks())
    assert all(f"| `{name}` |" in text["reference/ir.md"] for name in (*PRIMITIVES, *PRIMAL_OPS))
    assert all(f"## boundflow {name}\n" in text["reference/cli.md"] for name in registry().commands)
    assert "``" not in text["reference/hooks.md"].replace("```", "")


def test_fields_of_types_are_described(pages: ModuleType) -> None:
    assert pages.fields_of("    name, doc: its name.\n    rules: rule per\n        operator: all.") == {
        "name": "its name.",
        "doc": "its name.",
        "rules": "rule per operator: all.",
    }


def test_importing_the_pages_needs_no_mkdocs(pages: ModuleType) -> None:
    assert "mkdocs" not in sys.modules


def test_the_picture_counts_the_primitives(repository_root: Path) -> None:
    from boundflow_core.ir.primitives import PRIMITIVES

    picture = (repository_root / "docs" / "assets" / "pipeline.svg").read_text()
    assert f"over {len(PRIMITIVES)} primitives" in picture
