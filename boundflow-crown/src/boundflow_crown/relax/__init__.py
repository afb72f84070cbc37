"""Relaxations: for each activation, lines below and above it over an interval. The table is at the bottom."""

from __future__ import annotations

from collections.abc import Mapping

from boundflow_crown.lines import Relaxation
from boundflow_crown.relax.piecewise import absolute, leaky_relu, relu

__all__ = ["RELAXATIONS"]

RELAXATIONS: Mapping[str, Relaxation] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "abs": absolute,
}
