"""Matrix products and normalizations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boundflow_core.errors import IRError
from boundflow_core.frontends import compose
from boundflow_onnx.node import Converter, OnnxNode

__all__ = ["CONVERTERS"]


def _matmul(n: OnnxNode) -> Any:
    return compose.matmul(n.g, n.operand(0), n.operand(1))


def _gemm(n: OnnxNode) -> Any:
    x, y = n.operand(0), n.operand(1)
    if len(x.shape) != 2 or len(y.shape) != 2:
        raise IRError(f"Gemm takes matrices, not {list(x.shape)} and {list(y.shape)}")
    x = compose.permute(n.g, x, (1, 0)) if n.attribute("transA", 0) else x
    y = compose.permute(n.g, y, (1, 0)) if n.attribute("transB", 0) else y
    return compose.gemm(n.g, x, y, n.optional(2), n.attribute("alpha", 1.0), n.attribute("beta", 1.0))


def _batch_normalization(n: OnnxNode) -> Any:
    if n.attribute("training_mode", 0) or any(n.reads(number) for number in range(1, len(n.used))):
        n.unsupported("in training mode", "export the network for inference")
    if not n.attribute("spatial", 1):
        n.unsupported("with statistics for each position (spatial=0)")
    names = ("scales", "shifts", "means", "variances")
    scale, bias, mean, var = (n.weight(number + 1, what) for number, what in enumerate(names))
    return compose.batch_norm(n.g, n.operand(), scale, bias, mean, var, n.attribute("epsilon", 1e-5))


def _layer_normalization(n: OnnxNode) -> Any:
    if n.reads(1) or n.reads(2):
        n.unsupported("with its outputs Mean or InvStdDev")
    rank = len(n.operand().shape)
    axes = range(compose.axis_of(n.attribute("axis", -1), rank), rank)
    return compose.layer_norm(n.g, n.operand(), axes, n.operand(1), n.optional(2), n.attribute("epsilon", 1e-5))


def _instance_normalization(n: OnnxNode) -> Any:
    """Layer normalization of each channel over its positions."""
    rank = len(n.operand().shape)
    scale, bias = (compose.reshape(n.g, n.operand(number), (-1, *[1] * (rank - 2))) for number in (1, 2))
    return compose.layer_norm(n.g, n.operand(), range(2, rank), scale, bias, n.attribute("epsilon", 1e-5))


CONVERTERS: Mapping[str, Converter] = {
    "BatchNormalization": _batch_normalization,
    "Gemm": _gemm,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "MatMul": _matmul,
}
