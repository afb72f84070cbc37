"""Every tox environment finds just the plugins that it installed, no fewer and no more.

The environment says which in BOUNDFLOW_EXPECTED_PLUGINS, a comma-separated list of names that may be empty.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os

import pytest

EXPECTED = os.environ.get("BOUNDFLOW_EXPECTED_PLUGINS")

if EXPECTED is None:
    pytest.skip("BOUNDFLOW_EXPECTED_PLUGINS is not set: only tox knows what was selected", allow_module_level=True)


def expected() -> list[str]:
    return sorted(filter(None, (EXPECTED or "").split(",")))


def test_entry_points_are_the_selected_plugins() -> None:
    found = importlib.metadata.entry_points(group="boundflow.plugins")
    assert sorted(point.name for point in found) == expected()


def test_installed_distributions_are_the_selected_ones() -> None:
    names = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    found = sorted(name for name in names if name.startswith("boundflow-"))
    assert found == sorted(["boundflow-core", *(f"boundflow-{name}" for name in expected())])


def test_no_torch_unless_everything_is_installed() -> None:
    """Core, interval and onnx must work without torch, so their environments must not have it by accident."""
    wanted = os.environ.get("BOUNDFLOW_EXPECTED_TORCH") == "1"
    assert (importlib.util.find_spec("torch") is not None) == wanted


def test_plugin_manager_uses_the_selected_plugins() -> None:
    """Whatever is not the core's own is active, and is what was selected."""
    if importlib.util.find_spec("boundflow_core.plugins") is None:
        pytest.skip("the core has no plugin manager yet")
    from boundflow_core import plugins

    others = [record for record in plugins.records() if record.distribution != "boundflow-core"]
    assert sorted(record.name for record in others) == expected()
    assert {str(getattr(record.status, "value", record.status)) for record in others} <= {"active"}
