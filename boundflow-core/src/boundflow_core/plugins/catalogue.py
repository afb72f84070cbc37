"""Which distribution is known to bring what: only for saying what to install. Nothing here is imported or looked up
for any other purpose, and what is missing here works just as well."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["KNOWN_DISTRIBUTIONS"]

KNOWN_DISTRIBUTIONS: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("domain", "interval"): "boundflow-interval",
        ("domain", "linear"): "boundflow-crown",
        ("method", "ibp"): "boundflow-interval",
        ("method", "crown-ibp"): "boundflow-crown",
        ("method", "crown"): "boundflow-crown",
        ("method", "alpha-crown"): "boundflow-crown",
        ("frontend", ".onnx"): "boundflow-onnx",
        ("property reader", ".vnnlib"): "boundflow-onnx",
        ("executor", "tvm"): "boundflow-tvm",
        ("lowering strategy", "call_tir"): "boundflow-tvm",
        ("lowering strategy", "relax_vm"): "boundflow-tvm",
        ("command", "verify"): "boundflow-bab",
    }
)
