"""The torch frontend under the conformance kit: random modules, with torch as the measure."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from boundflow_core.testing import Sample, check_frontend

ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.LeakyReLU, nn.Softplus)


@st.composite
def perceptrons(draw: Any) -> Sample:
    """One to three linear layers with activations, weights of a drawn seed."""
    widths = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    layers: list[nn.Module] = []
    for width, after in itertools.pairwise(widths):
        layers += [nn.Linear(width, after, bias=draw(st.booleans())), draw(st.sampled_from(ACTIVATIONS))()]
    module = nn.Sequential(*layers).eval()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)

    def function(points: NDArray[np.float32]) -> Any:
        with torch.no_grad():
            return module(torch.from_numpy(points)).numpy()

    return Sample("perceptron", module, function, {"example_inputs": (torch.zeros(1, widths[0]),)})


def test_kit() -> None:
    check_frontend("torch", perceptrons(), broken=[(nn.Linear(2, 2), {"example_inputs": (torch.zeros(1, 3),)})],
                   examples=6, shrink=False)  # fmt: skip
