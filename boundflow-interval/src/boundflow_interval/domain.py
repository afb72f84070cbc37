"""The domain ``interval``: its rule per operator is the table below."""

from __future__ import annotations

from collections.abc import Mapping

from boundflow_core.extension import Domain, Rule
from boundflow_interval.rules.affine import conv2d, conv_transpose2d, linear
from boundflow_interval.rules.arithmetic import matmul, monotone, moving, mul
from boundflow_interval.rules.functions import (
    absolute,
    cos,
    gelu,
    increasing_function,
    leaky_relu,
    power,
    reciprocal,
    sign,
    sin,
)
from boundflow_interval.rules.softmax import softmax

__all__ = ["INTERVAL", "RULES"]

RULES: Mapping[str, Rule] = {
    # affine
    "linear": linear,
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "reduce_sum": monotone,
    # arithmetic of two
    "add": monotone,
    "mul": mul,
    "matmul": matmul,
    "maximum": monotone,
    "minimum": monotone,
    "where": monotone,
    # layout
    "reshape": moving,
    "permute": moving,
    "expand": monotone,
    "slice": monotone,
    "pad": monotone,
    "concat": monotone,
    "gather": monotone,
    # activations and other functions of one
    "relu": monotone,
    "leaky_relu": leaky_relu,
    "clip": monotone,
    "sigmoid": increasing_function,
    "tanh": increasing_function,
    "erf": increasing_function,
    "gelu": gelu,
    "softplus": increasing_function,
    "exp": increasing_function,
    "log": increasing_function,
    "sqrt": increasing_function,
    "reciprocal": reciprocal,
    "pow": power,
    "abs": absolute,
    "sign": sign,
    "floor": monotone,
    "sin": sin,
    "cos": cos,
    # several elements into one
    "softmax": softmax,
    "max_pool2d": monotone,
    "reduce_max": monotone,
    "reduce_min": monotone,
}

INTERVAL = Domain("interval", "lower and upper bound of every element", RULES)
