"""Relaxations: for each activation, lines below and above it over an interval. The table is at the bottom.

All give NaN or infinite biases where no finite line is known to hold, and for points l = u lines through the point.
"""

from __future__ import annotations

from collections.abc import Mapping

from boundflow_crown.lines import Relaxation
from boundflow_crown.relax.gelus import gelu
from boundflow_crown.relax.piecewise import absolute, clip, leaky_relu, relu
from boundflow_crown.relax.powers import power, reciprocal
from boundflow_crown.relax.s_shaped import erf, sigmoid, tanh
from boundflow_crown.relax.smooth import exp, log, softplus, sqrt
from boundflow_crown.relax.steps import floor, sign
from boundflow_crown.relax.waves import cos, sin

__all__ = ["RELAXATIONS"]

RELAXATIONS: Mapping[str, Relaxation] = {
    # piecewise linear
    "relu": relu,
    "leaky_relu": leaky_relu,
    "abs": absolute,
    "clip": clip,
    # steps
    "sign": sign,
    "floor": floor,
    # convex left and concave right
    "sigmoid": sigmoid,
    "tanh": tanh,
    "erf": erf,
    # convex or concave
    "softplus": softplus,
    "exp": exp,
    "log": log,
    "sqrt": sqrt,
    # both, depending on the interval
    "gelu": gelu,
    "pow": power,
    "reciprocal": reciprocal,
    "sin": sin,
    "cos": cos,
}
