"""Bounds that torch differentiates: gradients in weights and regions, live weights, and a short certified training."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import boundflow_core as bf

METHODS = ("ibp", "crown-ibp", "crown")
TOLERANCE = {"rtol": 1e-6, "atol": 1e-8}  # of differences with a step of 1e-6, in float64


@pytest.fixture(scope="module")
def example(repository_root: Path) -> ModuleType:
    path = repository_root / "examples" / "certified_training" / "train.py"
    spec = importlib.util.spec_from_file_location("certified_training", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["certified_training"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))
    return nn.Sequential(*layers).double()


def cnn() -> nn.Sequential:
    torch.manual_seed(1)
    layers = (
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    return nn.Sequential(*layers).double().eval()


NETWORKS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {"mlp": (mlp, (4,)), "cnn": (cnn, (1, 6, 6))}


def loss_of(net: nn.Module, shape: tuple[int, ...], method: str, **options: Any) -> tuple[Callable[[], Any], Any]:
    """A function of all bounds of three regions, and the regions' centre."""
    torch.manual_seed(2)
    center = torch.rand(3, *shape, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(4, 3, dtype=torch.float64)
    weight = torch.rand(2, 3, 4, dtype=torch.float64)
    graph = bf.load(net, example_inputs=(torch.zeros(1, *shape, dtype=torch.float64),))
    run = bf.compile(graph, method=method, differentiable=True, executor="torch", dtype="float64", **options)

    def loss() -> Any:
        bounds = run(bf.Box(center - 0.1, center + 0.1), bf.LinearSpec(rows))
        return (weight[0] * bounds.lower).sum() - (weight[1] * bounds.upper).sum()

    return loss, center


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ibp", {}),
        ("crown-ibp", {}),
        ("crown-ibp", {"intersect": False, "slope": "same"}),  # slopes themselves depend on the weights
        ("crown", {"intersect": False}),
    ],
)
def test_gradients_equal_differences(name: str, method: str, options: dict[str, Any]) -> None:
    build, shape = NETWORKS[name]
    net = build()
    loss, center = loss_of(net, shape, method, **options)
    variables = [center, *net.parameters()]
    gradients = torch.autograd.grad(loss(), variables)
    torch.manual_seed(3)
    step = 1e-6
    for variable, gradient in zip(variables, gradients, strict=True):
        direction = torch.randn_like(variable)
        direction /= direction.norm()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                variable += sign * step * direction
                values.append(loss())
                variable -= sign * step * direction
        found, expected = (gradient * direction).sum(), (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(found, expected, **TOLERANCE)
    assert all(bool(gradient.abs().max() > 1e-4) for gradient in gradients), "every variable matters"


def interval_bounds(net: nn.Sequential, lower: Any, upper: Any) -> tuple[Any, Any]:
    """Interval bounds of an MLP as torch code by hand."""
    for layer in net:
        if isinstance(layer, nn.Linear):
            middle, radius = layer((lower + upper) / 2), (upper - lower) / 2 @ layer.weight.abs().T
            lower, upper = middle - radius, middle + radius
        else:
            lower, upper = layer(lower), layer(upper)
    return lower, upper


def crown_ibp_lower(net: nn.Sequential, lower: Any, upper: Any) -> Any:
    """Lower bounds of an MLP's outputs by CROWN-IBP with the chord's slope on both sides, as torch code by hand."""
    spans, low, high = [], lower, upper
    for layer in net:
        spans.append((low, high))
        low, high = interval_bounds(nn.Sequential(layer), low, high)
    rows, bias = torch.eye(low.shape[1], dtype=low.dtype).expand(len(low), -1, -1), 0
    for layer, (low, high) in zip(reversed(net), reversed(spans), strict=True):
        if isinstance(layer, nn.Linear):
            rows, bias = rows @ layer.weight, bias + rows @ layer.bias
        else:
            below, above = low.clamp(max=0), high.clamp(min=0)
            slope = (above / (above - below))[:, None]
            bias = bias + (rows.clamp(max=0) * -slope * below[:, None]).sum(2)
            rows = rows * slope
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    return (rows @ center[..., None] - rows.abs() @ radius[..., None])[..., 0] + bias


@pytest.mark.parametrize("method", ["ibp", "crown-ibp"])
def test_gradients_equal_those_of_bounds_written_by_hand(method: str) -> None:
    net = mlp()
    center = torch.rand(5, 4, dtype=torch.float64)
    lower, upper = center - 0.2, center + 0.2
    graph = bf.load(net, example_inputs=(center[:1],))
    options = {} if method == "ibp" else {"slope": "same", "intersect": False, "side": "lower"}
    run = bf.compile(graph, method=method, differentiable=True, executor="torch", dtype="float64", **options)
    expected = interval_bounds(net, lower, upper)[0] if method == "ibp" else crown_ibp_lower(net, lower, upper)
    found = run(bf.Box(lower, upper)).lower
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    parameters = list(net.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(found.square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_alpha_crown_takes_its_slopes_as_given() -> None:
    """Its gradient in the weights is that of the bounds for the slopes found: finite, and the bias's own is exact."""
    net = mlp()
    loss, _ = loss_of(net, (4,), "alpha-crown", iterations=5)
    gradients = torch.autograd.grad(loss(), list(net.parameters()))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    step = 1e-6
    with torch.no_grad():
        bias = net[-1].bias
        bias[0] += step
        above = loss()
        bias[0] -= 2 * step
        below = loss()
    torch.testing.assert_close(gradients[-1][0], (above - below) / (2 * step), **TOLERANCE)


@pytest.mark.parametrize("differentiable", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_calls_follow_weights_changed_in_place(method: str, differentiable: bool) -> None:
    net = cnn()
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    region = bf.Box(x - 0.05, x + 0.05)
    options: dict[str, Any] = {"method": method, "executor": "torch", "dtype": "float64"}
    graph = bf.load(net, example_inputs=(x[:1],))
    run = bf.compile(graph, differentiable=differentiable, **options)
    before = run(region).lower.detach().clone()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5).add_(0.01)
    after = run(region)
    fresh = bf.bound(bf.load(net, example_inputs=(x[:1],)), region, **options)
    assert bool((after.lower - before).abs().max() > 1e-3)
    torch.testing.assert_close(after.lower.detach(), fresh.lower, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(after.upper.detach(), fresh.upper, rtol=1e-10, atol=1e-12)


def test_what_is_not_differentiable_records_nothing() -> None:
    net = mlp()
    x = torch.rand(2, 4, dtype=torch.float64, requires_grad=True)
    run = bf.compile(
        bf.load(net, example_inputs=(x[:1].detach(),)), method="crown-ibp", executor="torch", dtype="float64"
    )
    assert not run(bf.Box(x - 0.1, x + 0.1)).lower.requires_grad


@pytest.mark.parametrize("loss", ["ibp", "crown-ibp"])
def test_certified_accuracy_rises(example: ModuleType, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few epochs at a smaller eps: the method of the loss certifies few images before, most of them after."""
    monkeypatch.setattr(example, "EPS", 0.03)
    first, last = example.history(loss, example.Recipe(epochs=8, eps=0.03, ramp=0.5), every=8)
    assert (first.epoch, last.epoch) == (0, 8)
    assert first.certified[loss] < 0.1
    assert last.certified[loss] > 0.6
    for row in (first, last):
        assert row.certified["ibp"] <= row.certified["crown-ibp"] <= row.clean
