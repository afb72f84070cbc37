"""A network in NHWC, with transposes around every convolution, against its twin in NCHW."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import boundflow_core as bf
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder, Tensor
from boundflow_core.planner.layout import layout_ops

Array = NDArray[Any]
TO_NCHW, TO_NHWC = (2, 0, 1), (1, 2, 0)
WINDOW = {"stride": (1, 1), "dilation": (1, 1)}

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
EXECUTORS = ["reference", pytest.param("torch", marks=needs_torch)]


class Layout:
    """Writes one network in either layout."""

    def __init__(self, nhwc: bool) -> None:
        self.nhwc = nhwc
        self.g = PrimalBuilder("nhwc" if nhwc else "nchw", "x", (8, 8, 3) if nhwc else (3, 8, 8))
        self.numbers = np.random.default_rng(0)

    def in_nchw(self, x: Tensor, op: str, *operands: Array, **attributes: Any) -> Tensor:
        """An operator on images, between transposes."""
        x = self.g.op("permute", x, axes=TO_NCHW) if self.nhwc else x
        y = self.g.op(op, x, *operands, **attributes)
        return self.g.op("permute", y, axes=TO_NHWC) if self.nhwc else y

    def conv(self, x: Tensor, out: int, padding: int = 1) -> Tensor:
        """A convolution, and its bias by channel in the network's own layout."""
        channels = x.shape[-1 if self.nhwc else 0]
        weight = self.numbers.normal(size=(out, channels, 3, 3)) / np.sqrt(9 * channels)
        bias = self.numbers.normal(size=out)
        y = self.in_nchw(x, "conv2d", weight, padding=(padding,) * 4, groups=1, **WINDOW)
        return self.g.op("add", y, bias if self.nhwc else bias.reshape(-1, 1, 1))

    def pool(self, x: Tensor) -> Tensor:
        return self.in_nchw(x, "max_pool2d", kernel=(2, 2), stride=(2, 2), padding=(0, 0, 0, 0), dilation=(1, 1))

    def flat_linear(self, x: Tensor, out: int) -> Tensor:
        """The elements in the order of the layout, and the weight's columns in the same order."""
        channels, height, width = np.array(x.shape)[list(TO_NCHW)] if self.nhwc else x.shape
        weight = self.numbers.normal(size=(out, channels, height, width)) / np.sqrt(channels * height * width)
        weight = weight.transpose(0, 2, 3, 1) if self.nhwc else weight
        flat = self.g.op("reshape", x, shape=(weight[0].size,))
        return self.g.op("linear", flat, weight.reshape(out, -1), self.numbers.normal(size=out))


def residual(n: Layout) -> Tensor:
    x = n.g.op("relu", n.conv(n.g.input, 8))
    y = n.g.op("relu", n.conv(x, 8))
    x = n.g.op("relu", n.g.op("add", x, n.conv(y, 8)))
    return n.g.op("linear", n.g.op("relu", n.flat_linear(n.pool(x), 12)), n.numbers.normal(size=(5, 12)))


def smooth(n: Layout) -> Tensor:
    """Activations of many steps, products of channels, and a mean over the pixels."""
    x = n.g.op("sigmoid", n.conv(n.g.input, 4, padding=0))
    scale = n.numbers.normal(size=4)
    x = n.g.op("gelu", n.g.op("mul", x, scale if n.nhwc else scale.reshape(-1, 1, 1)), approximate="none")
    x = n.g.op("softmax", n.conv(x, 6), axis=2 if n.nhwc else 0)
    total = n.g.op("reduce_sum", x, axes=(0, 1) if n.nhwc else (1, 2), keepdims=False)
    return n.g.op("linear", total, n.numbers.normal(size=(5, 6)))


def branches(n: Layout) -> Tensor:
    """Branches joined along the channels, one of them cropped and padded."""
    x = n.g.op("tanh", n.conv(n.g.input, 4))
    edge = (0, 1, 1) if not n.nhwc else (1, 1, 0)
    starts, stops = edge, tuple(dim - cut for dim, cut in zip(x.shape, edge, strict=True))
    cropped = n.g.op(
        "pad", n.g.op("slice", x, starts=starts, stops=stops, steps=(1, 1, 1)), low=edge, high=edge, value=0.0
    )
    joined = n.g.op("concat", n.conv(x, 4), cropped, axis=2 if n.nhwc else 0)
    return n.flat_linear(n.g.op("relu", joined), 5)


NETWORKS = {"residual": residual, "smooth": smooth, "branches": branches}


def twins(name: str) -> tuple[PrimalGraph, PrimalGraph]:
    """The network in NCHW and in NHWC."""
    layouts = Layout(nhwc=False), Layout(nhwc=True)
    nchw, nhwc = (layout.g.finish(NETWORKS[name](layout)) for layout in layouts)
    return nchw, nhwc


def count(run: Any) -> int:
    """All layout operations of a plan, those on constants too."""
    return sum(op.spec.kind == "layout" for task in run.plan.tasks for op in task.ops)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("rows", [None, "shared", "per region"])
@pytest.mark.parametrize("name", NETWORKS)
def test_nhwc_plans_to_two_layout_operations_more_than_nchw(name: str, rows: str | None, executor: str) -> None:
    """Two: of the lower and the upper bound of the input."""
    nchw, nhwc = twins(name)
    numbers = np.random.default_rng(3)
    centre = numbers.normal(size=(2, 3, 8, 8))
    shape = {None: None, "shared": (4, 5), "per region": (2, 4, 5)}[rows]
    spec = bf.LinearSpec(numbers.normal(size=shape)) if shape else None
    options: dict[str, Any] = {"method": "ibp", "executor": executor, "dtype": "float64"}
    plain, turned = bf.compile(nchw, **options), bf.compile(nhwc, **options)
    expected = plain(bf.LpBall(centre, 0.1), spec)
    found = turned(bf.LpBall(centre.transpose(0, 2, 3, 1), 0.1), spec)
    np.testing.assert_allclose(found.lower, expected.lower, rtol=1e-6)
    np.testing.assert_allclose(found.upper, expected.upper, rtol=1e-6)
    assert count(turned) <= count(plain) + 2
    assert len(layout_ops(turned.plan.program)) <= len(layout_ops(plain.plan.program)) + 2
    assert sum(turned.plan.layout.before.values()) > sum(turned.plan.layout.after.values())
    assert turned.plan.layout.eliminated["permute"] > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_the_passes_keep_the_bounds(name: str) -> None:
    """Against the program as the method wrote it."""
    from boundflow_core.ir.evaluate import evaluate
    from boundflow_core.ir.types import DType
    from boundflow_core.workshop import write_program
    from boundflow_interval import IBP, INTERVAL

    _, graph = twins(name)
    program = write_program(graph, IBP, {"interval": INTERVAL}, dtype=DType.FLOAT64, spec=None, options={})
    centre = np.random.default_rng(3).normal(size=(2, 8, 8, 3))
    lower, upper = centre - 0.1, centre + 0.1
    expected = evaluate(program, {"lower": lower, "upper": upper})
    found = bf.bound(graph, bf.Box(lower, upper), method="ibp", executor="reference", dtype="float64")
    np.testing.assert_allclose(found.lower, expected["lower"], rtol=1e-9)
    np.testing.assert_allclose(found.upper, expected["upper"], rtol=1e-9)
