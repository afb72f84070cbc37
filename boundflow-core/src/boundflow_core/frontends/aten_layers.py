"""Converters of ATen's layers: products with weights, convolutions, pools, normalizations, attention, resampling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.frontends import compose
from boundflow_core.frontends.aten_call import Call, Converter, Refused, constant_values, each, operand
from boundflow_core.ir.constants import Constant, frozen
from boundflow_core.ir.primal_builder import Operand

__all__ = ["LAYERS"]

# What a score that a mask excludes becomes: so low that its exponential is 0 in float32 and float64 beside any other.
_EXCLUDED = -1e30


# -- products ---------------------------------------------------------------------------------------------------------


def _linear(call: Call, x: Operand, weight: Operand, bias: Operand | None = None) -> Any:
    if len(weight.shape) == 1:  # one output without an axis
        y = compose.matmul(call.g, x, weight)
        return y if bias is None else call.g.add(y, bias)
    return compose.linear(call.g, x, weight, bias)


def _matmul(call: Call, x: Operand, y: Operand) -> Any:
    return compose.matmul(call.g, x, y)


def _addmm(call: Call, c: Operand, x: Operand, y: Operand, beta: float = 1, alpha: float = 1) -> Any:
    return compose.gemm(call.g, x, y, operand(call, c), float(alpha), float(beta))


def _baddbmm(call: Call, c: Operand, x: Operand, y: Operand, beta: float = 1, alpha: float = 1) -> Any:
    g = call.g
    product = compose.matmul(g, x, y)
    product = product if alpha == 1 else g.mul(product, g.scalar(float(alpha)))
    return g.add(product, operand(call, c) if beta == 1 else g.mul(operand(call, c), g.scalar(float(beta))))


# -- convolutions -----------------------------------------------------------------------------------------------------


def _same_padding(total: int) -> tuple[int, int]:
    return total // 2, total - total // 2


def _conv(
    call: Call,
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Any:
    spatial = _spatial(weight)
    steps = each(dilation, spatial)
    if padding == "same":
        pairs = [_same_padding(d * (k - 1)) for d, k in zip(steps, weight.shape[2:], strict=True)]
    else:
        pairs = [(p, p) for p in each(0 if isinstance(padding, str) else padding, spatial)]
    return compose.convolution(call.g, x, weight, bias, each(stride, spatial), pairs, steps, groups)


def _conv_transpose(
    call: Call,
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Any:
    n = _spatial(weight)
    pairs = [(p, p) for p in each(padding, n)]
    extra = each(output_padding, n)
    return compose.conv_transpose(call.g, x, weight, bias, each(stride, n), pairs, each(dilation, n), groups, extra)


def _convolution(
    call: Call, x: Operand, weight: Operand, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    if transposed:
        return _conv_transpose(call, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _conv(call, x, weight, bias, stride, padding, dilation, groups)


def _spatial(weight: Operand) -> int:
    count = len(weight.shape) - 2
    if count not in (1, 2):
        raise Refused(f"convolutions have one or two spatial axes here, not {count}")
    return count


# -- pools ------------------------------------------------------------------------------------------------------------


def _max_pool(spatial: int) -> Converter:
    def convert(
        call: Call, x: Operand, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
    ) -> Any:
        sizes = each(kernel, spatial)
        pairs = [(p, p) for p in each(padding, spatial)]
        steps = each(stride, spatial) or sizes
        return compose.max_pool(call.g, x, sizes, steps, pairs, each(dilation, spatial), ceil_mode=ceil)

    return _with_kwargs(convert, {"kernel_size": "kernel", "ceil_mode": "ceil"})


def _average_pool(spatial: int) -> Converter:
    def convert(
        call: Call, x: Operand, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Any:  # fmt: skip
        sizes = each(kernel, spatial)
        if divisor_override is not None and (ceil or not count_include_pad):
            raise Refused("divisor_override together with ceil_mode or without count_include_pad")
        pooled = compose.average_pool(
            call.g, x, sizes, each(stride, spatial) or sizes, [(p, p) for p in each(padding, spatial)],
            ceil_mode=ceil, count_include_pad=count_include_pad,
        )  # fmt: skip
        if divisor_override is None:
            return pooled
        return call.g.mul(pooled, call.g.scalar(math.prod(sizes) / divisor_override))

    return _with_kwargs(convert, {"kernel_size": "kernel", "ceil_mode": "ceil"})


def _with_kwargs(convert: Converter, names: Mapping[str, str]) -> Converter:
    return lambda call, *args, **kwargs: convert(call, *args, **{names.get(k, k): v for k, v in kwargs.items()})


def _adaptive_average_pool(spatial: int) -> Converter:
    def convert(call: Call, x: Operand, output_size: Any) -> Any:
        sizes, targets = x.shape[-spatial:], call.shape[-spatial:]
        if all(target == 1 for target in targets):
            return compose.global_average_pool(call.g, x, spatial)
        if all(size % target == 0 for size, target in zip(sizes, targets, strict=True)):
            kernel = [size // target for size, target in zip(sizes, targets, strict=True)]
            return compose.average_pool(call.g, x, kernel, kernel, [(0, 0)] * spatial)
        axes = range(len(x.shape) - spatial, len(x.shape))
        return compose.resize_linear(call.g, x, {axis: _bins(x.shape[axis], call.shape[axis]) for axis in axes})

    return convert


def _bins(n_in: int, n_out: int) -> NDArray[np.float64]:
    """Weights [n_out, n_in] of means over the bins floor(i n_in / n_out) to ceil((i + 1) n_in / n_out)."""
    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        low, high = i * n_in // n_out, -(-(i + 1) * n_in // n_out)
        matrix[i, low:high] = 1.0 / (high - low)
    return matrix


def _adaptive_max_pool(spatial: int) -> Converter:
    def convert(call: Call, x: Operand, output_size: Any) -> Any:
        sizes, targets = x.shape[-spatial:], call.shape[-spatial:]
        if any(size % target for size, target in zip(sizes, targets, strict=True)):
            raise Refused(f"the output {list(targets)} does not divide the input {list(sizes)}")
        kernel = [size // target for size, target in zip(sizes, targets, strict=True)]
        return compose.max_pool(call.g, x, kernel, kernel, [(0, 0)] * spatial), None

    return convert


# -- normalizations ---------------------------------------------------------------------------------------------------


def _batch_norm(
    call: Call, x: Operand, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float,
    cudnn_enabled: bool = False,
) -> Any:  # fmt: skip
    if training or mean is None or var is None:
        raise Refused(
            "it takes mean and variance from the batch; put the module into eval mode (before exporting it yourself), "
            "and give it running statistics"
        )
    return compose.batch_norm(call.g, x, weight, bias, mean, var, float(eps))


def _batch_norm_inference(
    call: Call, x: Operand, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float
) -> Any:
    return _batch_norm(call, x, weight, bias, mean, var, False, momentum, eps), None, None


def _batch_norm_training(call: Call, x: Operand, *args: Any) -> Any:
    return _batch_norm(call, x, None, None, None, None, True, 0.0, 0.0)


def _layer_norm(
    call: Call, x: Operand, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5,
    cudnn_enable: bool = False,
) -> Any:  # fmt: skip
    axes = range(-len(normalized_shape), 0)
    return compose.layer_norm(call.g, x, axes, weight, bias, float(eps))


def _native_layer_norm(
    call: Call, x: Operand, normalized_shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> Any:
    return _layer_norm(call, x, normalized_shape, weight, bias, eps), None, None


def _group_norm(
    call: Call, x: Operand, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn: bool = False
) -> Any:
    """Each group of channels, with its spatial axes, is normalized as in a layer norm; scale and shift per channel."""
    g, (batch, channels, *spatial) = call.g, x.shape
    apart = compose.reshape(g, x, (batch, groups, -1))
    y = compose.reshape(g, compose.layer_norm(g, apart, [-1], None, None, float(eps)), x.shape)
    per_channel = (channels, *[1] * len(spatial))
    y = y if weight is None else g.mul(y, compose.reshape(g, weight, per_channel))
    return y if bias is None else g.add(y, compose.reshape(g, bias, per_channel))


def _native_group_norm(
    call: Call, x: Operand, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int, eps: float
) -> Any:
    return _group_norm(call, x, groups, weight, bias, eps), None, None


def _instance_norm(
    call: Call, x: Operand, weight: Any, bias: Any, mean: Any, var: Any, use_input_stats: bool, momentum: float,
    eps: float, cudnn_enabled: bool = False,
) -> Any:  # fmt: skip
    if use_input_stats:
        return _group_norm(call, x, x.shape[1], weight, bias, eps)
    return compose.batch_norm(call.g, x, weight, bias, mean, var, float(eps))


# -- attention --------------------------------------------------------------------------------------------------------


def _softmax(call: Call, x: Operand, dim: int, *args: Any, **kwargs: Any) -> Any:
    return call.g.op("softmax", x, axis=compose.axis_of(dim, len(x.shape)))


def _log_softmax(call: Call, x: Operand, dim: int, *args: Any, **kwargs: Any) -> Any:
    return compose.log_softmax(call.g, x, dim)


def _attention(
    call: Call, query: Operand, key: Operand, value: Operand, attn_mask: Operand | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """softmax(query key^T * scale + mask) value, scale 1/sqrt(d) by default (torch's scaled_dot_product_attention)."""
    if dropout_p or enable_gqa:
        raise Refused("dropout and grouped queries in attention have no counterpart")
    g, axes = call.g, list(range(len(key.shape)))
    transposed = compose.permute(g, key, (*axes[:-2], axes[-1], axes[-2]))
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    scores = g.mul(compose.matmul(g, query, transposed), g.scalar(factor))
    if is_causal:
        scores = _masked(call, scores, np.tril(np.ones(scores.shape[-2:], dtype=bool)))
    elif isinstance(attn_mask, Constant) and not attn_mask.type.dtype.is_float:
        scores = _masked(call, scores, constant_values(attn_mask, "the mask"))
    elif attn_mask is not None:
        scores = g.add(scores, attn_mask)
    return compose.matmul(g, g.op("softmax", scores, axis=len(scores.shape) - 1), value)


def _masked(call: Call, scores: Operand, keep: NDArray[Any]) -> Any:
    keep = keep.astype(bool)
    if not keep.any(axis=-1).all():
        raise Refused("the mask excludes every key of a query, where attention is not defined")
    return call.g.op("where", frozen(keep), scores, call.g.scalar(_EXCLUDED))


# -- resampling -------------------------------------------------------------------------------------------------------


def _upsample_nearest(op: str) -> Converter:
    """Which element is nearest is asked of torch itself: a coordinate on a border is decided by its rounding."""

    def convert(call: Call, x: Operand, *args: Any) -> Any:
        import torch

        target = getattr(torch.ops.aten, op)
        indices = {}
        for axis in range(2, len(x.shape)):
            ramp = np.arange(x.shape[axis], dtype=np.float32).reshape(
                [-1 if a == axis else 1 for a in range(len(x.shape))]
            )
            image = torch.from_numpy(np.broadcast_to(ramp, (1, 1, *x.shape[2:])).copy())
            moved = np.moveaxis(target(image, *args).numpy(), axis, 0)
            indices[axis] = moved.reshape(moved.shape[0], -1)[:, 0].astype(np.int64)
        return compose.resize_nearest(call.g, x, indices)

    return convert


def _upsample_linear(call: Call, x: Operand, size: Any, align_corners: bool, *scales: Any) -> Any:
    """Linear along each spatial axis in turn; ``scales`` are one list (overload vec), or one number each."""
    spatial = len(x.shape) - 2
    if len(scales) == 1 and not isinstance(scales[0], (int, float)):
        scales = tuple(scales[0] or ())
    factors = list(scales) or [None] * spatial
    coordinates = "align_corners" if align_corners else "half_pixel"
    return compose.resize_linear(
        call.g, x,
        {
            axis: compose.linear_matrix(x.shape[axis], call.shape[axis], factors[axis - 2], coordinates)
            for axis in range(2, len(x.shape))
        },
    )  # fmt: skip


LAYERS: Mapping[str, Converter] = {
    "aten._adaptive_avg_pool2d": _adaptive_average_pool(2),
    "aten._log_softmax": _log_softmax,
    "aten._native_batch_norm_legit": _batch_norm_training,
    "aten._native_batch_norm_legit_functional": _batch_norm_training,
    "aten._native_batch_norm_legit_no_training": _batch_norm_inference,
    "aten._safe_softmax": _softmax,
    "aten._softmax": _softmax,
    "aten._upsample_nearest_exact1d": _upsample_nearest("_upsample_nearest_exact1d"),
    "aten._upsample_nearest_exact2d": _upsample_nearest("_upsample_nearest_exact2d"),
    "aten.adaptive_avg_pool1d": _adaptive_average_pool(1),
    "aten.adaptive_avg_pool2d": _adaptive_average_pool(2),
    "aten.adaptive_max_pool1d": _adaptive_max_pool(1),
    "aten.adaptive_max_pool2d": _adaptive_max_pool(2),
    "aten.addmm": _addmm,
    "aten.avg_pool1d": _average_pool(1),
    "aten.avg_pool2d": _average_pool(2),
    "aten.baddbmm": _baddbmm,
    "aten.batch_norm": _batch_norm,
    "aten.bmm": _matmul,
    "aten.conv1d": _conv,
    "aten.conv2d": _conv,
    "aten.conv_transpose1d": _conv_transpose,
    "aten.conv_transpose2d": _conv_transpose,
    "aten.convolution": _convolution,
    "aten.dot": _matmul,
    "aten.group_norm": _group_norm,
    "aten.instance_norm": _instance_norm,
    "aten.layer_norm": _layer_norm,
    "aten.linear": _linear,
    "aten.log_softmax": _log_softmax,
    "aten.matmul": _matmul,
    "aten.max_pool1d": _max_pool(1),
    "aten.max_pool2d": _max_pool(2),
    "aten.max_pool2d_with_indices": lambda call, *args, **kwargs: (_max_pool(2)(call, *args, **kwargs), None),
    "aten.mm": _matmul,
    "aten.mv": _matmul,
    "aten.native_group_norm": _native_group_norm,
    "aten.native_layer_norm": _native_layer_norm,
    "aten.scaled_dot_product_attention": _attention,
    "aten.softmax": _softmax,
    "aten.upsample_bilinear2d": _upsample_linear,
    "aten.upsample_linear1d": _upsample_linear,
    "aten.upsample_nearest1d": _upsample_nearest("upsample_nearest1d"),
    "aten.upsample_nearest2d": _upsample_nearest("upsample_nearest2d"),
}
