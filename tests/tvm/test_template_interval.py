"""Products and convolutions of bounds, and convolutions of images, compiled, against their definitions in NumPy: tails
of tiles, one row, infinities.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_runs import check

from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.types import DType, SymDim
from boundflow_interval.composites import INTERVAL_CONV2D, INTERVAL_MATMUL

B = SymDim.of("B")
SIZES = st.sampled_from([1, 2, 3, 7, 15, 16, 17, 31, 64, 67, 100, 131])
DTYPES = st.sampled_from([DType.FLOAT32, DType.FLOAT64])


def bounds(rng, shape, dtype):
    centre, radius = rng.standard_normal(shape), np.abs(rng.standard_normal(shape))
    return {"lower": (centre - radius).astype(dtype.numpy), "upper": (centre + radius).astype(dtype.numpy)}


def check_affine(composite, rng, shapes, attrs, dtype, batch, bias):
    x, weight, columns = shapes
    constants = {"weight": rng.standard_normal(weight)} | ({"bias": rng.standard_normal(columns)} if bias else {})
    operands = {"lower": ((B, *x), None), "upper": ((B, *x), None), "weight": (weight, None)}
    if bias:
        operands["bias"] = ((columns,), None)
    arrays = bounds(rng, (batch, *x), dtype)
    largest = np.maximum(np.abs(arrays["lower"]), np.abs(arrays["upper"]))
    magnitudes = {"lower": largest, "upper": largest}
    check(composite, operands, constants, attrs, dtype, arrays, magnitudes)


@settings(max_examples=25, deadline=None)
@given(SIZES, SIZES, st.sampled_from([1, 2, 3, 4, 7]), DTYPES, st.booleans(), st.booleans(), st.integers(0, 99))
def test_matmul(inputs, columns, batch, dtype, transpose, bias, seed):
    weight = (columns, inputs) if transpose else (inputs, columns)
    attrs = {"side": "right", "transpose": transpose}
    rng = np.random.default_rng(seed)
    check_affine(INTERVAL_MATMUL, rng, ((inputs,), weight, columns), attrs, dtype, batch, bias)


@st.composite
def convolutions(draw):
    """Channels, outputs, the extent of images, the kernel's, and attributes."""
    channels, outputs = (draw(st.sampled_from([1, 2, 3, 5, 8, 16, 17])) for _ in range(2))
    kernel, stride, dilation = ((draw(st.integers(1, 3)), draw(st.integers(1, 3))) for _ in range(3))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(4))
    least = [(kernel[a] - 1) * dilation[a] + 1 for a in (0, 1)]
    extent = tuple(max(1, least[a] - padding[a] - padding[a + 2]) + draw(st.integers(0, 17)) for a in (0, 1))
    return channels, outputs, extent, kernel, {"stride": stride, "padding": padding, "dilation": dilation, "groups": 1}


@settings(max_examples=25, deadline=None)
@given(convolutions(), st.sampled_from([1, 2, 3]), DTYPES, st.booleans(), st.integers(0, 99))
def test_interval_conv2d(layer, batch, dtype, bias, seed):
    channels, outputs, extent, kernel, attrs = layer
    shapes = ((channels, *extent), (outputs, channels, *kernel), outputs)
    check_affine(INTERVAL_CONV2D, np.random.default_rng(seed), shapes, attrs, dtype, batch, bias)


@settings(max_examples=25, deadline=None)
@given(convolutions(), st.sampled_from([1, 2, 17]), DTYPES, st.integers(0, 99))
def test_conv2d(layer, batch, dtype, seed):
    channels, outputs, extent, kernel, attrs = layer
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, channels, *extent)).astype(dtype.numpy)
    weight = rng.standard_normal((outputs, channels, *kernel))
    operands = {"x": ((B, channels, *extent), None), "weight": (weight.shape, None)}
    check(PRIMITIVES["conv2d"], operands, {"weight": weight}, attrs, dtype, {"x": x}, {"x": np.abs(x)})


SPECIAL = st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -0.0]), min_size=1, max_size=3)


def spoiled(data, rng, arrays):
    """``arrays`` with a few numbers that are none, or infinite, or nearly so; and zeros that must not hide them."""
    for value in data.draw(SPECIAL):
        array = arrays[data.draw(st.sampled_from(sorted(arrays)))]
        array[tuple(rng.integers(0, size) for size in array.shape)] = value
    return arrays


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_what_is_undefined_stays_undefined(data):
    """A bound that is NaN or infinite must not look finite afterwards, nor make others look otherwise."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    inputs, columns, batch = data.draw(SIZES), data.draw(SIZES), data.draw(st.integers(1, 7))
    transpose = data.draw(st.booleans())
    arrays = spoiled(data, rng, bounds(rng, (batch, inputs), DType.FLOAT32))
    weight = rng.standard_normal((columns, inputs) if transpose else (inputs, columns))
    weight[rng.random(weight.shape) < 0.3] = 0.0
    operands = {"lower": ((B, inputs), None), "upper": ((B, inputs), None), "weight": (weight.shape, None)}
    attrs = {"side": "right", "transpose": transpose}
    check(INTERVAL_MATMUL, operands, {"weight": weight}, attrs, DType.FLOAT32, arrays)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_what_is_undefined_stays_undefined_in_maps(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    channels, outputs = (data.draw(st.sampled_from([1, 2, 3, 8, 16, 17])) for _ in range(2))
    kernel, stride = ((data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))) for _ in range(2))
    padding = tuple(data.draw(st.integers(0, 2)) for _ in range(4))
    extent = tuple(kernel[a] + data.draw(st.integers(0, 9)) for a in (0, 1))
    arrays = spoiled(data, rng, bounds(rng, (data.draw(st.integers(1, 3)), channels, *extent), DType.FLOAT32))
    weight = rng.standard_normal((outputs, channels, *kernel))
    weight[rng.random(weight.shape) < 0.3] = 0.0
    region = ((B, channels, *extent), None)
    operands = {"lower": region, "upper": region, "weight": (weight.shape, None)}
    attrs = {"stride": stride, "padding": padding, "dilation": (1, 1), "groups": 1}
    check(INTERVAL_CONV2D, operands, {"weight": weight}, attrs, DType.FLOAT32, arrays)
