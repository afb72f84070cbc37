"""The tests' environments get their packages from where pip would: see tools/pip_configuration.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def module(repository_root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pip_configuration", repository_root / "tools/pip_configuration.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_nothing_configured_gives_no_variable(module: ModuleType) -> None:
    assert module.uv_variables(module.parse("")) == {}
    assert module.uv_variables(module.parse("global.timeout='60'\n:env:.find-links=''\n")) == {}


def test_lists_become_what_uv_splits(module: ModuleType) -> None:
    text = (
        "global.find-links='wheels more/wheels'\nglobal.extra-index-url='\\nhttps://a.example/\\nhttps://b.example/'\n"
    )
    assert module.uv_variables(module.parse(text)) == {
        "UV_FIND_LINKS": "wheels,more/wheels",
        "UV_INDEX": "https://a.example/ https://b.example/",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_environment_wins_over_command_over_global(module: ModuleType) -> None:
    lines = ["install.find-links='of-install'", "global.find-links='of-all'", ":env:.find-links='of-environment'"]
    assert module.parse("\n".join(lines))["find-links"] == "of-environment"
    assert module.parse("\n".join(lines[:2]))["find-links"] == "of-install"


def test_index_and_certificate(module: ModuleType, tmp_path: Path) -> None:
    certificate = tmp_path / "root.pem"
    certificate.touch()
    pip = {"index-url": "https://a.example/simple", "no-index": "true", "cert": str(certificate)}
    assert module.uv_variables(pip) == {
        "UV_DEFAULT_INDEX": "https://a.example/simple",
        "UV_NO_INDEX": "1",
        "SSL_CERT_FILE": str(certificate),
    }
    assert module.uv_variables({"no-index": "false", "cert": str(tmp_path / "absent.pem")}) == {}


def test_what_pip_prints_is_understood(module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configuration = tmp_path / "pip.conf"
    configuration.write_text("[global]\nfind-links = from-file\nextra-index-url =\n    https://a.example/\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    module.read.cache_clear()
    found = module.uv_variables(module.parse(module.read()))
    module.read.cache_clear()
    assert found["UV_FIND_LINKS"] == "from-file"
    assert found["UV_INDEX"] == "https://a.example/"
