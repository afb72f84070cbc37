"""Bounds against auto_LiRPA 0.3, run live on random networks: IBP, CROWN-IBP and CROWN with each choice of slopes.

It refines the neurons that are unstable in any region of a batch, so it is given one region at a time; ours get all of
them at once. It takes the bounds of the last pass as they are: ours do with ``intersect=False``.
"""

from __future__ import annotations

from typing import Any

import compatibility
import numpy as np
import pytest
import torch
from torch import nn

import boundflow_core as bf

auto_LiRPA = compatibility.load()

METHODS = {"IBP": "ibp", "CROWN-IBP": "crown-ibp", "CROWN": "crown"}
SLOPES = {"adaptive": "adaptive", "same-slope": "same", "zero-lb": "zero", "one-lb": "one"}
REGIONS = 3


class Residual(nn.Module):
    """Two convolutions with a skip past them, by identity or by a convolution with stride."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(4, channels if stride == 1 else 5, 3, padding=1)
        self.skip = nn.Identity() if stride == 1 else nn.Conv2d(channels, 5, 1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.skip(x))


def mlp(rng: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    widths = [int(w) for w in rng.integers(2, 14, size=rng.integers(2, 6))]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in zip([12, *widths], widths, strict=False):
        layers += [nn.Linear(before, after, bias=bool(rng.random() < 0.8)), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 4)), (12,)


def cnn(rng: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    shape, channels = (2, 8, 7), 2
    layers: list[nn.Module] = []
    for _ in range(int(rng.integers(1, 4))):
        out = int(rng.integers(2, 5))
        kernel, stride, padding = (int(v) for v in (rng.integers(2, 4), rng.integers(1, 3), rng.integers(0, 2)))
        layers += [nn.Conv2d(channels, out, kernel, stride=stride, padding=padding), nn.ReLU()]
        channels = out
    return _headed(layers, shape, rng), shape


def residual(rng: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    shape = (2, 6, 6)
    layers: list[nn.Module] = [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), Residual(3, 1), Residual(3, 2)]
    return _headed(layers, shape, rng), shape


def _headed(layers: list[nn.Module], shape: tuple[int, ...], rng: np.random.Generator) -> nn.Module:
    body = nn.Sequential(*layers, nn.Flatten())
    count = body(torch.zeros(1, *shape)).shape[1]
    return nn.Sequential(body, nn.Linear(count, int(rng.integers(2, 9))), nn.ReLU(), nn.LazyLinear(4))


BUILDERS = {"mlp": mlp, "cnn": cnn, "residual": residual}


def network(kind: str, seed: int, dtype: torch.dtype) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network, centers of regions and specification rows, all from the seed alone."""
    torch.manual_seed(seed)
    model, shape = BUILDERS[kind](np.random.default_rng(seed))
    x = torch.randn(REGIONS, *shape)
    model(x)  # makes lazy layers
    return model.to(dtype).eval(), x.to(dtype), torch.randn(REGIONS, 5, 4).to(dtype)


def theirs(model: nn.Module, region: Any, x: torch.Tensor, rows: torch.Tensor, method: str, slope: str) -> Any:
    """Lower and upper bounds [REGIONS, S], each region alone."""
    options = {"relu": slope, "conv_mode": "matrix"}
    bounded = auto_LiRPA.BoundedModule(model, torch.zeros_like(x[:1]), bound_opts=options)
    found = []
    before = torch.get_default_dtype()
    torch.set_default_dtype(x.dtype)  # that of matrices which it makes on its way
    try:
        for i in range(len(x)):
            perturbed = auto_LiRPA.BoundedTensor(x[i : i + 1], region(i))
            bounds = bounded.compute_bounds(x=(perturbed,), C=rows[i : i + 1], method=method)
            found.append([bound.detach().numpy() for bound in bounds])
    finally:
        torch.set_default_dtype(before)
    return [np.concatenate(side) for side in zip(*found, strict=True)]


def ours(model: nn.Module, region: bf.Region, rows: torch.Tensor, method: str, slope: str, dtype: str) -> Any:
    graph = bf.load(model, example_inputs=(torch.zeros(1, *region_shape(region), dtype=getattr(torch, dtype)),))
    options = {} if method == "IBP" else {"slope": SLOPES[slope], "intersect": False}
    found = bf.bound(
        graph,
        region,
        spec=bf.LinearSpec(rows.numpy()),
        method=METHODS[method],
        dtype=dtype,
        executor="torch",
        **options,
    )
    return found.lower, found.upper


def region_shape(region: bf.Region) -> tuple[int, ...]:
    array = region.lower if isinstance(region, bf.Box) else region.center
    return tuple(array.shape[1:])


def compare(found: Any, expected: Any, tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_boxes(kind: str, method: str, seed: int, dtype: str, tolerance: float) -> None:
    model, x, rows = network(kind, seed, getattr(torch, dtype))
    radius = 0.02 * (1 + seed) * torch.rand_like(x)

    def region(i: int) -> Any:
        box = {"x_L": (x - radius)[i : i + 1], "x_U": (x + radius)[i : i + 1]}
        return auto_LiRPA.PerturbationLpNorm(norm=np.inf, **box)

    expected = theirs(model, region, x, rows, method, "adaptive")
    box = bf.Box((x - radius).numpy(), (x + radius).numpy())
    compare(ours(model, box, rows, method, "adaptive", dtype), expected, tolerance)


@pytest.mark.parametrize("seed", [10, 11])
@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("method", ["CROWN-IBP", "CROWN"])
@pytest.mark.parametrize("kind", BUILDERS)
def test_slopes(kind: str, method: str, slope: str, seed: int) -> None:
    model, x, rows = network(kind, seed, torch.float64)
    expected = theirs(model, lambda i: auto_LiRPA.PerturbationLpNorm(norm=np.inf, eps=0.1), x, rows, method, slope)
    found = ours(model, bf.LpBall(x.numpy(), 0.1), rows, method, slope, "float64")
    compare(found, expected, 1e-9)


@pytest.mark.parametrize("seed", range(20, 24))
@pytest.mark.parametrize("method", METHODS)
def test_euclidean_balls(method: str, seed: int) -> None:
    model, x, rows = network("mlp", seed, torch.float64)
    expected = theirs(model, lambda i: auto_LiRPA.PerturbationLpNorm(norm=2, eps=0.3), x, rows, method, "adaptive")
    compare(ours(model, bf.LpBall(x.numpy(), 0.3, 2), rows, method, "adaptive", "float64"), expected, 1e-9)


@pytest.mark.filterwarnings("ignore:divide by zero")  # of its dual norm
@pytest.mark.parametrize("seed", range(30, 33))
def test_balls_of_norm_one(seed: int) -> None:
    """On one layer: it bounds the first layer by the norm 2, so that behind a relu its bounds are others."""
    torch.manual_seed(seed)
    model, x, rows = nn.Linear(7, 4).double(), torch.randn(REGIONS, 7).double(), torch.randn(REGIONS, 5, 4).double()
    expected = theirs(model, lambda i: auto_LiRPA.PerturbationLpNorm(norm=1, eps=0.5), x, rows, "CROWN", "adaptive")
    compare(ours(model, bf.LpBall(x.numpy(), 0.5, 1), rows, "CROWN", "adaptive", "float64"), expected, 1e-9)
