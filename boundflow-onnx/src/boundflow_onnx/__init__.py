"""ONNX networks and VNN-LIB properties for BoundFlow.

``load_onnx(path)`` reads a network, ``read_vnnlib(path)`` a property. With this distribution installed,
``boundflow_core.load("net.onnx")`` finds the former by itself. Importing this package imports no onnx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boundflow_onnx.frontend import load_onnx
    from boundflow_onnx.vnnlib import read_vnnlib

__all__ = ["load_onnx", "read_vnnlib"]

_PUBLIC = {"load_onnx": "frontend", "read_vnnlib": "vnnlib"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
