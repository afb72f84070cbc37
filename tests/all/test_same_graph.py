"""The same network gives the same graph, whether it comes as a torch module or as an ONNX file of any origin."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from boundflow_core.forward import evaluate_graph
from boundflow_core.frontends.torch_export import load_module
from boundflow_core.ir.primal import PrimalGraph, canonical, same_graph
from boundflow_core.ir.types import DType
from boundflow_onnx import load_onnx

from .twins import ONNX_FORMS, TWINS, images, onnx_form, torch_form


def _from_torch(module: nn.Module) -> PrimalGraph:
    return load_module(module, (torch.zeros(1, 1, 8, 8),))


def _text(graph: PrimalGraph) -> list[str]:
    """The operators as text, without names, whichever constants they share."""
    lines = [line.partition("  #")[0] for line in str(canonical(graph)).splitlines() if " = constant" not in line]
    return [re.sub(r"%c\d+", "%c", line) for line in lines[1:]]


def _close(found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("form", list(ONNX_FORMS))
@pytest.mark.parametrize("name", list(TWINS))
def test_same_graph_from_torch_and_onnx(name: str, form: str) -> None:
    module, x = torch_form(name), images()
    model = onnx_form(form, name, module)

    # They are twins: onnxruntime gives for the one what torch gives for the other.
    session = onnxruntime.InferenceSession(model.SerializeToString())
    key = session.get_inputs()[0].name
    with torch.no_grad():
        y = module(torch.from_numpy(x)).numpy()
    _close(np.concatenate([session.run(None, {key: image[None]})[0] for image in x]), y, 1e-5)

    one, other = _from_torch(module), load_onnx(model)
    assert _text(one) == _text(other)  # first, since it shows where they differ
    assert same_graph(one, other, rtol=1e-6)
    for dtype, tolerance in ((DType.FLOAT64, 1e-6), (DType.FLOAT32, 1e-5)):
        _close(evaluate_graph(one, x, dtype), y, 1e-5)
        _close(evaluate_graph(other, x, dtype), evaluate_graph(one, x, dtype), tolerance)


@pytest.mark.parametrize("name", list(TWINS))
def test_other_weights_are_another_graph(name: str) -> None:
    module = torch_form(name)
    other = load_onnx(onnx_form("by_hand", name, module))
    with torch.no_grad():
        next(module.parameters()).mul_(1.001)
    assert _text(_from_torch(module)) == _text(other)
    assert not same_graph(_from_torch(module), other, rtol=1e-6)


def test_another_network_is_another_graph() -> None:
    assert not same_graph(_from_torch(torch_form("cnn")), _from_torch(torch_form("residual")), rtol=1e-6)
