"""A first test until the package has its own."""

from __future__ import annotations

import importlib.util


def test_importable() -> None:
    assert importlib.util.find_spec("boundflow_onnx") is not None
