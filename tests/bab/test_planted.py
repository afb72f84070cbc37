"""Unsound bounds, planted by a plugin as anybody could install one: they are found out, and nothing wrong is said."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from types import ModuleType

import numpy as np
import pytest
from networks import network

import boundflow_core as bf
from boundflow_bab import Options, Verdict, verify
from boundflow_core import plugins
from boundflow_core.ir.types import DType
from boundflow_core.plugins import manager
from boundflow_core.property import Case, LinearConstraints, Property

ONE = np.ones((1, 1))


def too_tight(name, wrong_in):
    """The method crown with bounds 1 % too tight, in some types of numbers."""
    crown = plugins.registry().method("crown")

    def recipe(workshop):
        inner = crown.recipe(workshop)

        def run(inputs, progress):
            found = dict(inner.run(inputs, progress))
            if workshop.dtype in wrong_in:
                offset = inputs.get("offset", 0.0)  # what is bounded is the row without it
                found["lower"] = found["lower"] + 0.01 * abs(found["lower"] - offset)
                found["upper"] = found["upper"] - 0.01 * abs(found["upper"] - offset)
            return found

        return replace(inner, run=run)

    return replace(crown, name=name, recipe=recipe)


@pytest.fixture
def planted(monkeypatch):
    """The plugin, discovered through its entry point."""
    module = ModuleType("made_too_tight")
    module.BOUNDFLOW_API = plugins.BOUNDFLOW_API
    methods = [
        too_tight("too-tight", (DType.FLOAT32, DType.FLOAT64)),
        too_tight("too-tight-in-float32", (DType.FLOAT32,)),
    ]

    def boundflow_register_methods():
        return methods

    module.boundflow_register_methods = plugins.hookimpl(boundflow_register_methods)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    point = EntryPoint("too_tight", module.__name__, manager.GROUP)
    found = manager.installed_entry_points()
    monkeypatch.setattr(manager, "installed_entry_points", lambda: (*found, point))
    plugins.reset()
    yield
    monkeypatch.undo()
    plugins.reset()


def net():
    """y = 100 + relu(x) + relu(-x): at least 100."""
    layers = [(np.array([[1.0], [-1.0]]), np.zeros(2)), (np.array([[1.0, 1.0]]), np.array([100.0]))]
    return network(layers)


def below(threshold):
    """Unsafe where y <= threshold, for x from 1 to 2, where y is 101 at least."""
    return Property(1, 1, (Case([1.0], [2.0], (LinearConstraints(ONE, np.array([-threshold])),)),), "test")


def options(method, **changes):
    return Options(timeout=20, executor="reference", methods=(method,), search_method=method, **changes)


def test_the_plugin_is_unsound(planted):
    """Else the tests below would show nothing."""
    region = bf.Box(np.array([[1.0]]), np.array([[2.0]]))
    found = bf.bound(net(), region, method="too-tight", executor="reference")
    assert found.lower[0, 0] > 101.5


def test_the_attack_finds_the_counterexample_first(planted):
    report = verify(net(), below(101.5), options("too-tight"))
    assert report.verdict is Verdict.FALSIFIED


def test_confirmation_takes_other_bounds(planted):
    """Wrong in float32 alone, and no attack: what is confirmed in float64 is not shown."""
    report = verify(net(), below(101.5), options("too-tight-in-float32", starts=(0, 0)))
    assert report.verdict is not Verdict.VERIFIED
    trusting = verify(net(), below(101.5), options("too-tight-in-float32", starts=(0, 0), trust_float32=True))
    assert trusting.verdict is Verdict.VERIFIED and "not confirmed" in trusting.line


def test_points_that_the_attack_met_refute_bounds(planted):
    """Wrong in float64 too, and the property holds: the bounds that would show it lie above what the network gives."""
    report = verify(net(), below(100.5), options("too-tight"))
    assert report.verdict is Verdict.UNKNOWN and "refuted" in report.reason and "too-tight" in report.reason
    sound = verify(net(), below(100.5), options("crown"))
    assert sound.verdict is Verdict.VERIFIED
