"""Networks of convolutions and pools."""

from __future__ import annotations

import itertools

from .building import Network, numbers, single

_OPSETS = (8, 11, 13, 21)


def _convolutions() -> list[Network]:
    nets: list[Network] = []
    weight, bias = numbers(4, 2, 3, 2), numbers(4, seed=2)
    for stride, pads, dilation in itertools.product(((1, 1), (2, 3)), ((0, 0, 0, 0), (1, 0, 2, 1)), ((1, 1), (2, 1))):
        settings = {"strides": list(stride), "pads": list(pads), "dilations": list(dilation)}
        nets += single("Conv", (1, 2, 7, 6), weight, bias, opsets=_OPSETS, **settings)
        nets += single("Conv", (1, 4, 7, 6), weight, opsets=(11,), group=2, **settings)
        taps = numbers(2, 3, 3, 2)
        nets += single("ConvTranspose", (1, 2, 4, 3), taps, numbers(3), opsets=_OPSETS, **settings)
        nets += single("ConvTranspose", (1, 4, 4, 3), numbers(4, 3, 3, 2), group=2, opsets=(11,), **settings)
    for automatic, stride in itertools.product(("SAME_UPPER", "SAME_LOWER", "VALID"), ((1, 1), (2, 2))):
        settings = {"auto_pad": automatic, "strides": list(stride)}
        nets += single("Conv", (1, 2, 7, 6), weight, bias, opsets=_OPSETS, **settings)
        nets += single("MaxPool", (1, 2, 7, 6), kernel_shape=[3, 2], opsets=_OPSETS, **settings)
        nets += single("AveragePool", (1, 2, 7, 6), kernel_shape=[3, 2], opsets=_OPSETS, **settings)
    for automatic, size in itertools.product(("SAME_UPPER", "SAME_LOWER"), ((8, 8), (7, 9))):
        settings = {"auto_pad": automatic, "strides": [2, 3]}
        nets += single("ConvTranspose", (1, 2, 4, 3), numbers(2, 3, 3, 4), opsets=_OPSETS, **settings)
        nets += single("ConvTranspose", (1, 2, 4, 3), numbers(2, 3, 3, 4), output_shape=list(size), **settings)
    nets += single(
        "ConvTranspose", (1, 2, 4, 3), numbers(2, 3, 3, 2), strides=[2, 3], output_padding=[1, 2], opsets=_OPSETS
    )
    for groups, stride in itertools.product((1, 2), (1, 2)):
        line = {"strides": [stride], "pads": [1, 2], "group": groups}
        nets += single("Conv", (1, 4, 9), numbers(4, 4 // groups, 3), bias, opsets=_OPSETS, **line)
        nets += single("ConvTranspose", (1, 4, 5), numbers(4, 3, 4), opsets=_OPSETS, **line)
    nets += single("Conv", (2, 2, 5, 5), weight, bias, opsets=(13,), label="batch2")
    return nets


def _pools() -> list[Network]:
    nets: list[Network] = []
    shape = (1, 2, 8, 7)
    for stride, pads in itertools.product(((1, 1), (2, 3), (3, 2)), ((0, 0, 0, 0), (1, 0, 1, 1), (0, 1, 1, 0))):
        settings = {"kernel_shape": [3, 2], "strides": list(stride), "pads": list(pads)}
        nets += single("MaxPool", shape, opsets=(8, 10, 11, 12, 21), **settings)
        nets += single("AveragePool", shape, opsets=(8, 10, 11, 19, 21), **settings)
        nets += single("AveragePool", shape, opsets=(8, 19), count_include_pad=1, **settings)
        nets += single("MaxPool", shape, since=10, opsets=(10, 21), ceil_mode=1, **settings)
        nets += single("MaxPool", shape, since=10, opsets=(10, 21), dilations=[2, 3], **settings)
        nets += single("AveragePool", shape, since=10, opsets=(10, 21), ceil_mode=1, **settings)
        nets += single("AveragePool", shape, since=10, opsets=(19, 21), ceil_mode=1, count_include_pad=1, **settings)
        nets += single("AveragePool", shape, since=19, opsets=(19, 21), dilations=[2, 1], **settings)
    for ceil in (0, 1):
        line = {"kernel_shape": [3], "strides": [2], "pads": [1, 0], "ceil_mode": ceil}
        nets += single("MaxPool", (1, 2, 8), since=10, opsets=(10, 21), **line)
        nets += single("AveragePool", (1, 2, 8), since=10, opsets=(10, 21), **line)
    for size in ((1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 2, 2)):
        nets += single("GlobalAveragePool", size, opsets=(8, 13, 21))
        nets += single("GlobalMaxPool", size, opsets=(8, 13, 21))
    return nets


WINDOWS = (*_convolutions(), *_pools())
