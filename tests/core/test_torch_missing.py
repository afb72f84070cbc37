"""The torch frontend where torch is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from boundflow_core.errors import LoadError
from boundflow_core.frontends.torch_export import load_module


def test_loading_a_module_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # makes every import of it fail
    with pytest.raises(LoadError, match=r"pip install 'boundflow-core\[torch\]'"):
        load_module(object())


def test_importing_the_frontend_does_not_import_torch() -> None:
    code = "import sys, boundflow_core.frontends.torch_export; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
