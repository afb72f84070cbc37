"""Convolutions in torch: every way gives the same, into memory of any order, and pieces do not show."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st

from boundflow_core.executors import convolution, torch_convolution
from boundflow_core.executors.convolution import Convolution, Way, adjoint_way, forward_way
from boundflow_core.ir import meaning
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.types import DType


def operation(name, draw):
    """A random convolution or adjoint, with operands in multiples of 1/8: sums of products are exact in float32."""
    pair = lambda low, high: draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    kernel, dilation, stride = pair(1, 4), draw(st.sampled_from([(1, 1), (1, 1), (2, 1)])), pair(1, 3)
    low = pair(0, 2)
    padding = (*low, *(low if draw(st.booleans()) else pair(0, 2)))
    groups = draw(st.sampled_from([1, 1, 2]))
    channels, outputs, images = (
        groups * draw(st.integers(1, 5)),
        groups * draw(st.integers(1, 4)),
        draw(st.integers(1, 5)),
    )
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = tuple(r + draw(st.integers(0, 5)) for r in reach)
    spans = [size[a] + padding[a] + padding[2 + a] - reach[a] for a in (0, 1)]
    positions = [span // step + 1 for span, step in zip(spans, stride, strict=True)]
    numbers = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([DType.FLOAT32, DType.FLOAT64]))
    b = Builder(dtype)
    weight = numbers.integers(-8, 8, (outputs, channels // groups, *kernel)) / 8
    front = (images, channels, *size) if name == "conv2d" else (images, outputs, *positions)
    x, w = b.input("x", front), b.input("w", weight.shape)
    attrs = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups}
    y = b.conv2d(x, w, **attrs) if name == "conv2d" else b.conv2d_input_grad(x, w, input_size=size, **attrs)
    op = next(op for op in b.finish({"y": y}).ops if op.name == name)
    arrays = [array.astype(dtype.numpy) for array in (numbers.integers(-8, 8, front) / 8, weight)]
    return op, arrays


def in_order(shape, dtype, last):
    """Memory full of NaN for a result [N, C, H, W], with its channels last or not."""
    n, c, h, w = shape
    full = torch.full((n, h, w, c) if last else shape, float("nan"), dtype=dtype)
    return full.permute(0, 3, 1, 2) if last else full


@pytest.mark.parametrize("name", ["conv2d", "conv2d_input_grad"])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_every_way_gives_the_same(name, data):
    op, arrays = operation(name, data.draw)
    expected = getattr(meaning, name)(arrays, op.attrs)
    x, w = map(torch.from_numpy, arrays)
    if data.draw(st.booleans()):
        x = x.to(memory_format=torch.channels_last)
    least, piece = data.draw(st.sampled_from([0, 10**9])), data.draw(st.sampled_from([1, 2000, 2**22]))
    out = in_order(expected.shape, x.dtype, data.draw(st.booleans()))
    strides = out.stride()
    with mock.patch.multiple(convolution, LEAST_WORK=least, PIECE=piece):
        conv = Convolution.of(op, {})
        choose = forward_way if name == "conv2d" else adjoint_way
        event(f"{choose(conv, torch_convolution.ONEDNN)}")
        kernel = getattr(torch_convolution, name)(op)
        kernel(x, w, out=out)
        np.testing.assert_array_equal(out.numpy(), expected)
        assert out.stride() == strides
        np.testing.assert_array_equal(kernel(x, w).numpy(), expected)
        if name == "conv2d_input_grad":
            out.fill_(float("nan"))
            torch_convolution.conv2d_input_grad(op, w)(x, w, out=out)
            np.testing.assert_array_equal(out.numpy(), expected)


def conv(images=32, groups=1, dtype=DType.FLOAT32, stride=(2, 2), kernel=(4, 4), padding=(1, 1, 1, 1)):
    positions = tuple((16 + padding[a] + padding[2 + a] - kernel[a]) // stride[a] + 1 for a in (0, 1))
    return Convolution(images, 8, 16, groups, (16, 16), positions, kernel, stride, (1, 1), padding, dtype)


@pytest.mark.parametrize(
    ("given", "forward", "adjoint"),
    [
        (conv(), Way.ONEDNN, Way.ONEDNN),
        (conv(images=1), Way.NATIVE, Way.NATIVE),
        (conv(dtype=DType.FLOAT64), Way.NATIVE, Way.NATIVE),
        (conv(groups=2), Way.ONEDNN, Way.PRODUCT),
        (conv(images=1, padding=(0, 1, 1, 0)), Way.PRODUCT, Way.PRODUCT),
        (conv(kernel=(2, 2), padding=(2, 2, 2, 2)), Way.ONEDNN, Way.NATIVE),  # some of the gradient is read by nothing
        (conv(images=1, kernel=(16, 16), padding=(0, 0, 0, 0)), Way.PRODUCT, Way.NATIVE),
    ],
)
def test_the_way_follows_from_the_sizes(given, forward, adjoint):
    assert (forward_way(given, onednn=True), adjoint_way(given, onednn=True)) == (forward, adjoint)
    assert Way.ONEDNN not in (forward_way(given, onednn=False), adjoint_way(given, onednn=False))
