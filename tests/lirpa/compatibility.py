"""Makes auto_LiRPA 0.3 work beside a torch and a NumPy that are years younger than it.

Four things that it uses are gone or have changed. They are put back where it looks for them, for this process alone.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["load"]


def load() -> ModuleType:
    """The module ``auto_LiRPA``, ready for use."""
    _numpy_isin()
    _torch_opset_version()
    _torch_node_attributes()
    import auto_LiRPA

    _members_without_duplicates(auto_LiRPA.BoundedModule)
    return auto_LiRPA


def _numpy_isin() -> None:
    """It imports ``isin`` from a private module that NumPy 2 has renamed."""
    name = "numpy.lib.arraysetops"
    if name not in sys.modules:
        module = ModuleType(name)
        module.isin = np.isin  # type: ignore[attr-defined]
        sys.modules[name] = module


def _torch_opset_version() -> None:
    """It sets the version of ONNX that the tracer writes, by a function that now lives with the exporter's globals."""
    symbolic_helper = importlib.import_module("torch.onnx.symbolic_helper")  # not torch.onnx.symbolic_helper
    if hasattr(symbolic_helper, "_set_opset_version"):
        return
    try:
        from torch.onnx._internal.torchscript_exporter._globals import GLOBALS
    except ImportError:
        from torch.onnx._globals import GLOBALS

    def set_version(version: int) -> None:
        GLOBALS.export_onnx_opset_version = version

    symbolic_helper._set_opset_version = set_version  # type: ignore[attr-defined]


def _torch_node_attributes() -> None:
    """It reads attributes of the tracer's nodes as ``node[name]``."""
    from torch._C import Node

    def attribute(node: Any, name: str) -> Any:
        return getattr(node, node.kindOf(name))(name)

    if not hasattr(Node, "__getitem__"):
        Node.__getitem__ = attribute


def _members_without_duplicates(bounded: Any) -> None:
    """It overrides a method of torch's modules that has gained a parameter since."""
    original = bounded._named_members
    if "remove_duplicate" in inspect.signature(original).parameters:
        return

    def members(self: Any, get_members: Any, prefix: str = "", recurse: bool = True, **_: Any) -> Any:
        return original(self, get_members, prefix, recurse)

    bounded._named_members = members
