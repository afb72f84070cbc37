"""What all tests share: deterministic Hypothesis runs, and the folder of benchmarks beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# No deadline: how fast the machine is says nothing about a bound.
settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci", deadline=None, derandomize=True, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """The root of the checkout that the tests belong to."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder ``shared`` beside the repository (benchmarks and reference values); skips where there is none."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no benchmarks and references here: {folder.name}/ is not beside the repository")
    return folder
