"""BoundFlow: guaranteed bounds on neural networks, compiled.

``load`` a network, describe a region (``Box``, ``LpBall``) and ``bound`` its outputs::

    import boundflow_core as bf

    graph = bf.load("net.onnx")
    bounds = bf.bound(graph, bf.LpBall(center, 0.03), method="ibp", spec=bf.LinearSpec(C))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boundflow_core.api import bound, compile, load, read_property
    from boundflow_core.batching import BatchRunner
    from boundflow_core.compiled import Bounds, CompiledBounds
    from boundflow_core.constraints import ConstraintStore
    from boundflow_core.errors import BoundFlowError
    from boundflow_core.forward import evaluate_graph
    from boundflow_core.property import Property
    from boundflow_core.regions import Box, LpBall
    from boundflow_core.specs import LinearSpec
    from boundflow_core.splits import SplitState

__version__ = "0.1.0"

# Names are imported when they are first used, so that importing the package stays quick.
_HOMES = {
    "BatchRunner": "batching",
    "BoundFlowError": "errors",
    "Bounds": "compiled",
    "Box": "regions",
    "CompiledBounds": "compiled",
    "ConstraintStore": "constraints",
    "LinearSpec": "specs",
    "LpBall": "regions",
    "Property": "property",
    "SplitState": "splits",
    "bound": "api",
    "compile": "api",
    "evaluate_graph": "forward",
    "load": "api",
    "read_property": "api",
}

__all__ = [
    "BatchRunner",
    "BoundFlowError",
    "Bounds",
    "Box",
    "CompiledBounds",
    "ConstraintStore",
    "LinearSpec",
    "LpBall",
    "Property",
    "SplitState",
    "bound",
    "compile",
    "evaluate_graph",
    "load",
    "read_property",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
