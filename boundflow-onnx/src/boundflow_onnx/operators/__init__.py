"""Converters: how each ONNX operator is written in normalized ones.

One small function an operator, which handles the attributes of all supported opsets; one table a topic, joined here.
Operators that are only ever applied to constants need none: see :mod:`boundflow_onnx.fold`.
"""

from __future__ import annotations

from collections.abc import Mapping

from boundflow_onnx.node import Converter
from boundflow_onnx.operators import affine, elementwise, layout, reductions, resize, windows

__all__ = ["CONVERTERS"]

CONVERTERS: Mapping[str, Converter] = {
    **elementwise.CONVERTERS,
    **affine.CONVERTERS,
    **windows.CONVERTERS,
    **reductions.CONVERTERS,
    **layout.CONVERTERS,
    **resize.CONVERTERS,
}
