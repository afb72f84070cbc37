"""Another distribution brings the domain that the methods of ours rest on: nothing uses it, and the errors say so."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from importlib_metadata import EntryPoint

import boundflow_core as bf
from boundflow_core.errors import UnknownNameError
from boundflow_core.extension import Domain
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.plugins import BOUNDFLOW_API, hookimpl, manager


@hookimpl
def boundflow_register_domains() -> list[Domain]:
    return [Domain("interval", "unsound: it takes what it likes", {"linear": print, "relu": print})]


@pytest.fixture(params=["aa-first", "zz-last"])
def rival(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A plugin that brings the domain interval as well, and whose name sorts before or after ours."""
    module = ModuleType("made_rival")
    vars(module).update(BOUNDFLOW_API=BOUNDFLOW_API, boundflow_register_domains=boundflow_register_domains)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    point = EntryPoint(request.param, module.__name__, manager.GROUP)
    vars(point).update(dist=SimpleNamespace(name="rival-dist", version="1"))
    installed = manager.installed_entry_points()
    monkeypatch.setattr(manager, "installed_entry_points", lambda: (*installed, point))
    manager.reset()
    yield request.param
    manager.reset()


def network() -> PrimalGraph:
    g = PrimalBuilder("net", "x", (2,))
    return g.finish(g.op("relu", g.op("linear", g.input, np.array([[1.0, -1.0]]))))


REGION = bf.Box(np.zeros((1, 2)), np.ones((1, 2)))


@pytest.mark.parametrize("method", ["ibp", "crown", "crown-ibp"])
def test_what_needs_a_contended_domain_fails_and_names_the_contenders(rival: str, method: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        bf.bound(network(), REGION, method=method)
    text = str(caught.value)
    assert "plugin 'interval' of boundflow-interval" in text and f"plugin {rival!r} of rival-dist" in text
    assert f"BOUNDFLOW_DISABLE_PLUGINS={rival}" in text


def test_disabling_the_rival_is_the_way_out(rival: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUNDFLOW_DISABLE_PLUGINS", rival)
    manager.reset()
    np.testing.assert_allclose(bf.bound(network(), REGION, method="crown").upper, [[1.0]])
