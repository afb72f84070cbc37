"""Small networks, regions, and the comparison of bounds, for tests of whole methods on compiled kernels."""

from __future__ import annotations

import numpy as np
from crown_networks import residual, small_mlp

import boundflow_core as bf
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.normalize import normalize

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def small_cnn(seed: int, channels: int = 3):
    """Two convolutions, of stride 2 and 1, with odd sizes, and two linear layers."""
    rng = np.random.default_rng(seed)
    g = PrimalBuilder("cnn", "x", (2, 7, 5))
    window = {"dilation": (1, 1), "groups": 1}
    w = rng.standard_normal((channels, 2, 3, 3)) / 3
    y = g.op("conv2d", g.input, w, rng.standard_normal(channels), stride=(2, 2), padding=(1, 1, 1, 1), **window)
    y = g.op("relu", y)
    w = rng.standard_normal((4, channels, 2, 2)) / 2
    y = g.op("conv2d", y, w, rng.standard_normal(4), stride=(1, 1), padding=(0, 1, 1, 0), **window)
    y = g.op("relu", y)
    count = 4 * 4 * 3
    y = g.op("reshape", y, shape=(count,))
    y = g.op("relu", g.op("linear", y, rng.standard_normal((9, count)) / 4, rng.standard_normal(9)))
    y = g.op("linear", y, rng.standard_normal((3, 9)), rng.standard_normal(3))
    return normalize(g.finish(y), batch_axis=False)


def region_of(graph, batch, seed, radius=0.1):
    centre = np.random.default_rng(seed).standard_normal((batch, *graph.input_type.shape))
    return bf.Box(centre - radius, centre + radius)


GRAPHS = {
    "mlp": lambda: small_mlp(1),
    "tanh": lambda: small_mlp(2, "tanh"),
    "residual": residual,
    "cnn": lambda: small_cnn(3),
}


def check_close(got, want, dtype):
    """Bounds (lower, upper), of any arrays on the CPU, equal to rounding beside the largest of them."""
    for one, other in zip(got, want, strict=True):
        tolerance = TOLERANCE[dtype]
        scale = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * scale)
