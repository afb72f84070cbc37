"""Operators outside the normalized set, written in normalized ones.

Pure functions of a :class:`~boundflow_core.ir.primal_builder.PrimalBuilder` ``g`` and operands (tensors that depend on
the input, or constants). They are shared by all frontends: the same network must give the same graph through each.
Weights are only combined through ``g``, never read, so that live constants (weights in training) stay live. What leaves
its operand as it is (a reshape to the same shape, a slice of everything) writes nothing. Axes may be negative.

All raise :class:`~boundflow_core.errors.IRError` on operands that do not fit.
"""

from boundflow_core.frontends.compose.affine import gemm, linear, matmul, reduce_mean
from boundflow_core.frontends.compose.functions import (
    batch_norm,
    elu,
    hard_sigmoid,
    layer_norm,
    log_softmax,
    power,
    silu,
)
from boundflow_core.frontends.compose.layout import (
    axis_of,
    concat,
    expand,
    flatten,
    gather,
    pad,
    permute,
    reshape,
    slice_,
    split,
    squeeze,
    tile,
    unsqueeze,
)
from boundflow_core.frontends.compose.resize import (
    apply_along,
    linear_matrix,
    nearest_index,
    resize_linear,
    resize_nearest,
)
from boundflow_core.frontends.compose.windows import (
    average_pool,
    conv_transpose,
    convolution,
    global_average_pool,
    max_pool,
)

__all__ = [
    "apply_along",
    "average_pool",
    "axis_of",
    "batch_norm",
    "concat",
    "conv_transpose",
    "convolution",
    "elu",
    "expand",
    "flatten",
    "gather",
    "gemm",
    "global_average_pool",
    "hard_sigmoid",
    "layer_norm",
    "linear",
    "linear_matrix",
    "log_softmax",
    "matmul",
    "max_pool",
    "nearest_index",
    "pad",
    "permute",
    "power",
    "reduce_mean",
    "reshape",
    "resize_linear",
    "resize_nearest",
    "silu",
    "slice_",
    "split",
    "squeeze",
    "tile",
    "unsqueeze",
]
