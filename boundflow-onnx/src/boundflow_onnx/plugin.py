"""What this distribution brings to BoundFlow. Light: onnx is imported when a network is read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from boundflow_core.extension import Frontend, PropertyReader
from boundflow_core.plugins import hookimpl

if TYPE_CHECKING:
    from boundflow_core.ir.primal import PrimalGraph
    from boundflow_core.property import Property

BOUNDFLOW_API = (1, 0)

_SUFFIXES = (".onnx",)


def _accepts(source: Any) -> bool:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source).endswith(_SUFFIXES)
    return type(source).__name__ == "ModelProto" and type(source).__module__.split(".")[0] == "onnx"


def _load(source: Any, **options: Any) -> PrimalGraph:
    from boundflow_onnx.frontend import load_onnx

    return load_onnx(source, **options)


def _read(path: Any) -> Property:
    from boundflow_onnx.vnnlib import read_vnnlib

    return read_vnnlib(path)


@hookimpl
def boundflow_register_frontends() -> list[Frontend]:
    return [
        Frontend(
            name="onnx",
            doc="ONNX networks, opsets 8 to 21",
            accepts=_accepts,
            load=_load,
            suffixes=_SUFFIXES,
            options=("dims", "output", "converters"),
        )
    ]


@hookimpl
def boundflow_register_property_readers() -> list[PropertyReader]:
    return [PropertyReader("vnnlib", "VNN-LIB 1.0 properties", (".vnnlib",), _read)]
