"""Tests of the compiler keep compiled code in a folder of their own."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def kernels(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOUNDFLOW_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
