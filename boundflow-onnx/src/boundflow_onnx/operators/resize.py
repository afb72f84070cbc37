"""Resize and its predecessor Upsample: nearest, and linear as the linear map it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boundflow_core.errors import IRError
from boundflow_core.frontends import compose
from boundflow_onnx.node import Converter, OnnxNode

__all__ = ["CONVERTERS"]


@dataclass(frozen=True)
class _Axis:
    """Resampling along one axis: sizes before and after, and the factor that coordinates are computed with."""

    n_in: int
    n_out: int
    scale: float


def _by_scales(shape: tuple[int, ...], axes: list[int], scales: list[float]) -> dict[int, _Axis]:
    if len(scales) != len(axes) or any(not scale > 0 for scale in scales):
        raise IRError(f"scales {scales} do not fit axes {axes} of {list(shape)}")
    sizes = {
        axis: (shape[axis], math.floor(shape[axis] * scale), scale) for axis, scale in zip(axes, scales, strict=True)
    }
    if any(n_out < 1 for _, n_out, _ in sizes.values()):
        raise IRError(f"scales {scales} leave nothing of {list(shape)}")
    return {axis: _Axis(*size) for axis, size in sizes.items()}


def _by_sizes(shape: tuple[int, ...], axes: list[int], sizes: list[int]) -> dict[int, _Axis]:
    if len(sizes) != len(axes) or any(size < 1 for size in sizes):
        raise IRError(f"sizes {sizes} do not fit axes {axes} of {list(shape)}")
    return {axis: _Axis(shape[axis], size, size / shape[axis]) for axis, size in zip(axes, sizes, strict=True)}


def _resampled(n: OnnxNode, axes: Mapping[int, _Axis], coordinates: str, nearest: str) -> Any:
    """``x`` resampled along the axes that change."""
    mode = n.attribute("mode", "nearest")
    changed = {axis: s for axis, s in axes.items() if (s.n_in, s.scale) != (s.n_out, 1.0)}
    if mode == "nearest":
        indices = {
            axis: compose.nearest_index(s.n_in, s.n_out, s.scale, coordinates, nearest) for axis, s in changed.items()
        }
        return compose.resize_nearest(n.g, n.operand(), indices)
    if mode in ("linear", "bilinear"):
        matrices = {axis: compose.linear_matrix(s.n_in, s.n_out, s.scale, coordinates) for axis, s in changed.items()}
        return compose.resize_linear(n.g, n.operand(), matrices)
    return n.unsupported(f"with mode={mode!r}", "only nearest and linear are supported")


def _upsample(n: OnnxNode) -> Any:
    """Scales are an attribute before opset 9."""
    shape = n.operand().shape
    scales = n.attribute("scales") if n.opset < 9 else n.array(1, "scales").ravel().tolist()
    return _resampled(n, _by_scales(shape, list(range(len(shape))), list(scales)), "asymmetric", "floor")


def _resize(n: OnnxNode) -> Any:
    """Opset 10 has scales alone; 11 brings sizes and coordinate modes, 18 a choice of axes."""
    if n.opset < 11:
        return _upsample(n)
    shape = n.operand().shape
    axes = [compose.axis_of(axis, len(shape)) for axis in n.attribute("axes", range(len(shape)))]
    coordinates = n.attribute("coordinate_transformation_mode", "half_pixel")
    if coordinates == "tf_crop_and_resize":
        n.unsupported("with coordinate_transformation_mode='tf_crop_and_resize'")
    if n.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        n.unsupported("with a keep_aspect_ratio_policy", "give the sizes that it leads to")
    scales = n.array(2, "scales").ravel().tolist() if n.has(2) else []
    chosen = _by_scales(shape, axes, scales) if scales else _by_sizes(shape, axes, n.integers(3, "sizes"))
    if n.attribute("antialias", 0) and any(s.n_out < s.n_in for s in chosen.values()):
        n.unsupported("with antialias")
    return _resampled(n, chosen, coordinates, n.attribute("nearest_mode", "round_prefer_floor"))


CONVERTERS: Mapping[str, Converter] = {
    "Resize": _resize,
    "Upsample": _upsample,
}
